"""Ratios are made in training and validation alone, by whole groups, with one split for all."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import imbalance_lists
from benchmarks.imbalance_lists import Image
from cxr_tfrecords.errors import UserError

_RATIOS = (1.0, 3.0, 8.0)


def _run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 tiny images of 2 classes, 3 a patient, and their list."""
    folder = tmp_path_factory.mktemp("list")
    random = np.random.default_rng(0)
    rows = []
    for index in range(120):
        label = "ab"[index >= 66]
        cv2.imwrite(
            str(folder / f"{index}.png"), random.integers(0, 255, (16, 16)).astype(np.uint8)
        )
        rows.append((f"{index}.png", label, "left" if index == 119 else "kept", index // 3))
    with open(folder / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "source", "group"), *rows])
    return folder


@pytest.fixture(scope="module")
def images(folder: Path) -> list[Image]:
    """The listed images but one, with the splits of one build."""
    listed = imbalance_lists.read_list(str(folder / "list.csv"), "source=kept", "group", False)
    imbalance_lists.write_list(str(folder / "kept.csv"), listed)
    _run(
        "beam_pipelines.build",
        *(f"--input_csv={folder}/kept.csv", f"--output_dir={folder}/tfrecords"),
        *("--image_size=16", "--nostats"),
    )
    return imbalance_lists.read_built(f"{folder}/tfrecords/sources.csv")


def _by_split(images: list[Image]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        counts[image.split][image.label] += 1
    return counts


def test_groups_never_span_splits_and_stay_whole(images: list[Image]) -> None:
    assert len(images) == 119
    whole = Counter(image.group for image in images)
    assert max(whole.values()) == 3
    for ratio in _RATIOS:
        kept = imbalance_lists.with_ratio(images, "b", ratio)
        assert all(whole[g] == n for g, n in Counter(image.group for image in kept).items())
        assert set(kept) <= set(images)  # so that each image keeps its split
        assert len({(i.group, i.split) for i in kept}) == len({i.group for i in kept})


def test_ratio_is_reached_within_one_group_and_test_is_untouched(images: list[Image]) -> None:
    before = _by_split(images)
    for ratio in _RATIOS:
        after = _by_split(imbalance_lists.with_ratio(images, "b", ratio))
        assert after["test"] == before["test"]
        for split in ("train", "validation"):
            assert after[split]["a"] == before[split]["a"]
            target = min(before[split]["a"] / ratio, before[split]["b"])
            assert target - 3 < after[split]["b"] <= max(target, 3)


def test_larger_ratio_keeps_a_subset(images: list[Image]) -> None:
    kept = [set(imbalance_lists.with_ratio(images, "b", ratio)) for ratio in _RATIOS]
    assert kept[0] > kept[1] > kept[2]


def test_group_with_another_class_stays() -> None:
    rows = [Image(f"{i}", "a", f"a{i}", s) for s in ("train", "validation") for i in range(4)]
    mixed = Image("m", "b", "a0", "train")
    rows += [mixed, Image("n", "b", "b1", "train"), Image("o", "b", "b2", "validation")]
    kept = imbalance_lists.with_ratio(rows, "b", 4)
    assert mixed in kept
    assert "n" not in {image.path for image in kept}


def test_rare_class_is_the_smallest_unless_named(images: list[Image]) -> None:
    assert imbalance_lists.rare_class(images, "") == "b"
    assert imbalance_lists.rare_class(images, "a") == "a"
    with pytest.raises(UserError, match="--rare_class=c"):
        imbalance_lists.rare_class(images, "c")


@pytest.mark.slow
def test_studies_of_two_ratios(folder: Path) -> None:
    _run(
        "benchmarks.imbalance",
        *(f"--input_csv={folder}/list.csv", "--where=source=kept", "--ratios=1,3"),
        *(f"--work_dir={folder}/work", f"--json={folder}/rows.json", "--image_size=16"),
        *(f"--picture={folder}/rows.png", "--methods=none,posthoc_logit_adjusted"),
        *("--seeds=0,1", "--epochs=1", "--resamples=100", "--batch_size=16"),
    )
    rows = json.loads((folder / "rows.json").read_text())
    assert [row["ratio"] for row in rows] == [1, 1, 3, 3]
    assert len({tuple(row["test"]) for row in rows}) == 1
    assert rows[0]["train"][1] > rows[2]["train"][1]
    assert not rows[0]["verdict"]
    assert rows[1]["verdict"]
    assert (folder / "rows.png").stat().st_size > 0
