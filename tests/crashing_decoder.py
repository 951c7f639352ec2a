"""A decoder that crashes, as the one of a library may: OpenCV's, for files of `deadly_png`."""

import pathlib

from tests.cxr_tfrecords.decoding.files import RAMP, as_file, with_chunks

# Imported by Python at the start of a process. AT_DECODE: what to do.
_SITE = """
import os, signal, threading, time
import cv2
real = cv2.imdecode
def imdecode(data, flags):
    if b"DEADLY" in data.tobytes():
        action = os.environ.get("AT_DECODE", "crash")
        while action == "work":
            pass
        if action == "wait":
            time.sleep(1000)
        # To this thread, as a real one. One to the process goes to any thread of it, and this one
        # might be at the next file before the process ends.
        signal.pthread_kill(threading.get_ident(), signal.SIGSEGV)
    return real(data, flags)
cv2.imdecode = imdecode
"""


def deadly_png() -> bytes:
    """A whole file, which all other decoders read."""
    return with_chunks(as_file(RAMP, "PNG"), (b"tRNS", b"DEADLY"))


def site(folder: pathlib.Path) -> str:
    """A folder that makes the decoder of each process crash that has it in its PYTHONPATH."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SITE)
    return str(folder)
