"""The cells of a study on disk: where each is, which command and settings it is trained with."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping, Sequence

from absl import flags

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError, flag_problem
from cxr_tfrecords.settings import define_flags, flag_values
from trainer.comparison.method_grid import DECOUPLED, Cell, parse_method
from trainer.runs import run_files
from trainer.settings.chosen_classes import ClassMap
from trainer.settings.config import TrainConfig

# Flags of `trainer.main` that the grid sets.
_GRID_FLAGS = ("run_dir", "backbone", "seed", "sampler", "loss", "mixup", "mixup_alpha")


@dataclasses.dataclass(frozen=True)
class Study:
    """A grid of runs in one folder.

    Attributes:
      folder: --study_dir; each cell has a run directory below `runs` (a try of tuning: `tuning`),
        and a log beside it.
      data: test fold -> the data set with this fold and the classes of the runs; one item, of key
        None, without folds.
      common: flags of `trainer.main` that all cells share.
      cells: the grid.
      steps: test fold -> --steps_per_epoch of its runs, unless `common` has another; empty: that of
        `trainer.main`.
      values: cell -> flags that tuning gives its run, see `tuning`.
    """

    folder: str
    data: Mapping[int | None, DatasetDir]
    common: Sequence[str]
    cells: Sequence[Cell]
    steps: Mapping[int | None, int] = dataclasses.field(default_factory=dict)
    values: Mapping[Cell, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    def run_dir(self, cell: Cell) -> str:
        return os.path.join(
            self.folder, run_files.STUDY_RUNS if cell.draw is None else "tuning", cell.name
        )

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
        values = parse_main_flags(self._arguments(self.base(cell)))
        return TrainConfig(**flag_values(TrainConfig, values=values))

    def part(self, number: int, count: int, *, whole_methods: bool = False) -> list[Cell]:
        """The cells of one of `count` parts (from 1), which take about the same time. Decoupled
        cells are in the part of the run that they start from.

        Args:
          whole_methods: all seeds of a method are in one part, which can tune it by itself.
        """
        bases = {c: self.base(c) for c in self.cells}
        if whole_methods:
            bases = {c: dataclasses.replace(base, seed=0) for c, base in bases.items()}
        order = list(dict.fromkeys(bases.values()))
        return [c for c in self.cells if order.index(bases[c]) % count == number - 1]

    def is_finished(self, cell: Cell) -> bool:
        """Whether the cell's run is finished, see `run_files`; its model may have been deleted."""
        return run_files.is_finished(self.run_dir(cell), with_model=False)

    def has_diverged(self, cell: Cell) -> bool:
        """Whether the cell is a try of tuning that ended with a loss that is NaN or infinite. With
        the same settings it would do so again."""
        marked = os.path.exists(os.path.join(self.run_dir(cell), run_files.DIVERGED))
        return cell.draw is not None and marked and not self.is_finished(cell)

    def needs_training(self, cell: Cell) -> bool:
        return not self.is_finished(cell) and not self.has_diverged(cell)

    def comparable(self) -> list[Cell]:
        """The cells that are finished, and whose method and seed are finished in all folds."""
        unfinished = {
            dataclasses.replace(c, fold=None) for c in self.cells if not self.is_finished(c)
        }
        return [c for c in self.cells if dataclasses.replace(c, fold=None) not in unfinished]

    def _arguments(self, cell: Cell) -> list[str]:
        flags = {**cell.method.flags, **self.values.get(cell, {})}
        own = [f"--{name}={value}" for name, value in flags.items()]
        own += [f"--backbone={cell.backbone}", f"--seed={cell.seed}"]
        if cell.fold is not None:
            own.append(f"--fold={cell.fold}")
        # Runs on a frozen backbone share its features; the user's flags come later and override.
        first = [f"--features_dir={os.path.join(self.folder, 'features')}"]
        if cell.fold in self.steps:
            first.append(f"--steps_per_epoch={self.steps[cell.fold]}")
        return [*first, *self.common, *own, f"--run_dir={self.run_dir(cell)}"]


def load_data(path: str, fold: int | None, folds: bool) -> dict[int | None, DatasetDir]:
    """`Study.data`: the data set with one test fold or, for --folds, with each of its folds.

    Args:
      fold: None for a data set without folds.

    Raises:
      UserError: the data set cannot be loaded, or the flags do not fit it or each other.
    """
    if not folds:
        return {fold: dataset_dir.load(path, fold)}
    if fold is not None:
        raise UserError(f"--fold={fold} tests one fold and --folds tests all: give only one")
    count = dataset_dir.read_manifest(path)["config"].get("folds", 0)
    if not count:
        raise UserError(
            f"--folds: {path} has no folds: leave the flag out, or build a data set with "
            "beam_pipelines.build --folds=K"
        )
    return {number: dataset_dir.load(path, number) for number in range(count)}


def check_shared_flags(arguments: Sequence[str]) -> tuple[tuple[str, ...], ClassMap]:
    """Refuses flags for all runs that `trainer.main` does not know or that the study sets itself.

    Returns:
      Those that choose the classes: `--classes` and `--map_classes`.

    Raises:
      UserError: it names the flag.
    """
    values = parse_main_flags(arguments)
    for name in _GRID_FLAGS:
        if values[name].present:
            raise UserError(
                f"--{name} is set by the study, see --methods, --seeds and --backbones: leave it "
                "out"
            )
    chosen = flag_values(TrainConfig, ("classes", "map_classes"), values)
    return chosen["classes"], chosen["map_classes"]


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


def parse_main_flags(arguments: Sequence[str]) -> flags.FlagValues:
    """Flags of trainer.main as it would read them.

    Raises:
      UserError: it has no such flag, or it would refuse the value.
    """
    values = flags.FlagValues()
    define_flags(TrainConfig, values=values)
    try:
        rest = values(["trainer.main", *arguments])
    except flags.Error as error:
        raise UserError(
            f"{flag_problem(error, flags.FLAGS, values)}. --help and `python -m trainer.main "
            "--help` explain the flags"
        ) from error
    if rest[1:]:
        raise UserError(f"unknown argument {rest[1]!r}: flags look like --name=value")
    return values
