"""Local files that are never seen half-written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str, suffix: str = "") -> Iterator[str]:
    """Yields a temporary name that becomes `path` on success and is removed on failure.

    Args:
      suffix: end of the temporary name, for writers that choose a format by it.
    """
    temporary = f"{path}.tmp-{os.getpid()}{suffix}"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
