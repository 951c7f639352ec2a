"""The cells of a study on disk: where each is, which command and settings it is trained with."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Sequence

from absl import flags

from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.settings import define_flags, flag_values
from trainer.comparison.method_grid import DECOUPLED, Cell, parse_method
from trainer.runs import run_files
from trainer.settings.config import TrainConfig

# Flags of `trainer.main` that the grid sets.
_GRID_FLAGS = ("run_dir", "backbone", "seed", "sampler", "loss", "mixup", "mixup_alpha")


@dataclasses.dataclass(frozen=True)
class Study:
    """A grid of runs in one folder.

    Attributes:
      folder: --study_dir; each cell has a run directory below `runs`, and a log beside it.
      data: the data set of all runs.
      common: flags of `trainer.main` that all cells share.
      cells: the grid.
    """

    folder: str
    data: DatasetDir
    common: Sequence[str]
    cells: Sequence[Cell]

    def run_dir(self, cell: Cell) -> str:
        return os.path.join(self.folder, "runs", cell.name)

    def log(self, cell: Cell) -> str:
        """The file that gets the output of the cell's run."""
        return self.run_dir(cell) + ".log"

    def base(self, cell: Cell) -> Cell:
        """The cell whose run a decoupled cell starts from; another cell itself."""
        if not cell.method.decoupled:
            return cell
        return dataclasses.replace(cell, method=parse_method("none"))

    def command(self, cell: Cell) -> list[str]:
        """The command line that makes the cell's run."""
        if cell.method.decoupled:
            return [
                *(sys.executable, "-m", "trainer.decouple"),
                f"--from_run={self.run_dir(self.base(cell))}",
                f"--run_dir={self.run_dir(cell)}",
                f"--method={cell.method.decoupled}",
                *(f"--{name}={value}" for name, value in DECOUPLED[cell.method.decoupled].items()),
            ]
        return [sys.executable, "-m", "trainer.main", *self._arguments(cell)]

    def config(self, cell: Cell) -> TrainConfig:
        """The settings of the cell's run; those of its base, if the cell is decoupled.

        Raises:
          UserError: `trainer.main` would refuse a flag.
        """
        values = _parse(self._arguments(self.base(cell)))
        return TrainConfig(**flag_values(TrainConfig, values=values))

    def part(self, number: int, count: int) -> list[Cell]:
        """The cells of one of `count` parts (from 1), which take about the same time. Decoupled
        cells are in the part of the run that they start from."""
        bases = list(dict.fromkeys(map(self.base, self.cells)))
        return [c for c in self.cells if bases.index(self.base(c)) % count == number - 1]

    def is_finished(self, cell: Cell) -> bool:
        """Whether the cell's run is finished, see `run_files`; its model may have been deleted."""
        return run_files.is_finished(self.run_dir(cell), with_model=False)

    def _arguments(self, cell: Cell) -> list[str]:
        own = [f"--{name}={value}" for name, value in cell.method.flags.items()]
        own += [f"--backbone={cell.backbone}", f"--seed={cell.seed}"]
        # Runs on a frozen backbone share its features; the user's flags come later and override.
        features = f"--features_dir={os.path.join(self.folder, 'features')}"
        return [features, *self.common, *own, f"--run_dir={self.run_dir(cell)}"]


def check_shared_flags(arguments: Sequence[str]) -> None:
    """Refuses flags for all runs that `trainer.main` does not know or that the study sets itself.

    Raises:
      UserError: it names the flag.
    """
    values = _parse(arguments)
    for name in _GRID_FLAGS:
        if values[name].present:
            raise UserError(
                f"--{name} is set by the study, see --methods, --seeds and --backbones: leave it "
                "out"
            )


def parse_part(text: str) -> tuple[int, int]:
    """`2/5` to `(2, 5)`; empty to `(1, 1)`, the whole study.

    Raises:
      UserError: it has another form.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text or "1/1")
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise UserError(f"--cells={text} must look like 2/5, the second of 5 parts")
    return number, count


def _parse(arguments: Sequence[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    define_flags(TrainConfig, values=values)
    try:
        rest = values(["trainer.main", *arguments])
    except flags.Error as error:
        raise UserError(f"{error}. `python -m trainer.main --help` explains the flags") from error
    if rest[1:]:
        raise UserError(f"unknown argument {rest[1]!r}: flags look like --name=value")
    return values
