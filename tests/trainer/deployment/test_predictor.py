"""A trained model on files: the run's own predictions, again and to the bit."""

import csv
import dataclasses
import json
import os
import shutil

import cv2
import numpy as np
import pytest
from absl.testing import flagsaver

from cxr_tfrecords import images, records, tfrecord
from cxr_tfrecords.errors import TemporaryError, UserError
from tests import crashing_decoder, helpers
from trainer import predict
from trainer.deployment import prediction_rows
from trainer.deployment.decoders import Decoders
from trainer.deployment.image_sources import read_file
from trainer.deployment.predicted_files import predict_files
from trainer.deployment.predictor import Classifier
from trainer.evaluation.predictions import read_predictions
from trainer.models import keras_files
from trainer.runs.finished_run import read_run
from trainer.settings.config import TrainConfig
from trainer.training.run import run

COUNTS = {"train": (8, 12, 20, 4), "validation": (3, 4, 6, 2), "test": (3, 5, 7, 3)}


@dataclasses.dataclass(frozen=True)
class Trained:
    run_dir: str
    data_dir: str
    folder: str  # of the test split's images as files


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from trainer.distribution import strategies

    root = tmp_path_factory.mktemp("trained")
    data = helpers.write_dataset(root / "data", COUNTS)
    folder = root / "test"
    for shard in data.split_shards("test"):
        for serialized in tfrecord.read_records(shard.path):
            record = records.parse_record(serialized)
            path = folder / record.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(record.encoded)
    settings = {"batch_size": 8, "epochs": 2, "sampler": "oversample", "seed": 1}
    # The stored images have 32 px: the model shrinks them, in a run as in a prediction.
    config = TrainConfig(data.path, str(root / "run"), image_size=12, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.runs.report_pictures.write_pictures", lambda run_dir: None)
        patch.setattr("trainer.runs.report.write_report", _write_empty_report)
        run(config, data, strategies.create_strategy("cpu"))
    return Trained(config.run_dir, data.path, str(folder))


def _write_empty_report(run_dir):
    with open(f"{run_dir}/report.md", "w", encoding="utf-8"):
        pass


@pytest.fixture(scope="module")
def classifier(trained):
    return Classifier.load(trained.run_dir)


def _rows(path) -> dict[str, dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_on_its_test_images_a_run_predicts_what_it_predicted_to_the_bit(
    trained, classifier, tmp_path
):
    output = str(tmp_path / "out.csv")
    counts, rejected = predict_files([classifier], trained.folder, output, threads=2)
    rows, known = _rows(output), _rows(f"{trained.run_dir}/predictions_test.csv")
    assert (rejected, sum(counts.values()), rows.keys()) == ({}, 18, known.keys())
    for identity, row in known.items():
        for name in helpers.CLASS_NAMES:
            assert rows[identity][f"logit_{name}"] == row[f"logit_{name}"]
            assert rows[identity][f"raw_{name}"] == row[f"probability_{name}"]
    assert not (tmp_path / "out.csv.part").exists()
    assert not (tmp_path / "out.csv.part.json").exists()


def test_a_path_its_bytes_and_its_pixels_give_the_same_answer(trained, classifier):
    path = f"{trained.folder}/COVID/test-0.png"
    with open(path, "rb") as file:
        data = file.read()
    answers = classifier.predict([path, data, images.decode(data).pixels])
    assert (answers.logits == answers.logits[0]).all()
    for one in (path, data):  # not a list: a text is not taken letter by letter
        np.testing.assert_array_equal(classifier.predict(one).logits, answers.logits[:1])
    known = read_predictions(f"{trained.run_dir}/predictions_test.csv")
    np.testing.assert_array_equal(
        answers.logits[0], known.logits[known.ids.index("COVID/test-0.png")]
    )
    assert answers.classes == [helpers.CLASS_NAMES[answers.logits[0].argmax()]] * 3
    for probabilities in answers.probabilities.values():
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_the_model_of_another_run_is_refused(trained, tmp_path):
    """Its answers would be corrected and cut by the thresholds of this one."""
    run_dir = shutil.copytree(trained.run_dir, tmp_path / "run")
    other = keras_files.load(f"{run_dir}/model.keras")
    other.set_weights([0.5 * weights for weights in other.get_weights()])
    keras_files.save(f"{run_dir}/model.keras", other)
    with pytest.raises(UserError, match=r"model\.keras is not the file that the run's training"):
        Classifier.load(run_dir)


def test_a_model_that_gives_no_numbers_answers_nothing(classifier, monkeypatch):
    monkeypatch.setattr(
        classifier, "_compute", lambda pixels: (np.zeros((len(pixels), 0)), np.full((1, 4), np.nan))
    )
    with pytest.raises(UserError, match="the model gives numbers that are NaN or infinite"):
        classifier.predict_pixels(np.zeros((1, 12, 12, 1), np.uint8), 1)


def test_other_class_shares_change_the_odds_by_their_ratio(trained, classifier):
    image = np.full((50, 40), 90, np.uint8)
    natural = np.array(COUNTS["train"]) / sum(COUNTS["train"])
    target = np.array([0.7, 0.1, 0.1, 0.1])
    there = Classifier.load(trained.run_dir, deploy_prior=target).predict([image])
    here = classifier.predict([image])
    for variant in ("prior_corrected", "calibrated"):
        ratio = there.probabilities[variant] / here.probabilities[variant]
        np.testing.assert_allclose(
            ratio / ratio[0, 0], (target / natural / (0.7 / natural[0]))[None]
        )
    np.testing.assert_array_equal(there.probabilities["raw"], here.probabilities["raw"])


def test_thresholds_have_the_wanted_sensitivity_on_validation(trained):
    validation = read_predictions(f"{trained.run_dir}/predictions_validation.csv")
    for wanted in (0.5, 1.0):
        one = Classifier.load(trained.run_dir, sensitivity=wanted)
        from trainer.evaluation.metrics import log_odds

        above = log_odds(validation.log_probabilities) >= one.thresholds
        for c in range(4):
            assert above[validation.labels == c, c].mean() >= wanted
    everything = Classifier.load(trained.run_dir, sensitivity=0.0)
    assert (everything.thresholds >= one.thresholds).all()


@pytest.mark.slow
def test_sets_have_the_wanted_coverage_on_validation(trained):
    validation = read_predictions(f"{trained.run_dir}/predictions_validation.csv")
    one = Classifier.load(trained.run_dir, coverage=0.7)
    for c, count in enumerate(COUNTS["validation"]):
        own = validation.probabilities[validation.labels == c, c]
        assert (own >= one.set_thresholds[c]).mean() >= 0.7
        assert (one.set_thresholds[c] == 0) == (count < 3)
    everywhere = Classifier.load(trained.run_dir, coverage=0.9)  # too few images for 90%
    assert everywhere.predict([np.full((9, 9), 77, np.uint8)]).in_set.all()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((32, 32), np.float32), "pixels of type float32: give uint8 from 0 to 255"),
        (np.ones((32, 32), np.uint8), "no pixel is above 1"),
        (np.full((2, 32, 32), 9, np.uint8), r"pixels of shape \[2, 32, 32\]: give one image"),
        (np.full((32, 32, 3), (200, 20, 20), np.uint8), "100% of its pixels are coloured"),
        (b"%PDF-1.4", "image 0: not an image"),
        ("no-such-file.png", "no-such-file.png: unreadable"),
    ],
)
def test_what_the_model_was_not_made_for_is_refused(classifier, pixels, message):
    with pytest.raises(UserError, match=message):
        classifier.predict([pixels])


