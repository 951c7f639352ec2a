"""TensorFlow is imported once in each process, quietly, before any test module does it."""

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile

import pytest

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # As many processes as cores: more threads in each would only wait for each other. Processes
    # that tests start inherit it.
    for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

# What commands keep for their user, such as the secret that hashes ids, is not this user's.
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="cxr-tests-")

# In a script `make test &` starts with Ctrl-C ignored, and so would every process that a test
# starts and then interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from cxr_tfrecords.console.quiet import quiet_tensorflow
from tests.object_store import gcs_server, gs, s3, s3_server, store  # noqa: F401

atexit.register(shutil.rmtree, os.environ["XDG_CONFIG_HOME"], ignore_errors=True)


def pytest_configure(config):
    # The process that only hands tests to workers needs no TensorFlow.
    if not getattr(config.option, "numprocesses", None):
        quiet_tensorflow()


def pytest_collection_finish():
    """A collection that walks all objects of TensorFlow takes half a second: those that the
    imports made stay, and it comes more seldom."""
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture(scope="module", autouse=True)
def freed_graphs():
    """Keras keeps every model that was ever made: over a suite that came to 7 GB.

    What is left after that, modules for the most part, stays: the next collections pass it over,
    each of which would take a second.
    """
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session()
        gc.collect()
        gc.freeze()
