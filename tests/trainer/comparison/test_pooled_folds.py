"""Cross-validation is compared on the test images of all folds, each corrected by its own fold."""

import json
import os
import re

import numpy as np
import pytest

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError
from tests.trainer import fake_run, fake_study
from trainer.comparison import compare_methods, operating_points
from trainer.comparison.markdown_text import markdown
from trainer.comparison.methods import group_runs, pool, score_entry
from trainer.comparison.page.page import render
from trainer.comparison.subgroups import figures, membership
from trainer.comparison.text import temperature_notes
from trainer.deployment import corrected_probabilities
from trainer.evaluation.metrics import log_odds
from trainer.evaluation.predictions import (
    Predictions,
    compute_metrics,
    read_predictions,
    write_predictions,
)
from trainer.runs.finished_run import read_run

FOLDS = 3
SHIFTS = {"none": 0.0, "oversample": 1.5}
COUNTS = {"train": [60, 70, 90, 40], "validation": [30, 35, 45, 20], "test": [30, 35, 45, 20]}


def write_fold(folder, method, seed, fold):
    """A run of one fold; the images of fold k are called fold<k>-<number>.png, in groups of two."""
    sizes = {"validation": (fold + 1) % FOLDS, "test": fold}
    count = sum(COUNTS["test"])
    path = fake_run.write_run(
        folder / f"{method}-fold{fold}-seed{seed}",
        counts=COUNTS,
        planned=COUNTS["train"],
        rng_seed=100 * seed + 10 * fold + len(method),
        dataset={"folds": FOLDS},
        ids={s: [f"fold{k}-{i}.png" for i in range(count)] for s, k in sizes.items()},
        sampler=method,
        seed=seed,
        fold=fold,
    )
    metrics = {}
    for split, k in sizes.items():
        name = os.path.join(path, f"predictions_{split}.csv")
        own = read_predictions(name)
        logits = own.logits + SHIFTS[method] * np.eye(4)[own.labels]
        logits *= 1 + fold  # folds differ in how sure they are: each needs its own temperature
        groups = [f"fold{k}-{i // 2}" for i in range(count)]
        changed = Predictions(own.ids, own.labels, logits.astype(np.float32), groups)
        write_predictions(name, changed, fake_run.CLASSES)
        metrics[split] = compute_metrics(changed, fake_run.CLASSES)
    files.write_json(os.path.join(path, "metrics.json"), metrics)
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    return {
        (method, seed, fold): write_fold(folder, method, seed, fold)
        for method in SHIFTS
        for seed in (0, 1)
        for fold in range(FOLDS)
    }


def entries_of(paths):
    return group_runs([(method, read_run(path)) for (method, _, _), path in paths.items()])


@pytest.fixture(scope="module")
def entries(paths):
    return entries_of(paths)


@pytest.fixture(scope="module")
def content(entries):
    return compare_methods.compare(entries, reference="none", resamples=60)


def test_every_image_is_in_the_pooled_set_once_a_seed(entries):
    for entry in entries:
        assert entry.seeds == (0, 1)
        for runs in entry.by_seed:
            pooled = pool(runs)
            assert len(set(pooled.ids)) == len(pooled.ids) == FOLDS * sum(COUNTS["test"])
            for k, run in enumerate(runs):
                own, rows = run.predictions("test"), slice(k * 130, (k + 1) * 130)
                assert pooled.ids[rows] == own.ids
                assert pooled.groups[rows] == own.groups
                np.testing.assert_array_equal(pooled.labels[rows], own.labels)
                np.testing.assert_array_equal(pooled.logits[rows], own.logits)


def test_each_fold_is_corrected_by_its_own_validation(entries):
    scored = score_entry(entries[0], None)
    plans = [corrected_probabilities.plan_deployment(run) for run in entries[0].runs]
    assert scored.temperatures == tuple(plan.temperature for plan in plans)
    assert max(scored.temperatures) > 2 * min(scored.temperatures)
    for seed in (0, 1):
        for fold in range(FOLDS):
            at = seed * FOLDS + fold
            own = entries[0].runs[at].predictions("test").log_probabilities
            rows = slice(fold * 130, (fold + 1) * 130)
            for variant, expected in plans[at].variants(own).items():
                np.testing.assert_array_equal(scored.variants[variant][seed][rows], expected)