def test_a_coloured_file_is_refused_and_a_tinted_one_is_not(classifier):
    tinted = cv2.imencode(".png", np.full((32, 32, 3), (120, 110, 90), np.uint8))[1].tobytes()
    coloured = cv2.imencode(".png", np.full((32, 32, 3), (20, 110, 190), np.uint8))[1].tobytes()
    assert len(classifier.predict([tinted]).logits) == 1
    with pytest.raises(UserError, match="a photograph, not a radiograph"):
        classifier.predict([coloured])


def test_files_that_cannot_be_used_are_set_aside_and_counted(trained, tmp_path, capsys):
    folder = tmp_path / "in"
    shutil.copytree(trained.folder, folder)
    (folder / "notes.txt").write_text("hello")
    (folder / "Thumbs.db").write_text("x")
    (folder / ".DS_Store").write_text("x")
    (folder / "COVID" / 'a "b",\n.png').write_bytes((folder / "COVID/test-0.png").read_bytes())
    output = tmp_path / "out.csv"
    with flagsaver.flagsaver(
        model=[trained.run_dir], input=str(folder), output=str(output), deploy_prior=[]
    ):
        predict.FLAGS.mark_as_parsed()
        predict.main([])
    printed = capsys.readouterr().out
    assert "19 images: " in printed
    assert "1 file could not be used" in printed
    assert "notes.txt: not an image (starts with b'hello')" in printed
    assert list(_rows(tmp_path / "out_rejected.csv")) == ["notes.txt"]
    rows = _rows(output)
    assert len(rows) == 19
    same = [rows[name]["logit_COVID"] for name in ("COVID/test-0.png", 'COVID/a "b",\n.png')]
    assert float(same[0]) == pytest.approx(float(same[1]), abs=1e-5)


