"""A worker process of --direct_running_mode=multi_processing, without Beam's start-up messages.

Beam's own worker writes a dozen lines to the terminal whenever one starts, and the stack trace of
each failure that the build then reports in one line. An error that ends the process before its
work begins (a package that cannot be imported) is still shown.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

# Before Beam is imported: it logs through `logging.warning`, which would set up the terminal.
# Beam's handler, which sends records to the process that started this one, is added beside it.
logging.getLogger().addHandler(logging.NullHandler())

if __name__ == "__main__":
    # Ctrl-C is sent to all processes of the terminal. The one that started this one answers it,
    # and when that ends, this one loses its connection and ends too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    from apache_beam.runners.worker import sdk_worker_main

    # The descriptor and not only sys.stderr: a lost connection is also reported by C++ code.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sdk_worker_main.main(sys.argv)