def test_each_fold_has_the_threshold_of_its_own_validation(entries):
    point = operating_points.of_seeds(entries[0].by_seed, 0.8)["COVID"][1]
    called, positive = [], []
    for run, threshold in zip(entries[0].by_seed[1], point["thresholds"], strict=True):
        validation, test = run.predictions("validation"), run.predictions("test")
        odds = log_odds(validation.log_probabilities)[validation.labels == 0, 0]
        limit = np.log(threshold / (1 - threshold)) - 1e-9
        assert 0.8 <= (odds >= limit).mean() < 0.8 + 1 / len(odds)
        called.append(log_odds(test.log_probabilities)[:, 0] >= limit)
        positive.append(test.labels == 0)
    called, positive = np.concatenate(called), np.concatenate(positive)
    assert point["sensitivity"]["estimate"] == pytest.approx(called[positive].mean())
    assert point["specificity"]["estimate"] == pytest.approx(1 - called[~positive].mean())
    assert len(set(point["thresholds"])) == FOLDS


def test_figures_are_of_all_images_and_groups(content):
    assert (content["folds"], content["test"]["images"], content["test"]["groups"]) == (3, 390, 195)
    one = content["entries"]["oversample"]
    assert np.sum(one["confusion_matrix"]) == pytest.approx(390)
    assert one["metrics"]["accuracy"]["estimate"] == pytest.approx(
        np.trace(one["confusion_matrix"]) / 390
    )
    assert len(one["runs"]) == len(one["temperatures"]) == 2 * FOLDS
    assert "fold" not in one["config"]
    assert content["differences"]["oversample"]["metrics"]["balanced_accuracy"]["estimate"] > 0.03


@pytest.mark.usefixtures("undrawn")
def test_the_pages_say_that_folds_were_pooled(content, entries):
    content = json.loads(json.dumps(content))
    content["entries"]["none"]["temperatures"][4] = 0.1
    assert next(iter(temperature_notes(content))).startswith("none seed 1 fold 1, ")
    page = render(content, entries, gallery=False)
    for text in (page, markdown(content)):
        assert "3 folds, pooled" in text
        assert "All 3 folds, pooled: 390 images in 195 groups" in text
        assert "Each fold has a threshold of its own" in text
    assert "Cross-validation with 3 folds" in page
    assert "Bengio and Grandvalet 2004" in page
    assert re.search(r"[0-9]\.[0-9]{4} to [0-9]\.[0-9]{4}", markdown(content))


def test_subgroups_are_of_the_images_of_all_folds(content, entries, tmp_path):
    rows = [
        f"{name},{'ab'[number % 2]}" for number, name in enumerate(pool(entries[0].runs[:3]).ids)
    ]
    path = tmp_path / "sites.csv"
    path.write_text("\n".join(["filename,site", *rows]))
    table = membership.read_subgroups(str(path), ["site"], "")
    shown = figures.compare_subgroups(entries, content, table)["columns"]["site"]["subgroups"]
    assert {value: one["images"] for value, one in shown.items()} == {"a": 195, "b": 195}
    recalls = [one["entries"]["none"]["recall/COVID"]["estimate"] for one in shown.values()]
    counts = [one["counts"][0] for one in shown.values()]
    whole = content["entries"]["none"]["metrics"]["recall/COVID"]["estimate"]
    assert np.average(recalls, weights=counts) == pytest.approx(whole)


def test_runs_of_one_fold_are_compared_on_that_fold(paths):
    some = {key: path for key, path in paths.items() if key[2] == 1}
    content = compare_methods.compare(entries_of(some), reference="none", resamples=20)
    assert (content["folds"], content["test"]["images"]) == (0, 130)
    assert "test fold 1 of 3" in markdown(content)


def test_missing_folds_are_named(paths):
    some = dict(paths)
    del some["none", 1, 0], some["none", 1, 2], some["oversample", 0, 1]
    told = r"3 folds are missing \(none seed 1: fold 0, 2; oversample seed 0: fold 1\)"
    with pytest.raises(UserError, match=told):
        entries_of(some)


def test_a_fold_that_comes_twice_is_refused(paths, tmp_path):
    again = {**paths, ("none", 1, "again"): write_fold(tmp_path, "none", 1, 2)}
    with pytest.raises(UserError, match="are both none with seed 1 and test fold 2: leave one out"):
        entries_of(again)


def test_an_image_in_two_folds_is_refused(paths, tmp_path):
    moved = write_fold(tmp_path, "none", 0, 2)
    name = os.path.join(moved, "predictions_test.csv")
    own = read_predictions(name)
    write_predictions(
        name,
        Predictions(["fold0-5.png", *own.ids[1:]], own.labels, own.logits, own.groups),
        fake_run.CLASSES,
    )
    entries = entries_of({**paths, ("none", 0, 2): moved})
    with pytest.raises(UserError, match=r"fold0-5\.png was tested in .*fold0-seed0 and in .*fold2"):
        compare_methods.compare(entries, reference="none", resamples=20)


def test_without_folds_nothing_is_said_of_them(tmp_path):
    content, _ = fake_study.compare(fake_study.write_study(tmp_path, seeds=(0,)))
    assert content["folds"] == 0
    assert " fold" not in markdown(content)
