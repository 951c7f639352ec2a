"""The pictures of a finished run: they exist, have sense, and repeat to the byte."""

import cv2
import matplotlib
import numpy as np
import pytest

from cxr_tfrecords.errors import UserError
from tests.trainer import fake_run
from tests.trainer.conftest import PICTURES
from trainer.evaluation.calibration import reliability_curve
from trainer.runs import curve_pictures, report_pictures
from trainer.runs.finished_run import read_run


def _texts(figure) -> list[str]:
    """Everything that is written in a figure."""
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


@pytest.mark.slow
def test_writes_pictures_of_a_readable_size_and_for_the_same_run_the_same_bytes(tmp_path):
    first = report_pictures.write_pictures(fake_run.write_run(tmp_path / "a", run_dir="r"))
    second = report_pictures.write_pictures(fake_run.write_run(tmp_path / "b", run_dir="r"))
    assert [path.rpartition("/")[2] for path in first] == PICTURES
    for one, other in zip(first, second, strict=True):
        pixels = cv2.imread(one)
        assert min(pixels.shape[:2]) > 400
        colours = pixels.astype(np.int32) @ [1, 1 << 8, 1 << 16]  # of numbers in a fast `unique`
        assert len(np.unique(colours)) > 20, "an empty picture"
        with open(one, "rb") as a, open(other, "rb") as b:
            assert a.read() == b.read()


def test_confusion_picture_shows_every_count_of_the_metrics(tmp_path):
    run = read_run(fake_run.write_run(tmp_path))
    written = _texts(report_pictures.draw_confusion(run, "test"))
    for row in run.metrics["test"]["confusion_matrix"]:
        for count in row:
            assert f"{count:,}\n{count / sum(row):.1%}" in written


def test_class_counts_picture_shows_counts_before_and_after(tmp_path):
    run = read_run(fake_run.write_run(tmp_path))
    written = " ".join(_texts(report_pictures.draw_class_counts(run)))
    for count in (*run.samples["natural"], *run.samples["planned"]):
        assert f"{count:,}" in written


def test_class_counts_of_changing_shares_are_those_of_the_first_and_the_last_epoch(tmp_path):
    natural = fake_run.COUNTS["train"]
    options = {"sampler": "progressive", "epochs": len(fake_run.LOSSES), "planned": natural}
    run = read_run(fake_run.write_run(tmp_path, **options))
    figure = report_pictures.draw_class_counts(run)
    bars = {
        bars.get_label(): [bar.get_width() for bar in bars] for bars in figure.axes[0].containers
    }
    equal = [sum(natural) / 4] * 4
    first, last, again = (
        bars[f"epoch {name}"]
        for name in ("1: different images", "8: different images", "8: the same again")
    )
    assert first == pytest.approx(natural)
    assert np.add(last, again) == pytest.approx(equal, abs=1)
    assert last[3] == natural[3], "the rarest class has only so many different images"
    assert f"n = {sum(natural):,} → {sum(natural):,} → {sum(natural):,}" in " ".join(_texts(figure))


def test_curves_mark_the_epoch_whose_weights_were_kept(tmp_path):
    figure = report_pictures.draw_training_curves(read_run(fake_run.write_run(tmp_path)))
    loss = figure.axes[0]
    best = 1 + int(np.argmin(fake_run.LOSSES))
    (mark,) = [t for t in loss.texts if t.get_text() == "best epoch"]
    assert mark.xy[0] == best
    drawn = {tuple(line.get_ydata()) for line in loss.lines}
    assert fake_run.LOSSES in drawn


def test_roc_and_reliability_are_those_of_the_test_predictions(tmp_path):
    counts = {**fake_run.COUNTS, "test": [50, 60, 70, 9]}
    run = read_run(fake_run.write_run(tmp_path, counts=counts))
    test, by_class = run.predictions("test"), run.metrics["test"]["per_class"]
    roc = curve_pictures.draw_roc(run)
    diagrams = curve_pictures.draw_reliability(run)
    for c, (name, panel, diagram) in enumerate(
        zip(run.class_names, roc.axes, diagrams.axes, strict=True)
    ):
        x, y = panel.lines[1].get_data()
        assert np.trapezoid(y, x) == pytest.approx(by_class[name]["auroc"])
        assert f"AUROC {by_class[name]['auroc']:.4f}" in _texts(panel)
        curve = reliability_curve(test.labels == c, test.probabilities[:, c])
        (drawn,) = diagram.containers
        np.testing.assert_allclose(drawn[0].get_ydata(), curve.observed)
        title = f"{name} *" if name == "Viral Pneumonia" else name
        assert panel.get_title() == diagram.get_title() == title


def test_missing_file_is_named(tmp_path):
    path = fake_run.write_run(tmp_path)
    (tmp_path / "history.csv").unlink()
    with pytest.raises(UserError, match=r"history\.csv: No such file"):
        report_pictures.write_pictures(path)


def test_pictures_of_many_classes_show_some_of_them(tmp_path, monkeypatch):
    for module in (curve_pictures, report_pictures):
        monkeypatch.setattr(module, "DRAWN", 2)
    run = read_run(fake_run.write_run(tmp_path))
    assert len(curve_pictures.draw_roc(run).axes) == 2
    most, fewest = (run.class_names[c] for c in run.shown_classes(2))
    figure = report_pictures.draw_class_counts(run)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [most, fewest]
