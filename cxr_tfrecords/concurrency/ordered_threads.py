"""Threads for work that releases the GIL, such as decoding; results keep their order."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def map_in_order(function: Callable[[A], B], items: Iterable[A], threads: int) -> Iterator[B]:
    """Yields `function(item)` in the order of `items`, computed by `threads` threads.

    At most four results per thread wait to be taken, so memory does not grow with the items.
    """
    if threads <= 1:
        yield from map(function, items)
        return
    waiting: collections.deque[Future[B]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
