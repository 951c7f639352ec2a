"""Maps the classes of one data set to those of another: `Pneumonia:Viral Pneumonia,Other:`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.class_lists import check_known, few


def parse_class_map(items: Sequence[str], flag: str) -> dict[str, str]:
    """Turns `["Pneumonia:Viral Pneumonia", "Other:"]` into class -> class of the other set.

    An empty text after the colon means that images of this class are left out. Several classes may
    be mapped to the same one.

    Args:
      items: one `FROM:TO` each. flag: its name without dashes, for messages.

    Raises:
      UserError: an item has not one colon with a name before it, or a class is named twice.
    """
    mapping: dict[str, str] = {}
    for item in items:
        source, colon, target = (part.strip() for part in item.partition(":"))
        if not source or not colon or ":" in target or source in mapping:
            raise UserError(
                f"--{flag}: {item!r} must be FROM:TO, or FROM: to leave a class out; name each "
                "class once"
            )
        mapping[source] = target
    return mapping


def map_names(class_names: Sequence[str], mapping: Mapping[str, str], flag: str) -> list[str]:
    """The name that each class has after the mapping; empty for one that is left out.

    A class that `mapping` does not name keeps its own.

    Raises:
      UserError: `mapping` names a class that is not in `class_names`.
    """
    check_known(mapping, class_names, flag, "correct the name before the colon")
    return [mapping.get(name, name) for name in class_names]


def map_labels(
    class_names: Sequence[str], mapping: Mapping[str, str], targets: Sequence[str], flag: str
) -> list[int | None]:
    """For each class, by label: its label among `targets`; None: its images are left out.

    Raises:
      UserError: a class is not among `targets` after the mapping, all are left out, or `mapping`
        names a class that is not in `class_names`.
    """
    names = map_names(class_names, mapping, flag)
    wrong = {
        source: target
        for source, target in zip(class_names, names, strict=True)
        if target and target not in targets
    }
    if wrong:
        shown = (s if s == t else f"{s} (mapped to {t})" for s, t in wrong.items())
        example = next(iter(wrong))
        raise UserError(
            f"no class of the model belongs to {few(shown)}. The data set has the classes "
            f"{few(class_names)}; the model has {few(targets)}. Name what belongs "
            f"together with --{flag}='{example}:{targets[0]}', or leave its images out with "
            f"--{flag}='{example}:'"
        )
    if not any(names):
        raise UserError(f"--{flag} leaves all classes of the data set out: keep at least one")
    return [targets.index(name) if name else None for name in names]
