"""Notices when a worker process of --direct_running_mode=multi_processing ends too early.

Beam's runner waits for the answer of a process that has died, for ever.
"""

from __future__ import annotations

import threading
from typing import Any

from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import worker_handlers

LOST = "the worker process of this request has ended"
_SECONDS = 0.5  # between two looks for requests that were made after the end


class _Worker(worker_handlers.SubprocessSdkWorkerHandler):
    """Beam's, which answers requests itself with an error once its process has ended."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._stopped = threading.Event()

    def start_worker(self) -> None:
        super().start_worker()
        threading.Thread(target=self._answer_after_end, daemon=True).start()

    def stop_worker(self) -> None:
        self._stopped.set()
        super().stop_worker()

    def _answer_after_end(self) -> None:
        self.worker_thread.join()
        while not self._stopped.wait(_SECONDS):
            requests = self.control_conn._futures_by_id
            for name in list(requests):
                response = beam_fn_api_pb2.InstructionResponse(instruction_id=name, error=LOST)
                requests.pop(name).set(response)


def notice_ends() -> None:
    """Lets Beam start its worker processes through `_Worker`."""
    worker_handlers.WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(_Worker)
