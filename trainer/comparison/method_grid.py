"""A study's grid: methods, seeds and backbones, how they are named, and how a run's name is read
from its settings."""

from __future__ import annotations

import dataclasses
import difflib
import glob
from collections.abc import Iterable, Mapping, Sequence

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError
from trainer.balancing.loss_table import LOSSES
from trainer.balancing.sampler_table import SAMPLERS
from trainer.runs import remote_run, run_files
from trainer.runs.finished_run import FinishedRun, read_run
from trainer.settings import table
from trainer.settings.config import TrainConfig

# A method's name is made of samplers, losses and these kinds of mixup, joined by `+`:
# oversample, focal, undersample+focal, …
_MIXUPS = {"mixup": "plain", "balanced_mixup": "balanced"}
# Methods of `trainer.decouple`, and their flags in a study.
DECOUPLED: dict[str, dict[str, float]] = {
    "crt": {"epochs": 10, "learning_rate": 0.01},
    "tau_norm": {},  # tau is chosen on validation
    "posthoc_logit_adjusted": {"tau": 1.0},
}


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of balancing.

    Attributes:
      name: as in --methods and in the results.
      flags: flags of `trainer.main`, without the dashes, and their values.
      decoupled: the method of `trainer.decouple` that is applied to the finished run `none` of the
        same backbone and seed. Empty for a method that is trained from the start.
    """

    name: str
    flags: Mapping[str, str] = dataclasses.field(hash=False)
    decoupled: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the grid, or a try of tuning (`draw`: which one), see `tuning`."""

    backbone: str
    method: Method
    seed: int
    fold: int | None = None  # test fold of a data set with folds
    draw: int | None = None

    @property
    def name(self) -> str:
        fold = "" if self.fold is None else f"-fold{self.fold}"
        draw = "" if self.draw is None else f"-try{self.draw}"
        return f"{self.backbone}-{self.method.name}{fold}{draw}-seed{self.seed}"


def parse_method(name: str) -> Method:
    """Reads a method's name: a sampler, a loss, a kind of mixup or several of these joined by `+`;
    or a decoupled method alone.

    Raises:
      UserError: a part is unknown, or two parts set the same thing.
    """
    if name in DECOUPLED:
        return Method(name, {}, decoupled=name)
    flags: dict[str, str] = {}
    for part in name.split("+"):
        part_flags = _part_flags(part, name)
        twice = sorted(flags.keys() & part_flags.keys())
        if twice:
            raise UserError(
                f"--methods: {name!r} sets --{twice[0]} twice: leave one of its parts out"
            )
        flags |= part_flags
    return Method(name, flags)


def _part_flags(part: str, name: str) -> dict[str, str]:
    if part in SAMPLERS:
        return {"sampler": part}
    if part in LOSSES:
        return {"loss": part} | LOSSES[part].study_flags
    if part in _MIXUPS:
        return {"mixup": _MIXUPS[part], "mixup_alpha": "0.2"}
    known = [*SAMPLERS, *LOSSES, *_MIXUPS]
    near = difflib.get_close_matches(part, [*known, *DECOUPLED], 1)
    raise UserError(
        f"--methods: {part!r}{f' in {name!r}' if name != part else ''} is not one of "
        f"{', '.join(known)} (several can be joined by +); {', '.join(DECOUPLED)} can be used alone"
        f"{f'; did you mean {near[0]}?' if near else ''}"
    )


def make_grid(
    methods: Sequence[Method],
    seeds: Sequence[int],
    backbones: Sequence[str],
    folds: Iterable[int | None] = (None,),
) -> list[Cell]:
    """All cells, ordered by seed: all methods have their first seed before the second begins.

    Args:
      folds: test folds, each of which makes runs of its own; None: a data set without folds.
    """
    ordered = list(folds)
    return [Cell(b, m, s, k) for s in seeds for k in ordered for b in backbones for m in methods]


