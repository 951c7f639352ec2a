"""The synthetic set is deterministic, whole or absent, and has the public set's proportions."""

import hashlib
import itertools
import pathlib

import numpy as np
import pytest

from cxr_tfrecords import synthetic
from cxr_tfrecords.errors import UserError


def digests(root: pathlib.Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in root.rglob("*.png")
    }


def test_full_scale_is_the_public_data_set():
    assert list(synthetic.synthetic_counts(1.0).values()) == [3616, 6012, 10192, 1345]


def test_same_bytes_whatever_the_workers(tmp_path):
    for name, workers in (("one", 1), ("two", 3)):
        synthetic.write_synthetic(str(tmp_path / name), scale=0.001, image_size=64, workers=workers)
    first = digests(tmp_path / "one")
    assert len(first) == 2 * sum(synthetic.synthetic_counts(0.001).values())
    assert digests(tmp_path / "two") == first
    assert len(set(first.values())) < len(first)  # the copies that the build must find


def test_images_are_those_of_version_1():
    digest = hashlib.sha256()
    for name in synthetic.FULL_COUNTS:
        digest.update(b"".join(part.tobytes() for part in synthetic.render(name, 3, 0, 64)))
    assert (synthetic.VERSION, digest.hexdigest()[:16]) == (1, "25ac1e2d2893e4c8")


def test_images_differ_by_index_seed_and_class_and_masks_are_binary():
    pictures = [
        synthetic.render(name, index, seed, 64)
        for name, index, seed in (("Normal", 2, 0), ("Normal", 3, 0), ("Normal", 2, 1))
    ]
    assert len({image.tobytes() for image, _ in pictures}) == 3
    for image, mask in pictures:
        assert image.shape == mask.shape == (64, 64)
        assert set(np.unique(mask)) == {0, 255}


def test_another_set_is_refused_and_a_failed_one_leaves_nothing(tmp_path, monkeypatch):
    root = tmp_path / "set"
    synthetic.write_synthetic(str(root), scale=0.001, image_size=64)
    synthetic.write_synthetic(str(root), scale=0.001, image_size=64)
    with pytest.raises(UserError, match="is not this synthetic set"):
        synthetic.write_synthetic(str(root), scale=0.001, image_size=64, seed=1)
    monkeypatch.setattr(synthetic.cv2, "imwrite", lambda *a: False)
    with pytest.raises(UserError, match="check that the disk is not full"):
        synthetic.write_synthetic(str(tmp_path / "other"), scale=0.001, image_size=64)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_long_tailed_counts_fall_geometrically_and_add_up():
    assert synthetic.long_tailed_counts(1000, 1, 4) == [250, 250, 250, 250]
    counts = synthetic.long_tailed_counts(10_000, 27, 4)
    assert sum(counts) == 10_000
    assert all(abs(a / b - 3) < 0.02 for a, b in itertools.pairwise(counts))
    assert synthetic.long_tailed_counts(10, 1000, 4)[-1] == 1