def test_a_file_that_crashes_its_decoder_is_set_aside_with_its_name(
    trained, classifier, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(crashing_decoder.site(tmp_path / "site"))
    monkeypatch.setattr(classifier, "decoders", Decoders(classifier.reading))  # with the site
    folder = tmp_path / "in"
    shutil.copytree(trained.folder, folder)
    # The last one: no other image has another place in its batch for it.
    deadly = folder / "Viral Pneumonia" / "z.png"
    deadly.write_bytes(crashing_decoder.deadly_png())
    reason = "the decoder ended by SIGSEGV: the file is damaged or made to do harm"
    output = tmp_path / "out.csv"
    _, rejected = predict_files([classifier], str(folder), str(output), threads=2)
    assert rejected == {"Viral Pneumonia/z.png": reason}
    predict_files([classifier], trained.folder, str(tmp_path / "without.csv"), threads=2)
    assert output.read_bytes() == (tmp_path / "without.csv").read_bytes()
    with pytest.raises(UserError, match=rf"z\.png: {reason}"):
        classifier.predict([deadly])
    with pytest.raises(UserError, match=f"image 1: {reason}"):
        classifier.predict([folder / "COVID" / "test-0.png", crashing_decoder.deadly_png()])


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(images.BadImageError, match="a pipe, device or socket"):
        read_file(tmp_path / "pipe.png")


def test_a_list_names_images_relative_to_its_folder(trained, classifier, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "images")
    path = tmp_path / "list.csv"
    path.write_text("patient,path\n1,images/COVID/test-1.png\n2,images/gone.png\n")
    _, rejected = predict_files([classifier], str(path), str(tmp_path / "out.csv"), threads=1)
    assert list(_rows(tmp_path / "out.csv")) == ["images/COVID/test-1.png"]
    assert rejected == {"images/gone.png": "unreadable (No such file or directory)"}
    path.write_text("patient\n1\n")
    with pytest.raises(UserError, match="has the columns patient: it needs a column path"):
        predict_files([classifier], str(path), str(tmp_path / "out.csv"), threads=1)


def test_a_stopped_command_goes_on_and_gives_the_same_file(
    trained, classifier, tmp_path, monkeypatch
):
    whole, stopped = str(tmp_path / "whole.csv"), str(tmp_path / "stopped.csv")
    predict_files([classifier], trained.folder, whole, threads=1)
    read: list[str] = []

    def read_until(limit):
        def read_file(path):
            if len(read) == limit:
                raise KeyboardInterrupt
            read.append(path)
            with open(path, "rb") as file:
                return file.read()

        return read_file

    monkeypatch.setattr(prediction_rows, "read_file", read_until(10))
    with pytest.raises(KeyboardInterrupt):
        predict_files([classifier], trained.folder, stopped, threads=1)
    with open(f"{stopped}.part", "a", encoding="utf-8") as file:
        # A row that was cut off in its last number, and so has all columns.
        file.write("Normal/test-9.png,Normal" + ",1" * (len(next(iter(_rows(whole).values()))) - 2))
    read.clear()
    monkeypatch.setattr(prediction_rows, "read_file", read_until(99))
    predict_files([classifier], trained.folder, stopped, threads=1)
    assert len(read) == 18 - 8, "one whole batch of 8 had been written"
    with open(whole) as one, open(stopped) as other:
        assert one.read() == other.read()


def test_rows_are_handed_on_before_the_file_has_its_name(trained, classifier, tmp_path):
    output = tmp_path / "out.csv"
    seen = []

    def finish(rows, folder):
        seen.append((len(_rows(rows)), folder, output.exists()))
        if len(seen) == 1:
            raise KeyboardInterrupt

    arguments = ([classifier], trained.folder, str(output))
    with pytest.raises(KeyboardInterrupt):
        predict_files(*arguments, threads=1, finish=finish)
    predict_files(*arguments, threads=1, finish=finish)
    assert seen == [(18, trained.folder, False)] * 2
    assert output.exists()


def test_a_list_that_was_changed_after_the_stop_is_predicted_anew(trained, classifier, tmp_path):
    listed, output = tmp_path / "list.csv", tmp_path / "out.csv"
    paths = [
        os.path.join(trained.folder, name) for name in ("COVID/test-0.png", "COVID/test-1.png")
    ]

    def stop(rows, folder):
        raise KeyboardInterrupt

    listed.write_text("\n".join(["path", *paths]))
    with pytest.raises(KeyboardInterrupt):
        predict_files([classifier], str(listed), str(output), threads=1, finish=stop)
    listed.write_text(f"path\n{paths[1]}\n")
    predict_files([classifier], str(listed), str(output), threads=1)
    assert list(_rows(output)) == paths[1:], "the row of the file that is no longer listed is gone"


def test_an_address_in_a_list_is_set_aside_with_the_reason(trained, classifier, tmp_path):
    listed = tmp_path / "list.csv"
    path = os.path.join(trained.folder, "COVID/test-0.png")
    listed.write_text(f"path\nhttp://example.org/a.png\n{path}\n")
    counts, rejected = predict_files(
        [classifier], str(listed), str(tmp_path / "out.csv"), threads=1
    )
    assert sum(counts.values()) == 1
    assert "no file system is known" in rejected["http://example.org/a.png"]


def test_two_processes_do_not_write_one_file(trained, classifier, tmp_path):
    output = str(tmp_path / "out.csv")

    def again(rows, folder):
        with pytest.raises(TemporaryError, match=r"is writing to --output=.*out\.csv, wait for"):
            predict_files([classifier], trained.folder, output, threads=1)

    predict_files([classifier], trained.folder, output, threads=1, finish=again)
    assert len(_rows(output)) == 18
    assert os.listdir(tmp_path) == ["out.csv"]


def test_rows_of_another_command_are_not_taken_over(trained, classifier, tmp_path):
    output = str(tmp_path / "out.csv")
    part = tmp_path / "out.csv.part"
    part.write_text("id,class\nCOVID/test-0.png,Normal\n")
    (tmp_path / "out.csv.part.json").write_text(json.dumps({"models": ["another"]}))
    predict_files([classifier], trained.folder, output, threads=1)
    assert len(_rows(output)) == 18


def test_a_folder_without_any_image_leaves_no_file(classifier, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    output = tmp_path / "out.csv"
    with pytest.raises(UserError, match="the folder holds no file"):
        predict_files([classifier], str(folder), str(output), threads=1)
    (folder / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"none of the 1 files can be used; a\.txt: not an image"):
        predict_files([classifier], str(folder), str(output), threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_several_models_give_their_mean_and_how_much_they_disagree(trained, classifier, tmp_path):
    other = Classifier.load(trained.run_dir, deploy_prior=[0.4, 0.2, 0.2, 0.2])
    outputs = [str(tmp_path / f"{name}.csv") for name in ("one", "other", "both")]
    for models, output in zip(([classifier], [other], [classifier, other]), outputs, strict=True):
        predict_files(models, trained.folder, output, threads=1)
    one, two, both = map(_rows, outputs)
    for identity, row in both.items():
        columns = [f"calibrated_{name}" for name in helpers.CLASS_NAMES]
        values = np.array([[float(rows[identity][c]) for c in columns] for rows in (one, two)])
        mean = [float(row[c]) for c in columns]
        np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-6)
        assert float(row["disagreement"]) == pytest.approx(values.std(axis=0).max(), rel=1e-4)
        assert "logit_COVID" not in row


def test_a_run_of_an_earlier_version_asks_its_data_set(trained, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(trained.run_dir, run_dir)
    content = json.loads((run_dir / "config.json").read_text())
    reading = content["dataset"].pop("reading")
    (run_dir / "config.json").write_text(json.dumps(content))
    assert dataclasses.asdict(Classifier.load(run_dir).reading) == reading
    content["dataset"]["path"] = content["config"]["data_dir"] = str(tmp_path / "gone")
    (run_dir / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="does not say how its images were read"):
        Classifier.load(run_dir)


def test_a_run_that_saw_lungs_only_needs_masks(trained, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(trained.run_dir, run_dir)
    content = json.loads((run_dir / "config.json").read_text())
    content["config"]["mask"] = "lungs"
    (run_dir / "config.json").write_text(json.dumps(content))
    assert read_run(str(run_dir)).config.mask == "lungs"
    with pytest.raises(UserError, match="a single file has no lung mask"):
        Classifier.load(run_dir)
