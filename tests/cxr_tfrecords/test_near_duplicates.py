"""Every pair within the distance is connected; copies of a radiograph are near, others are not."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_tfrecords import near_duplicates, splits, synthetic


def words(image):
    return np.frombuffer(near_duplicates.perceptual_hash(image), np.uint64)


def distance(first, second):
    return int(np.bitwise_count(words(first) ^ words(second)).sum())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), limit=st.integers(0, 20), count=st.integers(0, 40))
def test_components_are_those_of_comparing_all_with_all(seed, limit, count):
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**63, (6, 4), dtype=np.uint64)
    hashes = centres[rng.integers(0, 6, count)]
    for row in hashes:
        for bit in rng.integers(0, 256, rng.integers(0, 15)):
            row[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    pairs = near_duplicates.near_pairs(hashes, limit)
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2)
    assert all(bits[i, j] <= limit and i < j for i, j in pairs.tolist())
    naive = np.argwhere(np.triu(bits <= limit, 1))
    assert splits.connect(count, pairs).tolist() == splits.connect(count, naive).tolist()


def test_many_equal_hashes_are_one_chain():
    pairs = near_duplicates.near_pairs(np.zeros((5000, 4), np.uint64), 10)
    assert len(pairs) == 4999
    assert not splits.connect(5000, pairs).any()


def test_copies_are_near_and_other_images_are_not():
    limit = near_duplicates.DEFAULT_MAX_DISTANCE
    pictures = [synthetic.render("COVID", index)[0] for index in (2, 4, 6)]
    for picture in pictures:
        small = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA)
        _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
        darker = (picture * 0.95).astype(np.uint8)
        for copy in (small, cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE), darker):
            assert distance(picture, copy) <= limit
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert distance(pictures[first], pictures[second]) > 2 * limit
