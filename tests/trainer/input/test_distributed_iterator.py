"""Nothing tunes the trainer's iterators; on several devices neither."""

import os
import subprocess
import sys

import pytest

# Prints how many threads an iterator has: as TensorFlow makes it, and as the trainer does.
THREADS = """
import os
import tensorflow as tf
from trainer.distribution import strategies
from trainer.input import distributed_iterator

strategy = strategies.create_strategy("mirrored", virtual_devices=2)

def of_host(context):
    return distributed_iterator.untuned(tf.data.Dataset.range(8).batch(1).prefetch(1))

def added(make):
    before = len(os.listdir("/proc/self/task"))
    iterator = make()
    next(iterator)
    return len(os.listdir("/proc/self/task")) - before, iterator

def tuned():
    return iter(strategy.distribute_datasets_from_function(of_host))

kept = [added(tuned)]  # thread pools start
kept += [added(tuned), added(lambda: distributed_iterator.distribute(strategy, of_host))]
print(kept[1][0] - kept[2][0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
def test_no_device_has_a_thread_that_tunes():
    command = [sys.executable, "-c", THREADS]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert int(result.stdout.splitlines()[-1]) == 2
