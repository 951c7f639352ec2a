"""trainer.label_doubts: planted wrong labels are listed, copies under two labels first."""

import csv
import json
import os
import types

import numpy as np
import pytest

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError
from tests import helpers
from tests.trainer import fake_run, processes

pytest.importorskip("cleanlab", reason="needs pip install '.[labels]'")

from trainer.evaluation.predictions import (
    Predictions,
    compute_metrics,
    read_predictions,
    write_predictions,
)
from trainer.labels.doubts import Doubt, count_pairs, find_doubts
from trainer.labels.out_of_fold import OutOfFold, read_out_of_fold
from trainer.runs.finished_run import read_run

FOLDS = 3
COUNTS = {f"fold{k}": (6, 8, 9, 5) for k in range(FOLDS)}
CONFLICT = ("COVID/fold1-0.png", "Normal/fold1-0.png")  # copies of one image
WRONG = "Normal/fold2-3.png"  # labelled Normal, looks like COVID


def simulated(rng, counts=(150, 300, 500, 60), wrong=0.05):
    """Calibrated predictions of images of which a share has a wrong label; and which these are."""
    true = np.repeat(np.arange(len(counts)), counts)
    logits = rng.normal(0, 1, (len(true), len(counts))) + 4 * np.eye(len(counts))[true]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    planted = rng.random(len(true)) < wrong
    labels = np.where(planted, (true + rng.integers(1, len(counts), len(true))) % 4, true)
    ids = [f"{row}.png" for row in range(len(true))]
    return OutOfFold(None, ids, labels.astype(np.int32), ids, probabilities), true, planted


def test_planted_wrong_labels_are_listed_with_the_true_class():
    given, true, planted = simulated(np.random.default_rng(0))
    doubts = find_doubts(given)
    rows = [one.row for one in doubts]
    assert [one.prediction_rank for one in doubts] == list(range(1, len(rows) + 1))
    confidence = [one.self_confidence for one in doubts]
    assert confidence == sorted(confidence)
    assert np.isin(np.flatnonzero(planted), rows).mean() > 0.75, "recall"
    assert planted[rows].mean() > 0.8, "precision"
    hits = [one for one in doubts if planted[one.row]]
    assert np.mean([one.suggested == true[one.row] for one in hits]) > 0.95
    clean, *_ = simulated(np.random.default_rng(1), wrong=0.0)
    assert len(find_doubts(clean)) < 0.02 * len(clean.ids)


def test_copies_under_two_labels_come_first_and_keep_one_of_their_labels():
    given, *_ = simulated(np.random.default_rng(2))
    pair = [int(np.flatnonzero(given.labels == c)[0]) for c in (0, 2)]
    given.probabilities[pair] = [[0.3, 0.05, 0.05, 0.6], [0.5, 0.1, 0.1, 0.3]]
    names = [given.ids[row] for row in pair]
    same_label = [given.ids[row] for row in np.flatnonzero(given.labels == 1)[:2]]
    doubts = find_doubts(given, [same_label, [*names, "not judged.png"]])
    assert {one.row for one in doubts[:2]} == set(pair)
    assert [one.suggested for one in doubts[:2]] == [0, 0], "class 3 is no label of the copies"
    assert [one.is_copy for one in doubts].count(True) == 2
    assert len({one.row for one in doubts}) == len(doubts)


def write_sources(data):
    """Adds sources.csv, and the conflict that a build would have noted, to a data set."""
    manifest = files.read_json(os.path.join(data.path, "manifest.json"))
    rows = [
        {"class": shard["class"], "split": shard["split"], "shard": shard["file"], "number": n}
        for shard in manifest["shards"]
        for n in range(shard["num_examples"])
    ]
    seen: dict[tuple, int] = {}
    with open(os.path.join(data.path, "sources.csv"), "w", newline="", encoding="utf-8") as file:
        columns = ("class", "split", "shard", "filename", "num_bytes", "height", "width")
        columns += ("format", "mode", "group", "tied_by", "reason")
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for row in rows:
            row["num_bytes"] = 9
            key = row["class"], row["split"]
            number = seen[key] = seen.get(key, -1) + 1
            name = f"{row['class']}/{row['split']}-{number}.png"
            copy = name in CONFLICT
            own = {
                "filename": name,
                "group": "g" if copy else name,
                "num_bytes": 9,
                "format": "PNG",
            }
            del row["number"]
            writer.writerow({**row, **own, "tied_by": "near" if copy else ""})
    manifest["duplicates"] |= {"label_conflicts": ["g"], "num_label_conflicts": 1}
    files.write_json(os.path.join(data.path, "manifest.json"), manifest)


