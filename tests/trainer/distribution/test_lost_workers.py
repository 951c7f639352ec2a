import threading
import time

import pytest
import tensorflow as tf

from cxr_tfrecords.errors import TemporaryError
from trainer.distribution import lost_workers


@pytest.mark.slow
def test_a_worker_that_waits_for_ever_is_ended_and_says_where(capfd):
    ended = threading.Event()
    codes = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    lost_workers.start(2, end)
    for step in range(12):  # longer than the timeout, but with progress
        time.sleep(0.25)
        lost_workers.beat(f"step {step}")
    assert not codes
    assert ended.wait(60)
    assert codes == [75]
    message = capfd.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("nothing finished within --worker_timeout=2 seconds after step 11")


def test_no_timeout_watches_nothing():
    before = threading.active_count()
    lost_workers.start(0)
    assert threading.active_count() == before


def test_what_tensorflow_says_of_a_lost_worker_is_one_line():
    said = (
        "{{function_node __wrapped__CollectiveReduceV2}} Collective ops is aborted by: The "
        "following tasks are unhealthy:\n/job:worker/replica:0/task:1\nThe tasks have crashed."
    )
    lost_workers.beat("step 6")
    with pytest.raises(TemporaryError) as caught, lost_workers.explained_losses():
        raise tf.errors.UnavailableError(None, None, said)
    assert str(caught.value) == (
        "worker 1 is lost after step 6 (Collective ops is aborted by: The following tasks "
        "are unhealthy: /job:worker/replica:0/task:1)"
    )
    with pytest.raises(tf.errors.InvalidArgumentError), lost_workers.explained_losses():
        raise tf.errors.InvalidArgumentError(None, None, "a bug")
