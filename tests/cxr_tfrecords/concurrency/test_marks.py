"""Marks of the files in work: left by a process that dies, and by no other."""

import os

from cxr_tfrecords.concurrency import marks


def test_only_a_process_that_dies_leaves_its_marks(tmp_path):
    folder = str(tmp_path)
    child = os.fork()
    if not child:
        with marks.Marks(folder, "second") as mine:
            with mine.at(2):
                pass
            with mine.at(70), mine.at(5):
                os._exit(11)
    os.waitpid(child, 0)
    with marks.Marks(folder, "first") as mine, mine.at(0):
        assert marks.interrupted(folder) == {"first": {0}, "second": {5, 70}}
    with marks.Marks(folder, "second"):  # begun again
        assert marks.interrupted(folder) == {"second": {5, 70}}
    assert marks.interrupted(folder) == {"second": {5, 70}}


def test_nothing_is_marked_in_an_object_store():
    with marks.Marks("memory://bucket/decoding", "list") as mine, mine.at(0):
        assert marks.interrupted("memory://bucket/decoding") == {}
