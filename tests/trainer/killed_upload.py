"""`trainer.main`, killed while it copies its run to s3://: `python -m … OBJECT FLAGS…`.

SIGKILL just before the first object whose name ends in OBJECT is written.
"""

import os
import signal
import sys

import s3fs

from cxr_tfrecords.errors import run_main
from cxr_tfrecords.quiet import quiet_tensorflow


def kill_before(name: str) -> None:
    put_file = s3fs.S3FileSystem._put_file

    async def deadly(self, source, target, **options):
        if target.endswith(name):
            os.kill(os.getpid(), signal.SIGKILL)
        return await put_file(self, source, target, **options)

    s3fs.S3FileSystem._put_file = deadly
    quiet_tensorflow()
    from trainer import main

    run_main(main.main)


if __name__ == "__main__":
    kill_before(sys.argv.pop(1))
