"""The place of a file in its batch, on which the last bits of its answer may depend."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cxr_tfrecords import images
from trainer.deployment import prediction_rows
from trainer.deployment.answers import Answers

CLASSES = ("a", "b")
SIZE = 4


class PlaceModel:
    """Answers with the place of an image in its batch and its number, instead of a network."""

    batch_size = SIZE

    def __init__(self, bad):
        self._bad = bad
        self.reads = []

    def read(self, number):
        self.reads.append(number)
        if number in self._bad:
            raise images.BadImageError("broken")
        return np.full((1, 1, 1), number, np.uint8)

    def predict_pixels(self, pixels):
        assert len(pixels) <= SIZE
        logits = np.stack([np.arange(len(pixels)), pixels[:, 0, 0, 0]], axis=1).astype(np.float32)
        nothing = np.zeros(logits.shape, bool)
        variants = dict.fromkeys(prediction_rows.VARIANTS, logits)
        return Answers(CLASSES, logits, variants, nothing, nothing, None, None)


def predict(ids, bad, done=()):
    """Id -> place and number of its row, in order; rejected files; numbers that were read."""
    model, rejected = PlaceModel(bad), {}
    names = [f"{one}.png" for one in ids]
    read, prediction_rows.read_file = prediction_rows.read_file, lambda path: int(path[2:-4])
    try:
        batches = prediction_rows.predict_rows(
            [model], "x", names, rejected, threads=1, done={f"{one}.png" for one in done}
        )
        rows = {int(row[0][:-4]): (row[2], row[3]) for rows in batches for row in rows}
    finally:
        prediction_rows.read_file = read
    return rows, {int(name[:-4]) for name in rejected}, model.reads


SOME = st.sets(st.integers(0, 22))


@given(bad=SOME, done=SOME, chunk=st.integers(1, 6))
def test_no_bad_file_no_chunk_and_no_stop_moves_another_file_in_its_batch(bad, done, chunk):
    ids = list(range(23))
    whole, rejected, _ = predict(ids, bad)
    assert list(whole) == [one for one in ids if one not in bad]
    assert all(row == (f"{one % SIZE}.0", f"{one}.0") for one, row in whole.items())
    assert rejected == bad
    # As Beam does: lists of whole batches.
    size = chunk * SIZE
    parts = [predict(ids[start : start + size], bad)[0] for start in range(0, len(ids), size)]
    assert {one: row for part in parts for one, row in part.items()} == whole
    # As after a stop: these rows are there.
    done -= bad
    rest, rejected, reads = predict(ids, bad, done)
    assert rest == {one: row for one, row in whole.items() if one not in done}
    assert rejected == bad
    new = {one // SIZE for one in rest}
    assert set(reads) == bad | {one for one in ids if one // SIZE in new}
