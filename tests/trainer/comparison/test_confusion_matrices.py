import json
import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics

from cxr_tfrecords.errors import UserError
from trainer.comparison import confusion_matrices, published_tables

NAMES = ["COVID", "Normal", "Viral"]
A = [[40, 5, 5], [10, 180, 10], [0, 2, 18]]
B = [[25, 20, 5], [10, 180, 10], [1, 2, 17]]
C = [[25, 20, 6], [10, 179, 10], [1, 2, 17]]


def _file(tmp_path, content):
    path = tmp_path / "matrices.json"
    path.write_text(json.dumps(content))
    return str(path)


def _paper(tmp_path, **changes):
    """A made-up paper of three models on classes of our own."""
    models = {"A": A, "B": B, "C": C}
    content = {
        "citation": "Nobody 2020",
        "class_order": NAMES,
        "confusion_matrices_rows_actual": models,
        "table_I_class_counts": {"COVID": 200, "Normal": 700, "Viral": 120},
        "table_II_split_counts": {"train": 640, "validation": 90, "test": 270},
        "table_V_train_after_sampling": {
            "none": {"COVID": 190, "Normal": 600, "Viral": 110},
            "undersample": {"COVID": 60, "Normal": 60, "Viral": 60},
            "oversample": {"COVID": 400, "Normal": 450, "Viral": 420},
        },
        "table_VIII_final_tuning": {
            "A": {"backbone": "x", "batch_size": 30},
            "B": {"backbone": "y", "batch_size": 10},
            "C": {"backbone": "x", "batch_size": 30},
        },
        "table_XIII_recall_percent": {
            m: {
                n: round(100 * r[i] / sum(r))
                for i, (n, r) in enumerate(zip(NAMES, rows, strict=True))
            }
            for m, rows in models.items()
        },
    }
    return confusion_matrices.read_matrices(_file(tmp_path, content | changes))


def _images(matrix):
    """True and predicted labels that have this confusion matrix."""
    counts = np.array(matrix)
    true, predicted = np.indices(counts.shape)
    return np.repeat(true.ravel(), counts.ravel()), np.repeat(predicted.ravel(), counts.ravel())


def test_metrics_agree_with_scikit_learn_on_images_of_that_matrix():
    labels, predicted = _images(A)
    found = confusion_matrices.summarize(np.array(A), NAMES)
    assert found["accuracy"][0] == pytest.approx((labels == predicted).mean())
    assert found["mcc"] == pytest.approx(sklearn.metrics.matthews_corrcoef(labels, predicted))
    assert found["macro_f1"] == pytest.approx(
        sklearn.metrics.f1_score(labels, predicted, average="macro")
    )
    for c, name in enumerate(NAMES):
        of_class = found["per_class"][name]
        for measure, expected in {
            "recall": sklearn.metrics.recall_score(labels == c, predicted == c),
            "precision": sklearn.metrics.precision_score(labels == c, predicted == c),
            "specificity": sklearn.metrics.recall_score(labels != c, predicted != c),
        }.items():
            value, low, high = of_class[measure]
            assert value == pytest.approx(expected)
            assert low < value < high or value in (0, 1)


def test_models_on_equal_and_on_other_images_are_told_apart(tmp_path):
    matrices = confusion_matrices.read_matrices(
        _file(tmp_path, {"class_names": NAMES, "models": {"A": A, "B": B, "C": C}})
    )
    page = confusion_matrices.describe(matrices)
    assert "A and B have the same number of images in every class" in page
    assert "A and C have" not in page
    assert "A and C were tested on different images (50/200/20 and 51/199/20 by class)" in page
    assert "paired tests" in page
    assert "AUROC" in page


