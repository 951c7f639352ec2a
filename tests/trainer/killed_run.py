"""`trainer.main`, killed at a step: `python -m tests.trainer.killed_run STEP FLAGS…`.

SIGKILL, so that nothing of ours can tidy up; with --steps_per_loop=1 at exactly that step.
"""

import os
import signal
import sys

from cxr_tfrecords.errors import run_main
from cxr_tfrecords.quiet import quiet_tensorflow


def run_until(step: int) -> None:
    quiet_tensorflow()
    from trainer import main, steps

    make_train_steps = steps.make_train_steps

    def make_deadly_steps(*args):
        train_steps = make_train_steps(*args)
        done = 0

        def counted(batches, count):
            nonlocal done
            train_steps(batches, count)
            done += int(count)
            if done >= step:
                os.kill(os.getpid(), signal.SIGKILL)

        return counted

    steps.make_train_steps = make_deadly_steps
    run_main(main.main)


if __name__ == "__main__":
    run_until(int(sys.argv.pop(1)))
