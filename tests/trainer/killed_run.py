"""`trainer.main`, sent a signal at a step: `python -m tests.trainer.killed_run STEP FLAGS…`.

STEP counts over the whole run. SIGKILL, so that nothing of ours can tidy up; `STEP:SIGTERM` sends
another one, and `STEP:HANG` lets the process wait for ever, its other threads alive. With
--steps_per_loop=1 at exactly that step.
"""

import os
import signal
import sys
import time

from cxr_tfrecords.console.quiet import quiet_tensorflow
from cxr_tfrecords.errors import run_main


def run_until(step: int, name: str) -> None:
    quiet_tensorflow()
    from trainer import main
    from trainer.training import steps

    make_train_steps = steps.make_train_steps

    def make_deadly_steps(strategy, model, optimizer, *args):
        train_steps = make_train_steps(strategy, model, optimizer, *args)

        def counted(batches, count):
            train_steps(batches, count)
            if int(optimizer.iterations.value.numpy()) == step:
                if name == "HANG":
                    time.sleep(1e6)
                os.kill(os.getpid(), signal.Signals[name])

        # As those of a tf.function, which the loop asks whether the graph is built.
        counted.experimental_get_tracing_count = train_steps.experimental_get_tracing_count
        return counted

    steps.make_train_steps = make_deadly_steps
    run_main(main.main)


if __name__ == "__main__":
    at, _, name = sys.argv.pop(1).partition(":")
    run_until(int(at), name or "SIGKILL")
