"""Lists of classes in messages and on pages, which stay readable where there are hundreds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cxr_tfrecords.errors import UserError

ROWS = 40  # classes of a table
DRAWN = 20  # classes of a picture
COLUMNS = 12  # classes side by side in a table; more of them are its rows
_NAMED = 20  # names in a line


def few(names: Iterable[str], most: int = _NAMED) -> str:
    """`a, b, c`, or of more than `most` names `a, b and 480 more`."""
    names = list(names)
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def shown_classes(counts: Sequence[int], most: int = ROWS) -> list[int]:
    """The labels that a page shows, ascending: all; of more than `most` the half of them that has
    most images and the half that has fewest.

    Args:
      counts: images of each class, by label.
    """
    if len(counts) <= most:
        return list(range(len(counts)))
    order = sorted(range(len(counts)), key=lambda label: (-counts[label], label))
    return sorted(order[: most // 2] + order[-(most // 2) :])


def left_out(classes: int, where: str, most: int = ROWS) -> str:
    """A sentence on the classes that `shown_classes` leaves out; empty where it leaves out none.

    Args:
      classes: how many there are.
      where: a file that has all.
    """
    if classes <= most:
        return ""
    return (
        f"Of {classes:,} classes, the {most // 2} with most images and the {most // 2} with fewest "
        f"are shown; {where} has all."
    )


def check_known(
    names: Iterable[str],
    class_names: Sequence[str],
    flag: str,
    remedy: str = "correct the name",
    after: str = "",
) -> None:
    """Refuses names of classes that a data set does not have.

    Args:
      flag: of the command line, which gave the names.
      after: words on what was done to the data set's classes before.

    Raises:
      UserError: one of `names` is not in `class_names`.
    """
    unknown = [name for name in names if name not in class_names]
    if unknown:
        raise UserError(
            f"--{flag}: the data set has no class {few(unknown)}; its classes{after} are "
            f"{few(class_names)}: {remedy}"
        )
