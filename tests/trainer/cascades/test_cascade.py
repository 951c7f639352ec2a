"""The command, from a data set to the page, and trainer.predict with its folder."""

import base64
import csv
import json

import numpy as np
import pytest

from cxr_tfrecords import images
from cxr_tfrecords.errors import UserError
from tests.helpers import write_dataset
from tests.trainer import processes
from trainer import Classifier
from trainer.cascades import description, stage_runs
from trainer.evaluation.predictions import read_predictions
from trainer.models.grad_cam import GradCam
from trainer.runs.finished_run import read_run

COUNTS = {"train": (16, 16, 24, 12), "validation": (6, 6, 8, 4), "test": (7, 6, 9, 4)}


STAGES = ["first: Normal, Sick", "Sick: COVID, Other=Viral Pneumonia+Lung_Opacity --seed=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The data set, the folder of a cascade of it, and what the command said."""
    root = tmp_path_factory.mktemp("cascade")
    data = write_dataset(root / "set", COUNTS)
    flags = [f"--data_dir={data.path}", "--epochs=1", "--batch_size=8", "--sampler=oversample"]
    metrics = {"accuracy/first": 0.959, "accuracy/another": 0.5, "auprc/first": 0.5}
    part = {"source": "Authors 2021.", "metrics": metrics, "note": "Few images."}
    (root / "reported.json").write_text(json.dumps({"mine": part}))
    flags.append(f"--recipe={root / 'mine'}")
    command = [f"--cascade_dir={root / 'cascade'}", *(f"--stage={stage}" for stage in STAGES)]
    done = processes.run("trainer.cascade", *command, *flags, "--resamples=100")
    assert done.returncode == 0, done.stderr
    return data, root / "cascade", done.stdout


@pytest.mark.slow
def test_a_cascade_is_trained_evaluated_and_predicts(trained, tmp_path):
    data, folder, shown = trained
    assert "On 26 test images of 3 classes the cascade has a balanced accuracy of" in shown

    runs = {name: read_run(str(folder / name)) for name in ("first", "Sick")}
    cascade, names = description.read(str(folder))
    assert names == ("COVID", "Other", "Normal")
    test = read_predictions(str(folder / "predictions_test.csv"), (7, 10, 9))
    np.testing.assert_allclose(np.exp(test.logits).sum(axis=1), 1, rtol=1e-5)
    # The stages answer to their own images as in their runs.
    inside = {name: run.predictions("test") for name, run in runs.items()}
    first = dict(zip(inside["first"].ids, inside["first"].log_probabilities, strict=True))
    second = dict(zip(inside["Sick"].ids, inside["Sick"].log_probabilities, strict=True))
    assert runs["first"].class_names == ["Sick", "Normal"]
    assert runs["Sick"].class_names == ["COVID", "Other"]
    for identity, logits in zip(test.ids, test.logits, strict=True):
        assert logits[2] == np.float32(first[identity][1])
        if identity in second:
            assert logits[0] == np.float32(first[identity][0] + second[identity][0])
    content = json.loads((folder / "cascade.json").read_text())
    assert content["stages"][1]["belonging"]["images"] == 17
    page = (folder / "cascade.md").read_text()
    for title in ("From end to end", "Stage by stage", "Probabilities", "What was run"):
        assert f"## {title}" in page
    inside = content["stages"][0]["belonging"]["accuracy"]["estimate"]
    assert "the authors report: Authors 2021. Few images." in page
    assert page.count("| 95.9% |") == 1
    assert f"| first | accuracy | 95.9% | {inside:.1%} [" in page
    assert (folder / "tree.png").stat().st_size > 5000

    # The same command trains nothing again; a flat model of other classes is refused.
    flat = read_run(str(folder / "Sick"))
    with pytest.raises(UserError, match=r"does not decide among COVID, Other, Normal .*--map_clas"):
        stage_runs.check_flat(flat, cascade, stage_runs.leaf_data(cascade, data))
    inputs = tmp_path / "images"
    inputs.mkdir()
    _write_test_images(data, inputs)
    out = tmp_path / "out.csv"
    done = processes.run(
        *("trainer.predict", f"--model={folder}", f"--input={inputs}", f"--output={out}"),
        *("--ood_method=none", f"--html={tmp_path / 'page.html'}", "--html_images=2"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").read_text().count("Grad-CAM of") == 2
    with open(out, encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for identity, logits in zip(test.ids, test.logits, strict=True):
        row = rows[identity.replace("/", "_")]
        found = np.array([row[f"logit_{name}"] for name in names], np.float32)
        np.testing.assert_allclose(found, logits, rtol=1e-6)  # other batches: the last bit
        assert row["class"] == names[logits.argmax()]
        assert sum(float(row[f"calibrated_{name}"]) for name in names) == pytest.approx(1, abs=1e-5)

    classifier = Classifier.load(folder, ood_method="none")
    identity, logits = test.ids[0], test.logits[0]
    path = inputs / identity.replace("/", "_")
    answers = classifier.predict([path])
    assert answers.classes == [names[logits.argmax()]]
    np.testing.assert_allclose(answers.logits[0], logits, rtol=1e-6)
    # A leaf of the second stage has the heat map of that stage.
    pixels = classifier.read(path)[np.newaxis]
    expected = GradCam.load(str(folder / "Sick" / "model.keras")).maps(pixels, [1])
    found = classifier.heat_maps(pixels, [names.index("Other")])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(UserError, match=r"cascade is a cascade of .* one run: name .*/first"):
        read_run(str(folder))


@pytest.mark.slow
def test_a_cascade_is_evaluated_elsewhere(trained, tmp_path):
    data, folder, _ = trained
    # Its own test images, as another data set: what it says of them is known.
    flags = ["--map_classes=Viral Pneumonia:Other,Lung_Opacity:Other", "--resamples=100"]
    command = [f"--model={folder}", f"--data_dir={data.path}", f"--output_dir={tmp_path / 'out'}"]
    done = processes.run("trainer.evaluate", *command, *flags)
    assert done.returncode == 0, done.stderr
    paths = (folder / "predictions_test.csv", tmp_path / "out" / "predictions.csv")
    expected, found = (_by_id(read_predictions(str(path))) for path in paths)
    assert found.keys() == expected.keys()
    for identity, (label, logits) in expected.items():
        assert found[identity][0] == label
        np.testing.assert_allclose(found[identity][1], logits, rtol=1e-5)
    whole = json.loads((folder / "cascade.json").read_text())
    (run,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["runs"]
    for variant in ("raw", "calibrated"):
        for place in ("internal", "external"):
            found = run["probabilities"][variant]["log_loss"][place]["estimate"]
            expected = whole["probabilities"][variant]["log_loss"]["estimate"]
            assert found == pytest.approx(expected, rel=1e-5), (variant, place)
    command = [f"--model={folder},{folder}/Sick", f"--output_dir={tmp_path / 'new'}"]
    done = processes.run("trainer.evaluate", *command, f"--data_dir={data.path}")
    assert done.returncode != 0
    assert "is a cascade: name it alone" in done.stderr


@pytest.mark.slow
def test_a_cascade_writes_structured_reports(trained, tmp_path):
    pytest.importorskip("highdicom", reason="needs the extra dicom_sr")
    import pydicom

    from tests.dicom_files import dicom_file

    _, folder, _ = trained
    tags = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1"}
    pixels = np.random.default_rng(0).integers(0, 4096, (40, 40)).astype(np.uint16)
    (tmp_path / "a.dcm").write_bytes(dicom_file(pixels, **tags))
    rows, reports = tmp_path / "rows.csv", tmp_path / "reports"
    done = processes.run(
        *("trainer.predict", f"--model={folder}", f"--input={tmp_path / 'a.dcm'}"),
        *(f"--output={rows}", f"--dicom_sr={reports}", "--ood_method=none"),
    )
    assert done.returncode == 0, done.stderr
    assert "1 structured report in" in done.stdout
    (path,) = reports.iterdir()
    with open(rows, encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert _measured(pydicom.dcmread(path)) == {
        f"Probability of {name}": pytest.approx(float(row[f"calibrated_{name}"]), rel=1e-6)
        for name in ("COVID", "Other", "Normal")
    }


@pytest.mark.slow
def test_a_cascade_is_served(trained, tmp_path):
    """Answers, the warnings of its stages, and heat maps as those of the library."""
    httpx = pytest.importorskip("httpx", reason="the server is asked with httpx")
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    from tests.trainer.test_serve import running
    from trainer.models.grad_cam import overlay

    data, folder, _ = trained
    _write_test_images(data, tmp_path)
    paths = sorted(tmp_path.iterdir())[:4]
    parts = [("files", (path.name, path.read_bytes())) for path in paths]
    with running(folder, "--ood_method=none") as address, httpx.Client(base_url=address) as client:
        model = client.get("/model").json()
        response = client.post("/predict?image=1&heat_map=1", files=parts, timeout=120)
    assert response.status_code == 200, response.text
    assert (model["models"], model["classes"]) == (["cascade"], ["COVID", "Other", "Normal"])
    assert sum(model["target"][0].values()) == pytest.approx(1)
    classifier = Classifier.load(folder, ood_method="none")
    answers = classifier.predict(paths)
    for row, one in enumerate(response.json()["files"]):
        assert one["class"] == answers.classes[row]
        for variant, values in answers.probabilities.items():
            shares = list(one["probabilities"][variant].values())
            np.testing.assert_allclose(shares, values[row], atol=1e-5)
        pixels = images.decode(base64.b64decode(one["image"])).pixels[..., np.newaxis]
        label = model["classes"].index(one["class"])
        expected = overlay(pixels, classifier.heat_maps(pixels[np.newaxis], [label])[0])
        heat = images.decode(base64.b64decode(one["heat_map"])).pixels
        assert np.abs(heat.astype(int) - expected).max() <= 2


def _measured(report):
    """Meaning -> value of all numbers of a structured report."""
    found = {}
    for item in report.get("ContentSequence", []):
        if item.ValueType == "NUM":
            name = item.ConceptNameCodeSequence[0].CodeMeaning
            found[name] = float(item.MeasuredValueSequence[0].NumericValue)
        found |= _measured(item)
    return found


def _by_id(predictions):
    rows = zip(predictions.labels, predictions.logits, strict=True)
    return dict(zip(predictions.ids, rows, strict=True))


def _write_test_images(data, folder):
    from cxr_tfrecords import records, tfrecord

    for shard in data.split_shards("test"):
        for serialized in tfrecord.read_records(shard.path):
            record = records.parse_record(serialized)
            (folder / record.filename.replace("/", "_")).write_bytes(record.encoded)