def parse_grid(
    methods: Sequence[str],
    seeds: Sequence[str],
    backbones: Sequence[str],
    folds: Iterable[int | None] = (None,),
) -> list[Cell]:
    """The grid that the flags --methods, --seeds and --backbones of `trainer.compare` name.

    Args:
      folds: as in `make_grid`.

    Raises:
      UserError: a value is unknown, comes twice or needs another one.
    """
    numbers = parse_seeds(seeds)
    check_once("methods", methods)
    parsed = [parse_method(name) for name in methods]
    if any(method.decoupled for method in parsed) and "none" not in methods:
        raise UserError(f"--methods: {', '.join(DECOUPLED)} start from the run `none`: name it too")
    for backbone in backbones:
        if backbone not in table.BACKBONES:
            raise UserError(f"--backbones: {backbone!r} is not one of {', '.join(table.BACKBONES)}")
    return make_grid(parsed, numbers, backbones, folds)


def parse_seeds(seeds: Sequence[str]) -> list[int]:
    """The flag --seeds of `trainer.compare` as numbers.

    Raises:
      UserError: one is not a whole number or comes twice, or there are none.
    """
    try:
        numbers = [int(seed) for seed in seeds]
    except ValueError as error:
        raise UserError(f"--seeds={','.join(seeds)} must be whole numbers, as 0,1,2") from error
    check_once("seeds", numbers)
    return numbers


def check_once(flag: str, values: Sequence[object]) -> None:
    """Refuses a flag with no value, or with one that comes twice.

    Raises:
      UserError: it names the flag.
    """
    if len(set(values)) < len(values) or not values:
        raise UserError(f"--{flag}={','.join(map(str, values))}: name each once, and at least one")


def describe_method(run: FinishedRun) -> str:
    """The name of a finished run's method, as `parse_method` reads it. If a decoupled run started
    from a run with balancing, the name of that run's method follows: `crt of focal`."""
    if not run.decoupled:
        return _describe_settings(run.config)
    method = run.decoupled["method"]
    base = _describe_settings(TrainConfig.from_json(run.decoupled["from_config"]))
    return method if base == "none" else f"{method} of {base}"


def name_runs(runs: Sequence[FinishedRun]) -> list[tuple[str, FinishedRun]]:
    """(name, run) of each run: its method, and its backbone where there are several."""
    backbones = {run.config.backbone for run in runs}
    return [
        (
            describe_method(run) + (f" ({run.config.backbone})" if len(backbones) > 1 else ""),
            run,
        )
        for run in runs
    ]


def _matches(pattern: str) -> list[str]:
    """Folders that a pattern matches; an address in an object store is taken as it is."""
    return glob.glob(pattern) if files.is_local(pattern) else [remote_run.local(pattern)]


def find_runs(patterns: Sequence[str], folds: bool) -> list[tuple[str, FinishedRun]]:
    """(name, run) of all finished runs whose directory matches a pattern of --runs.

    Args:
      folds: whether --folds is given.

    Raises:
      UserError: there are none, or with --folds they have one test fold or none.
    """
    paths = sorted({path for pattern in patterns for path in _matches(pattern)})
    paths = [path for path in paths if run_files.is_finished(path, with_model=False)]
    if not paths:
        raise UserError(
            f"--runs={','.join(patterns)} matches no finished run: finish one with trainer.main"
        )
    runs = [read_run(path) for path in paths]
    if folds and len({run.config.fold for run in runs}) < 2:
        raise UserError(
            "--folds compares the images of all folds, but all runs of --runs have the same test "
            "fold or none: name runs of the other folds too, or leave --folds out"
        )
    return name_runs(runs)


def default_reference(names: Sequence[str]) -> str:
    """The first name (see `name_runs`) of a run without balancing, else the first name."""
    return next((name for name in names if name.split(" ")[0] == "none"), names[0])


def _describe_settings(config: TrainConfig) -> str:
    parts = []
    if config.sampler != "none":
        parts.append(config.sampler)
    if config.loss != "cross_entropy":
        parts.append(config.loss)
    if config.mixup_alpha:
        parts.append({kind: name for name, kind in _MIXUPS.items()}[config.mixup])
    return "+".join(parts) or "none"
