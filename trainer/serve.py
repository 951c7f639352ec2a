"""Serves a trained model to browsers and programs on this machine.

  python -m trainer.serve --model=RUN

and open the address that it prints: drop radiographs (PNG, JPEG, DICOM, …) on the page, and see
for each the class, calibrated probabilities, the classes that cannot be excluded, warnings and a
heat map. RUN is a finished run directory of trainer.main or trainer.decouple, or the folder of a
cascade of trainer.cascade or of an exported model of trainer.export; --model=RUN1,RUN2 answers with
the mean of several. For programs:

  curl -F files=@chest.dcm http://127.0.0.1:8000/predict

answers in JSON; docs/serving.md describes the API. Only programs on this machine are answered,
unless --host says otherwise. Nothing that is sent is stored or logged. Ctrl-C ends the server.

It needs pip install 'cxr-balance[cpu,serve]'. This is a research tool and not a medical device.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import socket
from types import FrameType
from typing import TYPE_CHECKING

from absl import flags

from cxr_tfrecords.concurrency.cores import usable_cores
from cxr_tfrecords.errors import UserError, require_flags, run_main
from trainer.deployment import prediction_flags
from trainer.runs.finished_run import check_named

if TYPE_CHECKING:
    from trainer.deployment.predictor import Classifier

FLAGS = flags.FLAGS

prediction_flags.define_models()
flags.DEFINE_string(
    "host",
    "127.0.0.1",
    "Address to listen on. Others than 127.0.0.1 let other machines in, without a password and "
    "without encryption: put a reverse proxy before it, see docs/serving.md.",
)
flags.DEFINE_integer(
    "port", 8000, "Port to listen on; 0: any free one.", lower_bound=0, upper_bound=65535
)
flags.DEFINE_list(
    "allowed_hosts",
    [],
    "Names by which browsers reach the server, besides localhost, 127.0.0.1 and --host; "
    "requests for others are refused (DNS rebinding).",
)
flags.DEFINE_float(
    "max_upload_mb", 64.0, "Largest request in MB, all its files together.", lower_bound=0.001
)
flags.DEFINE_integer("max_files", 32, "Most files of a request.", lower_bound=1)
flags.DEFINE_integer(
    "queue",
    16,
    "Requests that are worked on or wait; more are answered with 503 (try again later). Their "
    "files are kept in memory: at most this times --max_upload_mb.",
    lower_bound=1,
)
flags.DEFINE_float(
    "timeout_s",
    60.0,
    "Seconds that a request may take, its upload included; then it is answered with 504.",
    lower_bound=0.1,
)
flags.DEFINE_integer(
    "decoders",
    min(usable_cores(), 4),
    "Processes that decode files, each of which may use up to 4 GiB of memory.",
    lower_bound=1,
)

_DECODE_S = 20.0  # of one file
_IDLE_CONNECTIONS = 200  # that wait for their next request, besides --queue


def main(argv: list[str]) -> None:
    del argv
    _check_flags()
    listening = _listen(FLAGS.host, FLAGS.port)
    signal.signal(signal.SIGTERM, _interrupt)
    with listening, contextlib.suppress(KeyboardInterrupt):
        _serve(listening)
    print("\nthe server has ended", flush=True)


def _check_flags() -> None:
    """Refuses what needs no model to be seen.

    Raises:
      UserError: a flag is wrong or a package is missing.
    """
    require_flags("model")
    for path in FLAGS.model:
        check_named(path)
    for package in ("fastapi", "uvicorn", "python_multipart"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise UserError(
                f"{error.name} is not installed: pip install 'cxr-balance[serve]' brings what "
                "serving needs"
            ) from error


def _listen(host: str, port: int) -> socket.socket:
    """A socket that is taken before the model is loaded, which takes seconds.

    Raises:
      UserError: the address is in use, not of this machine, or not allowed.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"--host={host} --port={port} cannot be listened on ({error.strerror or error}): name "
            "another --port, or 0 for any free one"
        ) from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _serve(listening: socket.socket) -> None:
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    # Imported here, so that --help and a wrong flag answer at once; the first two for folders
    # that are no run.
    import trainer.cascades.cascade_classifier
    import trainer.exporting.exported_classifier  # noqa: F401
    from trainer.deployment.several_models import load_models

    classifiers = load_models(FLAGS.model, **prediction_flags.model_settings())
    _answer_requests(listening, classifiers)


def _answer_requests(listening: socket.socket, classifiers: list[Classifier]) -> None:
    import uvicorn

    from trainer.deployment.decoders import Decoders
    from trainer.deployment.several_models import why_no_heat_maps
    from trainer.serving.api import describe_model
    from trainer.serving.app import LOOPBACK, Limits, create_app
    from trainer.serving.engine import Engine

    class _Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            # Not earlier: from here on Ctrl-C ends the event loop in an orderly way.
            print(f"serving at {_address(listening)} (Ctrl-C ends it)", flush=True)

    if reason := why_no_heat_maps(classifiers):
        print(f"without heat maps: {reason}", flush=True)
    # As browsers write an IPv6 address.
    own = f"[{FLAGS.host}]" if ":" in FLAGS.host else FLAGS.host
    decoders = Decoders(
        classifiers[0].reading, wall_s=_DECODE_S, processes=FLAGS.decoders, show=True
    )
    try:
        engine = Engine(classifiers)
        engine.warm_up()
        app = create_app(
            engine,
            decoders,
            describe_model(classifiers, FLAGS.sensitivity, FLAGS.coverage),
            Limits(int(FLAGS.max_upload_mb * 1e6), FLAGS.max_files, FLAGS.queue, FLAGS.timeout_s),
            threads=FLAGS.decoders,
            hosts=(*LOOPBACK, own, *FLAGS.allowed_hosts),
        )
        # No access log: requests are private.
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            ws="none",
            limit_concurrency=FLAGS.queue + _IDLE_CONNECTIONS,
            timeout_graceful_shutdown=5,
        )
        _Server(config).run(sockets=[listening])
    finally:
        decoders.close()


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


if __name__ == "__main__":
    run_main(main)
