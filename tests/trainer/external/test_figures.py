"""Figures of a run elsewhere, against scikit-learn and by hand."""

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from cxr_tfrecords import tables
from cxr_tfrecords.decoding import rules
from cxr_tfrecords.errors import UserError
from tests.trainer.fake_run import write_run
from trainer.cascades import description
from trainer.cascades.staged_deployment import StagedDeployment
from trainer.comparison.subgroups.membership import SubgroupTable
from trainer.deployment.corrected_probabilities import Deployment
from trainer.evaluation.predictions import Predictions
from trainer.external import text
from trainer.external.evaluate_runs import describe, differ_by_seed, make_answers
from trainer.external.figures import BIAS, ESTIMATED, TRUE
from trainer.external.other_data import OtherData
from trainer.external.page import render, render_markdown
from trainer.runs.finished_run import read_run

COUNTS = {
    "train": [400, 600, 800, 200],
    "validation": [40, 60, 80, 20],
    "test": [40, 60, 80, 20],
}
NAMES = ["COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"]


def _external(seed=0, noise=1.0, counts=(90, 30, 60, 0)):
    """Images without one of the classes; the model confuses more of them than its own."""
    rng = np.random.default_rng(99)
    labels = np.repeat(np.arange(4, dtype=np.int32), counts)
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, noise, (len(labels), 4)) + 2.0 * np.eye(4)[labels]
    ids = [f"there-{i}.png" for i in range(len(labels))]
    groups = [f"g{i // 2}" for i in range(len(labels))]
    return Predictions(ids, labels, logits.astype(np.float32), groups)


def _made(run, external):
    return make_answers(run, external, external.labels)


def _other(split="all", names=NAMES, **values):
    class Data:
        path, fingerprint, encoding, pixel_rules = "/data/<other>", "ffff", "png", 2
        class_names = tuple(names)

    given = {"left_out": {}, "copies": frozenset(), **values}
    return OtherData(Data, split, (), (0, 1, 2, None), **given)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    made = []
    for seed in (0, 1):
        run = write_run(
            root / f"seed{seed}", counts=COUNTS, planned=COUNTS["train"], rng_seed=seed, seed=seed
        )
        made.append(_made(read_run(run), _external(seed)))
    return made


@pytest.fixture(scope="module")
def content(answers):
    member = {f"there-{i}.png": ["a" if i < 100 else "b"] for i in range(179)}
    table = SubgroupTable("t.csv", ("sex",), tables_of(member))
    return describe(answers, _other(), table, resamples=100)


def tables_of(rows):
    assert tables.match(rows, "there-0.png") == "there-0.png"
    return rows


def test_metrics_are_those_of_scikit_learn_on_the_classes_that_are_there(answers, content):
    figures = content["runs"][0]
    for place in ("internal", "external"):
        predictions = answers[0].predictions[place]
        labels, chosen = predictions.labels, predictions.logits.argmax(axis=1)
        assert set(labels) == {0, 1, 2}
        recalls = sk.recall_score(labels, chosen, labels=[0, 1, 2], average=None)
        areas = [sk.roc_auc_score(labels == c, predictions.probabilities[:, c]) for c in range(3)]
        wanted = {
            "accuracy": sk.accuracy_score(labels, chosen),
            "balanced_accuracy": recalls.mean(),
            "mcc": sk.matthews_corrcoef(labels, chosen),
            "auroc/Normal": areas[2],
            "recall/COVID": recalls[0],
        }
        for name, value in wanted.items():
            one = figures["metrics"][name][place]
            assert one["estimate"] == pytest.approx(value), (name, place)
            assert one["low"] < one["high"]
            assert one["low"] <= value <= one["high"]
        for variant in ("raw", "calibrated"):
            probabilities = np.exp(answers[0].variants[place][variant])
            outcomes = np.eye(4)[labels]
            values = figures["probabilities"][variant]
            brier = ((probabilities - outcomes) ** 2).sum(axis=1).mean()
            assert values["brier"][place]["estimate"] == pytest.approx(brier)
            loss = sk.log_loss(labels, probabilities, labels=range(4))
            assert values["log_loss"][place]["estimate"] == pytest.approx(loss)
    assert figures["counts"] == {"internal": [40, 60, 80, 0], "external": [90, 30, 60, 0]}
    assert figures["groups"]["external"] == 90
    there = answers[0].predictions["external"]
    matrix = sk.confusion_matrix(there.labels, there.logits.argmax(axis=1), labels=range(4))
    assert figures["confusion"] == matrix.tolist()