def test_comparisons_are_adjusted_over_all_and_the_large_one_stands(tmp_path):
    matrices = confusion_matrices.read_matrices(
        _file(tmp_path, {"class_names": NAMES, "models": {"A": A, "B": B}})
    )
    comparisons = {c.measure: c for c in confusion_matrices.compare(matrices)}
    assert set(comparisons) == {"accuracy", *(f"recall/{name}" for name in NAMES)}
    covid = comparisons["recall/COVID"]
    assert covid.result.difference == pytest.approx(0.3)
    assert covid.adjusted == pytest.approx(4 * covid.result.p_value)
    assert "1 of these 4 differences: recall/COVID: A above B" in confusion_matrices.describe(
        matrices
    )


def test_printed_tables_follow_from_the_matrices_or_are_listed(tmp_path):
    assert all(cell.agrees for cell in published_tables.printed_cells(_paper(tmp_path)))
    page = published_tables.describe_published(_paper(tmp_path))
    assert "9 of 9 printed percentages follow" in page
    wrong = _paper(tmp_path, table_XV_f1_percent={"B": {"Viral": 50}})
    page = published_tables.describe_published(wrong)
    assert "9 of 10 printed percentages" in page
    assert "- Table XV (f1), model B, Viral: printed 50, the matrix gives 65.38" in page


def test_a_half_rounds_either_way():
    cells = [published_tables.Cell("XIII", "A", "x", printed, 94.5) for printed in (94, 95, 96)]
    assert [cell.agrees for cell in cells] == [True, True, False]
    assert not published_tables.Cell("XIII", "A", "x", 0, None).agrees


def test_what_a_paper_supports_is_computed_from_its_numbers(tmp_path):
    page = published_tables.describe_published(_paper(tmp_path))
    assert "A (none) 900 images, 30 updates of 30; B (undersample) 180 images, 18 updates" in page
    assert "a factor of 7.1 in images and 2.4 in updates" in page
    assert "undersampling leaves 60 images of a class, of 900 images of all classes" in page
    assert "A and B differ in backbone too (x, y)" in page
    assert "best in" not in page


def test_claims_of_the_text_that_its_matrices_contradict_are_named(tmp_path):
    matrices = _paper(tmp_path, citation="J. A. Wuisan et al. 2022")
    matrices = confusion_matrices.Matrices(
        ["COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"],
        {
            m: np.pad(np.array(rows), ((0, 1), (0, 1))) + np.eye(4, dtype=int) * k
            for (m, rows), k in zip({"A": B, "C": A}.items(), (1, 2), strict=True)
        },
        {"citation": matrices.content["citation"]},
    )
    page = published_tables.describe_published(matrices)
    assert "The text calls A best in recall of COVID; by the matrices C is" in page


def test_matrices_that_are_none_are_refused(tmp_path):
    for content in (
        {"models": {"A": A}},
        {"class_names": NAMES, "models": {}},
        {"class_names": NAMES, "models": {"A": A[:2]}},
        {"class_names": NAMES, "models": {"A": [[0.5] * 3] * 3}},
        {"class_names": NAMES, "models": {"A": [[1, 2, -1]] * 3}},
        [1],
    ):
        with pytest.raises(UserError, match="matrices"):
            confusion_matrices.read_matrices(_file(tmp_path, content))
    with pytest.raises(UserError, match="missing"):
        confusion_matrices.read_matrices(str(tmp_path / "missing.json"))


def test_command_prints_the_page_and_writes_it(tmp_path):
    path = _file(tmp_path, {"class_names": NAMES, "models": {"A": A, "B": B}})
    command = [sys.executable, "-m", "trainer.from_confusion"]
    out = tmp_path / "out"
    done = subprocess.run(
        [*command, path, f"--out={out}"], capture_output=True, text=True, check=True
    )
    assert (out / "from_confusion.md").read_text() == done.stdout
    figures = json.loads((out / "from_confusion.json").read_text())
    assert figures["models"]["A"]["accuracy"][0] == pytest.approx(238 / 270)
    assert len(figures["comparisons"]) == 4
    assert [(b["first"], b["second"]) for b in figures["same_images"]] == [("A", "B")]
    assert figures["leaks"] == []
    refused = subprocess.run(command, capture_output=True, text=True)
    assert (refused.returncode, refused.stderr[:6]) == (2, "error:")
