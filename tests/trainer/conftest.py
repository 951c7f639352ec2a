"""What many tests of the trainer start from."""

import os
import signal
import types

import pytest

from trainer.distribution import preemption, strategies
from trainer.training import run

PICTURES = [
    "class_counts.png",
    "training_curves.png",
    "confusion_matrix_validation.png",
    "confusion_matrix_test.png",
    "roc_test.png",
    "reliability_test.png",
    "network.png",
]


@pytest.fixture(scope="module")
def strategy():
    return strategies.create_strategy("cpu")


@pytest.fixture
def listening(monkeypatch):
    """SIGTERM and SIGINT are noted as in a command, and nobody has sent one yet."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    preemption.listen()
    monkeypatch.setattr(preemption, "_noted", None)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module", autouse=True)
def pictures_left_out():
    """Runs inside the test process leave empty files for their pictures, which take a third of a
    small run's time. tests/trainer/runs draws them, and so do runs in processes of their own.

    Of the module, so that it comes before the runs that its tests share.
    """

    def leave_out(run_dir):
        for name in PICTURES:
            with open(os.path.join(run_dir, name), "w", encoding="utf-8"):
                pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "report_pictures", types.SimpleNamespace(write_pictures=leave_out))
        yield
