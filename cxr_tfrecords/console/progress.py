"""Progress of long work: a bar on a terminal, a line now and then where the output is a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TypeAlias, TypeVar

from tqdm import tqdm

# Between two lines in a file. Work that takes less says nothing there.
_SECONDS = 30.0
_LINE = "{desc}: {n_fmt} of {total_fmt} ({percentage:.0f}%) in {elapsed}, {remaining} left"


T = TypeVar("T")


def progress(
    total: int | None, title: str, unit: str, *, initial: int = 0, shown: bool = True
) -> Progress:
    """A context that counts work on standard error.

    Args:
      total: how many pieces there are; may be set later, before the first is done.
      title, unit: what is done, and to what, as `Inspect` and ` images`.
      initial: pieces that an earlier run has done.
      shown: False: count only.

    Returns:
      An object with `n`, `total`, `update(pieces)` and `refresh()`.
    """
    if shown and not sys.stderr.isatty():
        return ProgressLines(total, title, initial=initial)
    return tqdm(
        total=total, desc=title, unit=unit, initial=initial, disable=not shown, smoothing=0.1
    )


class ProgressLines:
    """As much of tqdm's bar as is used here, for a log: a bar there is drawn again and again into
    one line of many thousand characters.

    Attributes:
      n, total: pieces done and in all.
    """

    def __init__(
        self, total: int | None, title: str, *, initial: int = 0, seconds: float = _SECONDS
    ) -> None:
        """seconds: between two lines, and before the first."""
        self.n, self.total = initial, total
        self._title, self._initial, self._seconds = title, initial, seconds
        self._start = self._said = time.monotonic()

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._said > self._start and not error:
            self._say()

    def update(self, pieces: int = 1) -> None:
        """So many more are done."""
        self.n += pieces
        self.refresh()

    def refresh(self) -> None:
        """Says where the work is, if the last line is long enough ago."""
        if time.monotonic() - self._said >= self._seconds:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        text = tqdm.format_meter(
            self.n,
            self.total,
            self._said - self._start,
            prefix=self._title,
            initial=self._initial,
            bar_format=_LINE,
        )
        print(text, file=sys.stderr, flush=True)


Progress: TypeAlias = tqdm | ProgressLines


def each(items: Sequence[T], title: str, unit: str) -> Iterator[T]:
    """The items, counted as they are taken."""
    with progress(len(items), title, unit) as bar:
        for item in items:
            yield item
            bar.update()
