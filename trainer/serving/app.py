"""The HTTP server's routes: the page, /predict, /model, /health and /openapi.json."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxr_tfrecords import __version__
from cxr_tfrecords.images import BadImageError
from trainer.deployment.decoders import Decoders
from trainer.serving.api import (
    FileAnswer,
    Health,
    Model,
    Predictions,
    describe_answer,
    model_names,
)
from trainer.serving.engine import Engine
from trainer.serving.uploads import read_files

_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    # Nothing comes from elsewhere, and no other page may show this one in a frame.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# The names of this machine for itself: a page of another site that lets its name point to this
# machine (DNS rebinding) sends its own.
LOOPBACK = ("127.0.0.1", "localhost")
_FORM = {
    "type": "object",
    "required": ["files"],
    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may cost.

    Attributes:
      upload_bytes: of a whole request. files: of a request.
      queue: requests that are worked on or wait; more are refused with 503.
      timeout_s: of a request, its upload included; then 504.
    """

    upload_bytes: int = 64_000_000
    files: int = 32
    queue: int = 16
    timeout_s: float = 60.0


def create_app(
    engine: Engine,
    decoders: Decoders,
    model: Model,
    limits: Limits,
    *,
    threads: int,
    hosts: Sequence[str] = LOOPBACK,
) -> FastAPI:
    """Makes the application.

    Args:
      model: the content of /model.
      threads: that wait for `decoders`, one for each of its processes.
      hosts: values of the header Host, without a port, that are answered.
    """
    # Swagger's and ReDoc's pages load scripts from a public server, so there is no /docs.
    app = FastAPI(
        title="cxr-balance",
        version=__version__,
        summary="Probabilities for chest radiographs. A research tool and not a medical device.",
        docs_url=None,
        redoc_url=None,
    )
    service = _Service(engine, decoders, limits, ThreadPoolExecutor(threads))

    @app.post(
        "/predict",
        response_model_exclude_none=True,
        openapi_extra={
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
        },
        responses={
            **{400: {"description": "not multipart/form-data, no file, or too many"}},
            **{413: {"description": "too large"}, 415: {"description": "not multipart/form-data"}},
            **{503: {"description": "too many requests at once; see Retry-After"}},
            **{504: {"description": "not done within the time limit"}},
        },
    )
    async def predict(request: Request, heat_map: bool = False, image: bool = False) -> Predictions:
        """Probabilities for one or several files: PNG, JPEG, DICOM, WebP, BMP, TIFF, GIF.

        `heat_map=1` adds where the class comes from (Grad-CAM), `image=1` what the model gets.
        """
        return await service.predict(request, heat_map, image)

    @app.get("/health")
    async def health(response: Response) -> Health:
        """Whether images are answered; the status is 503 if not."""
        response.status_code = 200 if engine.ready else 503
        names = model_names(engine.classifiers)
        return Health(ready=engine.ready, models=names, version=__version__)

    @app.get("/model")
    async def describe() -> Model:
        """What the answers depend on."""
        return model

    for path, (file, kind) in _PAGE.items():
        app.get(path, include_in_schema=False)(_static(file, kind))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(_SecurityHeaders)
    return app


def _static(file: str, kind: str) -> Any:
    with open(os.path.join(os.path.dirname(__file__), file), "rb") as opened:
        content = opened.read()

    async def page() -> Response:
        return Response(content, media_type=kind)

    return page


def _is_of_another_site(request: Request) -> bool:
    """Whether a browser says that a page of another site sends a request.

    Old browsers, and all of them where a page has neither TLS nor a loopback address, leave
    Sec-Fetch-Site out but send Origin. Behind a proxy the host is not that of the page, so where
    both are there, Origin is not looked at.
    """
    if (site := request.headers.get("sec-fetch-site")) is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")


class _SecurityHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self._headers]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _Service:
    """What all requests to /predict share."""

    def __init__(
        self, engine: Engine, decoders: Decoders, limits: Limits, pool: ThreadPoolExecutor
    ) -> None:
        self._engine = engine
        self._decoders = decoders
        self._limits = limits
        self._pool = pool
        self._active = 0  # changed in the event loop's thread alone

    async def predict(self, request: Request, heat_map: bool, image: bool) -> Predictions:
        # A browser says where a request comes from: a page of another site can send files here,
        # although it cannot read the answer.
        if _is_of_another_site(request):
            raise HTTPException(403, "requests of pages of other sites are not answered")
        with self._admitted():
            try:
                return await asyncio.wait_for(
                    self._answer(request, heat_map, image), self._limits.timeout_s
                )
            except asyncio.TimeoutError as error:
                raise HTTPException(
                    504,
                    f"not done within {self._limits.timeout_s:g} s: send fewer files at once",
                ) from error
            except asyncio.CancelledError as error:  # Ctrl-C, and it took too long to wait for
                raise HTTPException(503, "the server is being stopped") from error
            except ClientDisconnect as error:  # nobody reads this answer
                raise HTTPException(400, "the upload was stopped") from error

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._active >= self._limits.queue:
            raise HTTPException(
                503,
                f"{self._limits.queue} requests are in work: try again later",
                headers={"Retry-After": "1"},
            )
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1

    async def _answer(self, request: Request, heat_map: bool, image: bool) -> Predictions:
        files = await read_files(
            request, most_bytes=self._limits.upload_bytes, most_files=self._limits.files
        )
        answers = [self._answer_file(name, data, heat_map, image) for name, data in files]
        return Predictions(files=await asyncio.gather(*answers))

    async def _answer_file(self, name: str, data: bytes, heat_map: bool, image: bool) -> FileAnswer:
        loop = asyncio.get_running_loop()
        first = self._engine.classifiers[0]
        try:
            radiograph = await loop.run_in_executor(self._pool, self._decoders.decode, data)
        except BadImageError as error:
            return FileAnswer(name=name, error=str(error))
        pixels = first.reading.encoded(radiograph.pixels)
        answer = await asyncio.wrap_future(self._engine.ask(pixels, heat_map=heat_map))
        return describe_answer(
            name,
            first.class_names,
            radiograph,
            answer,
            num_models=len(self._engine.classifiers),
            image=pixels if image else None,
        )
