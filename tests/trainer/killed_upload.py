"""`trainer.main`, killed while it copies its run to a store: `python -m … SCHEME OBJECT FLAGS…`.

SIGKILL just before the first object whose name ends in OBJECT is written.
"""

import os
import signal
import sys

import fsspec

from cxr_tfrecords.console.quiet import quiet_tensorflow
from cxr_tfrecords.errors import run_main


def kill_before(scheme: str, name: str) -> None:
    """scheme: of the store's addresses, `s3` or `gs`; name: the end of the object's."""
    store = fsspec.get_filesystem_class(scheme)
    put_file = store._put_file

    async def deadly(self, source, target, **options):
        if target.endswith(name):
            os.kill(os.getpid(), signal.SIGKILL)
        return await put_file(self, source, target, **options)

    store._put_file = deadly
    quiet_tensorflow()
    from trainer import main

    run_main(main.main)


if __name__ == "__main__":
    kill_before(sys.argv.pop(1), sys.argv.pop(1))
