"""Hides the start-up messages of TensorFlow's C++ code from the user's terminal."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

_CHATTER = (
    b"All log messages before absl::InitializeLog()",
    b"oneDNN custom operations are on",
    b"oneDNN supports DT_UINT8 only on platforms with AVX-512",
    b"This TensorFlow binary is optimized to use available CPU instructions",
    b"To enable the following instructions",
    b"Could not find cuda drivers",
    b"Unable to register cu",
    b"TF-TRT Warning",
    b"fully_quantize: ",
    b"Created TensorFlow Lite XNNPACK delegate",
    # oneDNN's optimizer, of each operation in float64.
    b"Not handling type",
)


def quiet_tensorflow() -> None:
    """Imports TensorFlow without its notices; call it before anything else that imports it.

    The oneDNN and absl notices are written by C++ before any log level is read (TensorFlow
    2.21), so standard error is held back during the import and let go again without them:
    whatever else was said still shows. Set TF_CPP_MIN_LOG_LEVEL=0 to see everything.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") == "0":
        return
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"keras\..*")
    if "tensorflow" in sys.modules:
        return
    with quiet_stderr():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back standard error, also of C++ code, and lets it go again without known notices."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            for line in held:
                if not any(known in line for known in _CHATTER):
                    os.write(2, line)
