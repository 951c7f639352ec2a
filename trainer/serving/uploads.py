"""Files of a multipart request, in memory and within limits."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

# Parts of a form that are no files; there is no use for them.
_MOST_FIELDS = 8


class _InMemoryParser(MultiPartParser):
    # Starlette writes larger files to a temporary file; the limit of the whole request bounds this.
    spool_max_size = 1 << 62


async def read_files(
    request: Request, *, most_bytes: int, most_files: int
) -> list[tuple[str, bytes]]:
    """Name and content of each file of a request, in its order.

    Raises:
      HTTPException: 413 above `most_bytes`, which are counted as they arrive; 415 or 400 if it is
        not multipart, is damaged, or has no file or too many.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HTTPException(415, "send the files as multipart/form-data")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > most_bytes:
        raise _too_large(most_bytes)
    parser = _InMemoryParser(
        request.headers,
        _counted(request, most_bytes),
        max_files=most_files,
        max_fields=_MOST_FIELDS,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from error
    try:
        parts = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        if not parts:
            raise HTTPException(400, "the request has no file: send each as a part with a filename")
        return [(part.filename or "", await part.read()) for part in parts]
    finally:
        await form.close()


async def _counted(request: Request, most_bytes: int) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > most_bytes:
            raise _too_large(most_bytes)
        yield chunk


def _too_large(most_bytes: int) -> HTTPException:
    return HTTPException(
        413, f"the request is larger than {most_bytes / 1e6:g} MB: send fewer or smaller files"
    )
