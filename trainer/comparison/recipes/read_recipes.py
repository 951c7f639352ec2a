"""Recipes: the settings of published trainings, as files of flags of `trainer.main`.

    python -m trainer.main --flagfile=launch/recipes/wuisan_a.flags --data_dir=DATA

trains one, `trainer.compare --recipes=wuisan_a,wuisan_c` compares several. reported.json beside
such files holds what the authors report.
"""

from __future__ import annotations

import glob
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.settings import flag_values, table
from trainer.comparison.method_grid import Method, check_once
from trainer.comparison.study_cells import parse_main_flags
from trainer.settings.chosen_classes import ClassMap, describe
from trainer.settings.config import TrainConfig

_PROJECT = pathlib.Path(__file__).resolve().parents[3]
FOLDER = os.path.join(_PROJECT, "launch", "recipes")
REPORTED = "reported.json"
_ENDING = ".flags"
# Flags that a comparison sets for each run.
_OWN = ("data_dir", "run_dir", "seed", "fold")


def recipe_path(name: str) -> str:
    """The file of a recipe: the path itself, or that of a recipe of this project.

    Raises:
      UserError: there is no such file; it lists the recipes of the project.
    """
    path = name if name.endswith(_ENDING) else os.path.join(FOLDER, name + _ENDING)
    if not os.path.isfile(path):
        there = sorted(map(recipe_name, glob.glob(os.path.join(FOLDER, f"*{_ENDING}"))))
        raise UserError(
            f"--recipes: {path} does not exist. Give the path of a .flags file, or one of "
            f"{', '.join(there) or 'those in launch/recipes of the source code'}"
        )
    return path


def recipe_beside(name: str) -> str:
    """Where a recipe of any kind would lie, for `read_reported`: a path itself, or a name in the
    folder of this project's recipes."""
    return name if os.path.dirname(name) else os.path.join(FOLDER, name)


def recipe_name(path: str) -> str:
    """`wuisan_a` of `launch/recipes/wuisan_a.flags`: the name in results and of run directories."""
    return os.path.basename(path).removesuffix(_ENDING)


def parse_recipes(
    recipes: Sequence[str], extra: Sequence[str]
) -> tuple[list[tuple[str, Method]], tuple[tuple[str, ...], ClassMap]]:
    """Reads the recipes of a comparison.

    Args:
      recipes: the flag --recipes of `trainer.compare`: names of recipes of the project, or paths.
      extra: flags of `trainer.main` that override those of all recipes.

    Returns:
      (backbone, method) of each recipe; and --classes and --map_classes, which all share.

    Raises:
      UserError: a recipe cannot be read or sets what the comparison sets, two have the same name,
        or they have different classes, so that their figures could not be paired.
    """
    names = [recipe_name(name) for name in recipes]
    check_once("recipes", names)
    paths = [recipe_path(name) for name in recipes]
    parsed = [_read(path, extra) for path in paths]
    for path in paths:
        read_reported(path)  # a mistake in it is to be known before the training
    chosen = {
        name: flag_values(TrainConfig, ("classes", "map_classes"), values)
        for name, (values, _) in zip(names, parsed, strict=True)
    }
    first = chosen[names[0]]
    if any(one != first for one in chosen.values()):
        described = (
            f"{name}: {describe(c['classes'], c['map_classes']) or 'all classes'}"
            for name, c in chosen.items()
        )
        raise UserError(
            f"--recipes: they have different classes ({'; '.join(described)}), so their figures "
            "cannot be paired. Compare recipes of the same classes, or give --classes and "
            "--map_classes, which then go to all"
        )
    methods = [
        (values["backbone"].value, Method(name, given))
        for name, (values, given) in zip(names, parsed, strict=True)
    ]
    return methods, (first["classes"], first["map_classes"])


def _read(path: str, extra: Sequence[str]) -> tuple[Any, dict[str, str]]:
    """All flags of trainer.main with a recipe's values; and those that it or the user gives."""
    try:
        values = parse_main_flags([f"--flagfile={path}", *extra])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    own = [name for name in _OWN if values[name].present]
    if own:
        raise UserError(
            f"--{own[0]} is set by the comparison, see --study_dir, --seeds and --fold: leave it "
            f"out of the command and of {path}"
        )
    given = {name: _text(values[name]) for name in table(TrainConfig) if values[name].present}
    return values, given


def _text(flag: Any) -> str:
    """A flag's value as it would be typed."""
    if isinstance(flag.value, bool):
        return str(flag.value).lower()
    return str(flag.serialize().partition("=")[2])


def read_reported(path: str) -> dict[str, Any]:
    """What the authors of a recipe report: its part of reported.json in the recipe's folder.

    Returns:
      `source`: a citation; `metrics`: metric of a comparison (`accuracy`, `recall/COVID`) -> value,
      0 to 1; `note`: what to know of them; `training_images`: class -> images of an epoch after
      sampling; `confusion_matrix`: true class -> predicted class -> test images. The last three
      may be empty. Empty if there is no such part.

    Raises:
      UserError: reported.json cannot be read.
    """
    name = os.path.join(os.path.dirname(path), REPORTED)
    if not os.path.exists(name):
        return {}
    try:
        part = files.read_json(name).get(recipe_name(path), {})
        return (
            {
                "source": str(part["source"]),
                "metrics": {str(key): float(value) for key, value in part["metrics"].items()},
                "note": str(part.get("note", "")),
                "training_images": _counts(part.get("training_images", {})),
                "confusion_matrix": {
                    str(key): _counts(row) for key, row in part.get("confusion_matrix", {}).items()
                },
            }
            if part
            else {}
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{name}: the part of {recipe_name(path)} must have a source (text) and metrics (name: "
            f"number), see launch/recipes/{REPORTED} ({type(error).__name__}: {error}): correct it"
        ) from error


def _counts(values: Mapping[str, Any]) -> dict[str, int]:
    return {str(key): int(value) for key, value in values.items()}