def test_differences_are_of_independent_images(content):
    one = content["runs"][0]["metrics"]["balanced_accuracy"]
    here, there, difference = one["internal"], one["external"], one["difference"]
    gap = there["estimate"] - here["estimate"]
    assert difference["estimate"] == pytest.approx(gap)
    low = np.hypot(there["estimate"] - there["low"], here["high"] - here["estimate"])
    assert difference["low"] == pytest.approx(gap - low)
    both = content["mean"]["metrics"]["balanced_accuracy"]
    values = [run["metrics"]["balanced_accuracy"] for run in content["runs"]]
    for place in ("internal", "external", "difference"):
        mean = np.mean([value[place]["estimate"] for value in values])
        assert both[place]["estimate"] == pytest.approx(mean)
    assert both["difference"]["seeds"] == both["internal"]["seeds"] == "random"
    assert both["difference"]["low"] < both["difference"]["estimate"] < both["difference"]["high"]


def test_shares_are_estimated_without_labels_and_used(answers, content):
    shares = content["runs"][0]["shares"]
    assert shares["true"] == pytest.approx([0.5, 1 / 6, 1 / 3, 0])
    assert shares["training"] == pytest.approx([0.2, 0.3, 0.4, 0.1])
    assert shares["apart"]["estimated"] < 0.1 < shares["apart"]["training"]
    assert shares["apart"]["internal"] < 0.1
    natural = answers[0].plan.natural
    there = np.exp(answers[0].variants["external"][BIAS])
    for name, target in ((ESTIMATED, answers[0].estimated), (TRUE, np.array(shares["true"]))):
        moved = there * target / natural
        wanted = moved / moved.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(np.exp(answers[0].variants["external"][name]), wanted, atol=1e-9)
    useful, note = text.shares_note(content["runs"][0])
    assert useful
    assert "near the true ones" in note
    wrong = {"apart": {"estimated": 0.3, "training": 0.4, "internal": 0.1}, "converged": False}
    useful, note = text.shares_note({"shares": wrong})
    assert not useful
    assert "are wrong: the estimation did not come to an end, and 30.0% of all images" in note


def test_subgroups_are_scored_by_themselves(answers, content):
    columns = content["runs"][0]["subgroups"]["columns"]["sex"]
    assert {value: one["images"] for value, one in columns.items()} == {
        "a": 100,
        "b": 79,
        "(no value)": 1,
    }
    there = answers[0].predictions["external"]
    part = there.subset(np.arange(180) < 100)
    recall = (part.logits.argmax(axis=1) == 0)[part.labels == 0].mean()
    assert columns["a"]["metrics"]["recall/COVID"]["estimate"] == pytest.approx(recall)
    # It has no image of a class that other subgroups have.
    assert "balanced_accuracy" not in columns["a"]["metrics"]
    assert columns["(no value)"]["metrics"] == {}


def test_the_page_begins_with_the_verdict_and_holds_all_tables(answers, content):
    page, markdown = render(content, answers), render_markdown(content)
    first = markdown.splitlines()[2]
    assert first.startswith("**On the data set &#60;other&#62; (mean of 2 seeds), balanced ")
    assert "points lower than on the internal test split" in first
    assert "Chance may explain the difference: its interval is -" in first  # with two seeds
    assert "the data set &lt;other&gt;" in page
    assert page.index("points lower") < page.index("<h2>")
    assert page.count("<svg") == 1
    for title in ("By class", "Class shares", "Probabilities", "Subgroups there, by sex"):
        assert f"## {title}" in markdown
        assert f"<h2>{title}" in page
    assert "No image is of the class Viral Pneumonia" in markdown
    json.dumps(content, allow_nan=False)


def test_names_of_classes_are_text_in_markdown_too(content):
    nasty = "<img onerror=x>|[a](b)"
    named = json.loads(json.dumps(content).replace("Lung_Opacity", nasty))
    markdown = render_markdown(named)
    assert "&#60;img onerror=x&#62;&#124;&#91;a&#93;(b)" in markdown
    assert not any(mark in markdown for mark in ("<", ">", "](", "[a"))
    assert markdown.count("|") == render_markdown(content).count("|")
    assert " [" in markdown, "intervals stay readable"


