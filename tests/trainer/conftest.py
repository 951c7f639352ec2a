"""What many tests of the trainer start from."""

import signal

import pytest

from trainer.distribution import preemption, strategies


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
