"""A worker process of --direct_running_mode=multi_processing, without Beam's start-up messages.

Beam's own worker writes a dozen lines to the terminal whenever one starts, and the stack trace of
each failure that the build then reports in one line. An error that ends the process itself (a
package that cannot be imported) is still shown.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys

# Before Beam is imported: it logs through `logging.warning`, which would set up the terminal.
# Beam's handler, which sends records to the process that started this one, is added beside it.
logging.getLogger().addHandler(logging.NullHandler())

if __name__ == "__main__":
    from apache_beam.runners.worker import sdk_worker_main

    with contextlib.redirect_stderr(io.StringIO()):
        sdk_worker_main.main(sys.argv)
