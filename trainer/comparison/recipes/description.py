"""What a comparison of recipes says besides figures: how they differ, and what is reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cxr_tfrecords.settings import table
from trainer.comparison.recipes.read_recipes import read_reported, recipe_name, recipe_path
from trainer.settings.config import TrainConfig


def describe_recipes(recipes: Sequence[str], content: Mapping[str, Any]) -> dict[str, Any]:
    """What comparison.json holds as `recipes`.

    Args:
      recipes: their names or paths.
      content: what `compare_methods.compare` gives; its entries have the recipes' names.

    Returns:
      `reported`: recipe -> what `read_reported` gives, if there is something. `settings`: setting
      -> recipe -> value, for each setting in which two recipes differ. `confounded`: a sentence
      for each recipe on the settings in which it differs from the reference; if there are several,
      no difference of the figures can be put down to one of them.
    """
    reported = {recipe_name(name): read_reported(recipe_path(name)) for name in recipes}
    configs = {name: entry["config"] for name, entry in content["entries"].items()}
    settings = {
        key: {name: config.get(key) for name, config in configs.items()}
        for key, row in table(TrainConfig).items()
        if not row.may_change and len({repr(config.get(key)) for config in configs.values()}) > 1
    }
    return {
        "reported": {name: one for name, one in reported.items() if one},
        "settings": settings,
        "confounded": list(_confounded(content, settings)),
    }


def _confounded(
    content: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    reference = content["reference"]
    for name in content["differences"]:
        differing = [
            f"{key} ({show_value(values[reference])} → {show_value(values[name])})"
            for key, values in settings.items()
            if values[name] != values[reference]
        ]
        here, there = (content["entries"][one]["updates"] for one in (name, reference))
        if here != there:
            differing.append("number of updates")
        text = f"{name} differs from {reference} in {', '.join(differing) or 'no setting'}"
        if len(differing) > 1:
            text += (
                ". These are confounded: a difference of the figures cannot be put down to one of "
                "them"
            )
        yield text + "."


def show_value(value: Any) -> str:
    """A setting's value as it is typed; a word for an empty one."""
    if isinstance(value, list):
        words = (":".join(map(str, v)) if isinstance(v, list) else str(v) for v in value)
        return ",".join(words) or "none"
    return "none" if value in (None, "") else str(value)