def test_notes_name_what_is_left_out(answers):
    other = _other(
        "test", left_out={"Device": 3}, copies=frozenset(["a", "b"]), unchecked="no sources.csv"
    )
    content = describe(answers[:1], other, None, resamples=100)
    notes = " ".join(text.notes(content))
    assert "2 images were left out because the model was trained" in notes
    assert "could not be looked for (no sources.csv)" in notes
    assert "Left out by --map_classes: Device (3 images)" in notes
    assert content["mean"] is None
    title, figures = text.views(content)[0]
    verdict = text.verdict(content, title, figures)
    assert verdict.startswith("On the test split of <other>, balanced accuracy is ")
    assert "The interval of the difference is -" in verdict


def test_stages_of_a_cascade_whose_temperature_is_at_its_bound_are_named(answers):
    rest = NAMES[1:]
    cascade = description.parse(["first: COVID, rest", f"rest: {', '.join(rest)}"], NAMES)
    half, thirds = np.full(2, 1 / 2), np.full(3, 1 / 3)
    plan = StagedDeployment.of(
        cascade,
        NAMES,
        {"first": ("COVID", "rest"), "rest": rest},
        {"first": Deployment(*3 * [half], 0.1), "rest": Deployment(*3 * [thirds], 0.1)},
    )
    external = _external()
    one = make_answers(answers[0].run, external, external.labels, plan)
    content = describe([one], _other(), None, resamples=100)
    for shown in ("\n".join(text.notes(content)), render_markdown(content), render(content, [one])):
        for stage in ("first", "rest"):
            assert f"seed0: stage {stage}: the temperature is at its bound of 0.1" in shown
    plain = describe(answers[:1], _other(), None, resamples=100)
    assert "temperature" not in " ".join(text.notes(plain))


def test_only_runs_that_differ_in_their_seed_have_a_mean(answers, tmp_path):
    runs = [one.run for one in answers]
    assert differ_by_seed(runs)
    assert not differ_by_seed([runs[0], runs[0]])
    other = write_run(tmp_path / "o", counts=COUNTS, planned=COUNTS["train"], seed=2, loss="focal")
    assert not differ_by_seed([runs[0], read_run(other)])


def test_a_class_that_the_internal_test_lacks_is_refused(answers, monkeypatch):
    run = answers[0].run
    part = run.predictions("test")
    monkeypatch.setitem(run._predictions, "test", part.subset(part.labels != 0))
    with pytest.raises(UserError, match="its test split has no image of a class"):
        _made(run, _external())


def test_a_blind_test_has_the_share_of_each_answer_by_the_class_there(answers):
    # 90 images of Tuberculosis, which the model does not know, count as its COVID.
    other = _other(names=["Tuberculosis", *NAMES[1:]])
    content = describe(answers, other, None, resamples=100)
    (row,) = content["runs"][0]["other_names"]
    there = answers[0].predictions["external"]
    chosen = there.logits.argmax(axis=1)[there.labels == 0]
    assert [row["class"], row["counted_as"]] == ["Tuberculosis", "COVID"]
    assert [row["images"], row["groups"]] == [90, 45]
    for label, name in enumerate(NAMES):
        share = row["shares"][name]
        assert share["estimate"] == pytest.approx((chosen == label).mean())
        assert share["low"] < share["estimate"] < share["high"]
    both = content["mean"]["other_names"][0]["shares"]["COVID"]
    assert both["seeds"] == "random"
    for page in (render_markdown(content), render(content, answers)):
        assert "90 images of Tuberculosis, counted as COVID, are answered COVID " in page
        assert "Classes there of another name" in page


def test_training_data_and_other_pixel_rules_are_noted(content):
    assert "trained on, not one from elsewhere" not in " ".join(text.notes(content))
    changes = rules.changes_between(2, 1)
    assert changes == rules.changes_since(1)
    data = {**content["data"], "is_of_training": True, "changed_rules": changes}
    notes = " ".join(text.notes({**content, "data": data}))
    assert "trained on, not one from elsewhere" in notes
    assert "decode some files in another way (pixel rules, version 2: EXIF" in notes
