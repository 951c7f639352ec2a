"""Threads for work that releases the GIL, such as decoding; results keep their order."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def map_in_order(
    function: Callable[[A], B], items: Iterable[A], threads: int, run: int = 1
) -> Iterator[B]:
    """Yields `function(item)` in the order of `items`, computed by `threads` threads.

    At most four runs of results per thread wait to be taken, so memory does not grow with the
    items.

    Args:
      run: items that a thread takes at once: handing them over one by one costs 20 µs each.
    """
    if threads <= 1:
        yield from map(function, items)
        return
    remaining = iter(items)
    runs = iter(lambda: list(itertools.islice(remaining, run)), [])
    waiting: collections.deque[Future[list[B]]] = collections.deque()

    def each(some: list[A]) -> list[B]:
        return [function(item) for item in some]

    with ThreadPoolExecutor(threads) as pool:
        try:
            for some in runs:
                waiting.append(pool.submit(each, some))
                if len(waiting) >= 4 * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
