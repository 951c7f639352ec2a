"""The command, from a data set to the page, and trainer.predict with its folder."""

import csv
import json

import numpy as np
import pytest

from cxr_tfrecords.errors import UserError
from tests.helpers import write_dataset
from tests.trainer import processes
from trainer.cascades import description, stage_runs
from trainer.evaluation.predictions import read_predictions
from trainer.runs.finished_run import read_run

COUNTS = {"train": (16, 16, 24, 12), "validation": (6, 6, 8, 4), "test": (7, 6, 9, 4)}


@pytest.mark.slow
def test_a_cascade_is_trained_evaluated_and_predicts(tmp_path):
    data = write_dataset(tmp_path / "set", COUNTS)
    folder = tmp_path / "cascade"
    stages = ["first: Normal, Sick", "Sick: COVID, Other=Viral Pneumonia+Lung_Opacity --seed=1"]
    flags = [f"--data_dir={data.path}", "--epochs=1", "--batch_size=8", "--resamples=100"]
    command = [f"--cascade_dir={folder}", *(f"--stage={stage}" for stage in stages), *flags]
    done = processes.run("trainer.cascade", *command)
    assert done.returncode == 0, done.stderr
    assert "On 26 test images of 3 classes the cascade has a balanced accuracy of" in done.stdout

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
    assert (folder / "tree.png").stat().st_size > 5000

    # The same command trains nothing again; a flat model of other classes is refused.
    flat = read_run(str(folder / "Sick"))
    with pytest.raises(UserError, match=r"does not decide among COVID, Other, Normal .*--map_clas"):
        stage_runs.check_flat(flat, cascade, stage_runs.leaf_data(cascade, data))
    images = tmp_path / "images"
    images.mkdir()
    _write_test_images(data, images)
    out = tmp_path / "out.csv"
    done = processes.run(
        *("trainer.predict", f"--model={folder}", f"--input={images}", f"--output={out}"),
        "--ood_method=none",
    )
    assert done.returncode == 0, done.stderr
    with open(out, encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for identity, logits in zip(test.ids, test.logits, strict=True):
        row = rows[identity.replace("/", "_")]
        assert [np.float32(row[f"logit_{name}"]) for name in names] == logits.tolist()
        assert row["class"] == names[logits.argmax()]
        assert sum(float(row[f"calibrated_{name}"]) for name in names) == pytest.approx(1, abs=1e-5)


def _write_test_images(data, folder):
    from cxr_tfrecords import records, tfrecord

    for shard in data.split_shards("test"):
        for serialized in tfrecord.read_records(shard.path):
            record = records.parse_record(serialized)
            (folder / record.filename.replace("/", "_")).write_bytes(record.encoded)
