"""The benchmark of samplers runs its systems on one tiny set, and its ratios are within a round."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from benchmarks.samplers.report import CACHES, FOLDER, check_targets, make_rows
from benchmarks.samplers.systems import (
    folder_dataset,
    folder_epoch,
    open_source,
    plain_rejection,
    write_folder,
)
from tests import helpers
from trainer.balancing.sampler_table import SAMPLERS

COUNTS = {"train": (8, 12, 20, 4), "validation": (2, 2, 2, 2), "test": (2, 2, 2, 2)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), COUNTS)


@pytest.mark.slow
def test_every_system_is_measured_and_written(data, tmp_path):
    path = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks.samplers", f"--data_dir={data.path}"]
    command += [f"--json={path}", "--rounds=1", "--batch_size=4", "--samplers=rejection"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    rows = json.loads(path.read_text())
    assert all(set(row) == {"system", "epoch", "images_per_s", "ratio_to_none"} for row in rows)
    assert len(rows) == 2 * 2 + 4 + 2 + 2
    assert len({(row["system"], row["epoch"]) for row in rows}) == len(rows)
    assert result.stdout.count("(target") == 4


def test_ratios_are_taken_within_a_round_and_targets_judged_by_their_median():
    keys = [(f"{s}, cache={c}", None) for c in CACHES for s in SAMPLERS]
    keys += [("none, cache=memory", e) for e in (1, 2)] + [(FOLDER, e) for e in (1, 2)]
    measured = []
    for load in (1, 10, 4):  # the machine is busier in some rounds than in others
        one = dict.fromkeys(keys, 100.0 / load)
        one["weighted, cache=none", None] = 94.0 / load
        one["none, cache=memory", 2] = 310.0 / load
        measured.append(one)
    rows = {(row["system"], row["epoch"]): row for row in make_rows(measured)}
    assert rows["weighted, cache=none", None]["ratio_to_none"] == 0.94
    assert rows["weighted, cache=none", None]["images_per_s"] == 23.5
    lines = check_targets(measured)
    missed = [line for line in lines if line.startswith("MISSED")]
    assert len(missed) == 2
    assert "weighted, cache=none" in missed[0]
    assert "epoch 1" in missed[1]


def test_folder_holds_the_same_images_in_the_folders_of_their_classes(data, tmp_path):
    write_folder(data, str(tmp_path))
    assert [len(os.listdir(tmp_path / name)) for name in data.class_names] == [8, 12, 20, 4]
    written = {
        cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).tobytes() for path in tmp_path.glob("*/*.png")
    }
    source = open_source(data, "memory")
    assert written == {image.tobytes() for image in source._images.numpy()}
    dataset = folder_dataset(data, str(tmp_path), 4)
    images, _ = next(iter(dataset))
    assert images.shape == (4, 32, 32, 1)
    assert np.ptp(images[0]) > 10
    assert folder_epoch(dataset) == 44


def test_plain_rejection_delivers_as_many_images_in_either_order(data):
    for decode_first in (True, False):
        assert plain_rejection(data, 4, decode_first=decode_first) == 44