def write_fold(root, data, fold, seed):
    counts = list(COUNTS["fold0"])
    names = {
        split: [
            f"{c}/fold{k}-{n}.png"
            for c, count in zip(fake_run.CLASSES, counts, strict=True)
            for n in range(count)
        ]
        for split, k in (("validation", (fold + 1) % FOLDS), ("test", fold))
    }
    path = fake_run.write_run(
        root / f"tiny-none-fold{fold}-seed{seed}",
        counts={"train": counts, "validation": counts, "test": counts},
        planned=counts,
        dataset={"folds": FOLDS, "path": data.path, "fingerprint": data.fingerprint},
        ids=names,
        sampler="none",
        fold=fold,
        seed=seed,
    )
    metrics = {}
    rng = np.random.default_rng([fold, seed])
    for split in ("validation", "test"):
        file = os.path.join(path, f"predictions_{split}.csv")
        read = read_predictions(file)
        seen = np.where(np.array(read.ids) == WRONG, 0, read.labels)
        logits = (rng.normal(0, 0.3, read.logits.shape) + 4 * np.eye(4)[seen]).astype(np.float32)
        groups = ["g" if name in CONFLICT else name for name in read.ids]
        changed = Predictions(read.ids, read.labels, logits, groups)
        write_predictions(file, changed, fake_run.CLASSES)
        metrics[split] = compute_metrics(changed, fake_run.CLASSES)
    files.write_json(os.path.join(path, "metrics.json"), metrics)


def test_pairs_of_classes_are_those_of_the_predictions():
    probabilities = np.array([[0.1, 0.9], [0.2, 0.8]])
    entry = types.SimpleNamespace(runs=[types.SimpleNamespace(class_names=["X", "Y"])])
    given = OutOfFold(entry, ["a", "b"], np.array([0, 0], np.int32), ["a", "b"], probabilities)
    # The first one is a copy that keeps its label, which predictions contradict all the same.
    doubts = [Doubt(0, 0, 0.1, True, 1), Doubt(1, 1, 0.2, False, 2)]
    assert count_pairs(given, doubts) == [(0, 1, 2)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("doubts")
    data = helpers.write_dataset(root / "data", COUNTS)
    write_sources(data)
    for fold in range(FOLDS):
        for seed in (0, 1):
            write_fold(root / "runs", data, fold, seed)
    return root / "runs"


def test_the_command_lists_both_kinds_with_pictures(runs, tmp_path):
    output = tmp_path / "out"
    done = processes.run("trainer.label_doubts", f"--runs={runs}/*none*", f"--output_dir={output}")
    assert done.returncode == 0, done.stderr
    assert "1 of 84 labels are contradicted by predictions, and 2 images have" in done.stdout
    assert "Only the images" not in done.stdout
    with open(output / "label_doubts.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["filename"] for row in rows[:2]] in (list(CONFLICT), list(CONFLICT[::-1]))
    assert [(row["copy_has_other_label"], row["prediction_rank"]) for row in rows] == [
        *[("1", "")] * 2,
        ("0", "1"),
    ]
    assert (rows[2]["filename"], rows[2]["given"], rows[2]["suggested"]) == (
        *(WRONG, "Normal"),
        "COVID",
    )
    assert float(rows[2]["self_confidence"]) == float(rows[2]["probability_Normal"]) < 0.1
    assert {row["group"] for row in rows} == {"g", WRONG}
    page = (output / "label_doubts.html").read_text()
    assert page.count("data:image/jpeg") == 3
    assert "<td>1</td><td>3.7%</td>" in page.replace(' class="text"', "")
    assert "<script" not in page


def test_seeds_are_averaged_and_balanced_runs_corrected(runs, tmp_path):
    given = read_out_of_fold([f"{runs}/*none*"])
    assert given.is_whole
    assert len(given.ids) == len(set(given.ids)) == 84
    one = [read_out_of_fold([f"{runs}/*seed{seed}"]).probabilities for seed in (0, 1)]
    np.testing.assert_allclose(given.probabilities, np.mean(one, axis=0))
    path = next(runs.glob("*fold0-seed0"))
    content = json.loads((path / "config.json").read_text())
    content["config"]["sampler"] = "oversample_exact"
    balanced = tmp_path / "balanced"
    balanced.mkdir()
    for file in path.iterdir():
        (balanced / file.name).write_bytes(file.read_bytes())
    files.write_json(str(balanced / "config.json"), content)
    corrected = read_out_of_fold([str(balanced)]).probabilities
    raw = read_run(str(path)).predictions("test").probabilities
    shares = np.array(COUNTS["fold0"]) / sum(COUNTS["fold0"])
    expected = raw * shares
    np.testing.assert_allclose(corrected, expected / expected.sum(axis=1, keepdims=True))
    with pytest.raises(UserError, match="several methods"):
        read_out_of_fold([str(path), str(balanced)])


def test_some_folds_are_refused_and_one_is_said(runs, tmp_path):
    with pytest.raises(UserError, match="seed 0: fold 2"):
        read_out_of_fold([f"{runs}/*fold[01]-seed0"])
    given = read_out_of_fold([f"{runs}/*fold1*"])
    assert (given.folds, given.is_whole, len(given.ids)) == ((1,), False, 28)
    from trainer.labels.page import summary

    assert "Only the images of test fold 1 were judged" in summary(given, find_doubts(given))[-1]


def test_another_data_set_is_refused(runs, tmp_path):
    helpers.write_dataset(tmp_path / "other", COUNTS, seed=3)
    done = processes.run(
        "trainer.label_doubts",
        *(f"--runs={runs}/*none*", f"--output_dir={tmp_path / 'out'}"),
        f"--data_dir={tmp_path / 'other'}",
    )
    assert done.returncode == 2
    assert "is not the data set that" in done.stderr
    assert not (tmp_path / "out").exists()
