import dataclasses
import math

import numpy as np
import pytest
import sklearn.metrics

from cxr_tfrecords.errors import UserError
from trainer.evaluation.predictions import (
    Predictions,
    collect,
    compute_metrics,
    labels_in_order,
    read_predictions,
    write_predictions,
)

NAMES = ("COVID", "Normal", "Viral, Pneumonia")


def _predictions(count: int = 200, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, 3, count)).astype(np.int32)
    logits = rng.normal(0, 1, (count, 3)).astype(np.float32)
    logits[np.arange(count), labels] += 1
    return Predictions([f"a b/{i}.png" for i in range(count)], labels, logits)


def test_metrics_by_hand():
    logits = np.log([[8, 1, 1], [1, 8, 1], [1, 8, 1], [1, 8, 1], [8, 1, 1], [1, 1, 8]])
    predictions = Predictions(["x"] * 6, np.array([0, 0, 1, 1, 1, 2]), logits.astype(np.float32))
    metrics = compute_metrics(predictions, NAMES)
    assert metrics["confusion_matrix"] == [[1, 1, 0], [1, 2, 0], [0, 0, 1]]
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert metrics["log_loss"] == pytest.approx(-(4 * math.log(0.8) + 2 * math.log(0.1)) / 6)
    covid = metrics["per_class"]["COVID"]
    assert covid["precision"] == pytest.approx(1 / 2)
    assert covid["specificity"] == pytest.approx(3 / 4)
    assert covid["support"] == 2
    assert metrics["per_class"][NAMES[2]]["auroc"] == 1.0


def test_metrics_agree_with_scikit_learn():
    predictions = _predictions()
    metrics = compute_metrics(predictions, NAMES)
    labels, probabilities = predictions.labels, predictions.probabilities
    predicted = probabilities.argmax(1)
    assert metrics["balanced_accuracy"] == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(labels, predicted)
    )
    assert metrics["log_loss"] == pytest.approx(sklearn.metrics.log_loss(labels, probabilities))
    assert metrics["auroc_macro"] == pytest.approx(
        sklearn.metrics.roc_auc_score(labels, probabilities, multi_class="ovr")
    )
    for c, name in enumerate(NAMES):
        assert metrics["per_class"][name]["specificity"] == pytest.approx(
            sklearn.metrics.recall_score(labels != c, predicted != c)
        )


def test_a_class_that_is_absent_has_no_auroc_and_does_not_count_in_balanced_accuracy():
    predictions = Predictions(["x"] * 2, np.array([0, 1]), np.eye(3, dtype=np.float32)[:2])
    metrics = compute_metrics(predictions, NAMES)
    assert metrics["per_class"][NAMES[2]]["auroc"] is None
    assert metrics["balanced_accuracy"] == 1.0


def test_huge_logits_stay_finite():
    predictions = Predictions(["x"], np.array([1]), np.array([[1e4, -1e4, 0]], np.float32))
    assert predictions.loss == pytest.approx(2e4)
    assert predictions.probabilities.tolist() == [[1.0, 0.0, 0.0]]


def test_predictions_survive_their_file_bit_for_bit(tmp_path):
    predictions = _predictions()
    path = str(tmp_path / "p.csv")
    write_predictions(path, predictions, NAMES)
    again = read_predictions(path)
    assert again.ids == predictions.ids
    assert again.groups == predictions.ids
    assert again.logits.dtype == np.float32
    np.testing.assert_array_equal(again.logits, predictions.logits)
    assert compute_metrics(again, NAMES) == compute_metrics(predictions, NAMES)
    with open(path) as file:
        header, first, *_ = file.read().splitlines()
    assert header.startswith('id,label,class,logit_COVID,logit_Normal,"logit_Viral, Pneumonia",')
    assert first.startswith("a b/0.png,0,COVID,")


def test_groups_survive_their_file_and_one_without_them_is_refused(tmp_path):
    path = tmp_path / "p.csv"
    predictions = dataclasses.replace(_predictions(4), groups=["a", "b", "a", "c"])
    write_predictions(str(path), predictions, NAMES)
    assert read_predictions(str(path)).groups == ["a", "b", "a", "c"]
    path.write_text("\n".join(line.rpartition(",")[0] for line in path.read_text().splitlines()))
    with pytest.raises(UserError, match="'group'"):
        read_predictions(str(path))


def test_files_that_hold_no_predictions_are_refused(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss\n1,2\n")
    label = tmp_path / "label.csv"
    label.write_text("id,label,group,logit_a\nx,99999999999,x,1\n")
    for name in (path, label, tmp_path / "missing.csv"):
        with pytest.raises(UserError, match=str(name)):
            read_predictions(str(name))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda lines: lines[:4], "it has 3 images of 3 classes, the split 4 of 3"),
        (lambda lines: [*lines, lines[-1]], "it has 5 images of 3 classes, the split 4 of 3"),
        (lambda lines: [*lines[:-1], lines[1]], "its labels are not those of the split"),
        (lambda lines: [*lines[:-1], lines[-2]], "an image comes twice"),
        (lambda lines: [*lines[:-1], "x,3" + lines[-1][3:]], "its labels are not those"),
        (lambda lines: [*lines[:-1], lines[-1][:12]], "a logit in row 4 is not a finite number"),
        (lambda lines: [*lines[:-1], lines[-1].rpartition(",")[0]], "a row has no group"),
        (lambda lines: [*lines[:-1], lines[-1].rstrip("\n")], "its last line has no end"),
    ],
)
def test_a_file_that_was_cut_or_changed_is_refused(tmp_path, damage, problem):
    path = tmp_path / "predictions_test.csv"
    labels = np.array([0, 0, 1, 1], np.int32)
    logits = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_predictions(str(path), Predictions(["a", "b", "c", "d"], labels, logits), "XYZ")
    assert read_predictions(str(path), (2, 2, 0)).ids == ["a", "b", "c", "d"]
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(damage(lines)))
    with pytest.raises(UserError, match=rf"^{path} was changed or cut short \({problem}"):
        read_predictions(str(path), (2, 2, 0))


def _batch(labels: list[int], index: list[int]):
    """A batch whose logits tell the index."""
    logits = np.array([[i, 0.0] for i in index], np.float32)
    return logits, np.array(labels, np.int32), np.array(index)


def test_rows_land_where_their_index_says_and_padding_nowhere():
    batches = [_batch([1, 0], [2, 0]), _batch([0, 0], [1, -1])]
    assert collect(batches, (2, 1))[:, 0].tolist() == [0, 1, 2]
    assert labels_in_order((2, 1)).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([_batch([0, 0], [0, 1])], "2 of 3 examples exactly once"),
        ([_batch([0, 0], [0, 1]), _batch([0, 1], [0, 2])], "2 of 3 examples exactly once"),
        ([_batch([0, 1], [0, 1]), _batch([1, 0], [2, -1])], "differ from the metadata"),
    ],
)
def test_missing_repeated_and_mislabelled_rows_are_found(batches, message):
    with pytest.raises(RuntimeError, match=message):
        collect(batches, (2, 1))
