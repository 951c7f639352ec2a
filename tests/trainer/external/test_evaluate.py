"""The command, from a run and a data set to its files, and what it refuses."""

import csv
import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest

from cxr_tfrecords import dataset_dir, images, records, tfrecord
from cxr_tfrecords.checks.manifest import dataset_fingerprint
from cxr_tfrecords.errors import UserError
from tests import helpers
from tests.trainer import fake_run, processes
from trainer.evaluation.predictions import read_predictions
from trainer.external import copies as copies_of_training
from trainer.external.other_data import open_other, read_runs
from trainer.runs.finished_run import read_run

COUNTS = {"train": (8, 12, 20, 4), "validation": (20, 20, 20, 20), "test": (20, 20, 20, 20)}
THERE = {"train": (3, 3, 3, 3), "validation": (2, 2, 2, 2), "test": (5, 4, 6, 3)}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    import keras

    root = tmp_path_factory.mktemp("evaluate")
    data = helpers.write_dataset(root / "own", THERE, seed=5)
    path = fake_run.write_run(
        root / "run",
        counts=COUNTS,
        planned=COUNTS["train"],
        batch_size=8,
        dataset=fake_run.of(data),
    )
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Rescaling(1 / 255, dtype="float32"),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
    ]
    keras.Sequential([keras.Input((32, 32, 1), dtype="uint8"), *layers]).save(f"{path}/model.keras")
    return path


@pytest.fixture
def other(tmp_path):
    """A data set whose class Normal is called Healthy."""
    helpers.write_dataset(tmp_path / "other", THERE)
    path = tmp_path / "other" / "manifest.json"
    manifest = json.loads(path.read_text().replace('"Normal"', '"Healthy"'))
    parts = (manifest[key] for key in ("class_names", "image", "shards"))
    path.write_text(json.dumps({**manifest, "fingerprint": dataset_fingerprint(*parts)}))
    return str(tmp_path / "other")


def _sources(path, splits, differing_bits):
    """Writes sources.csv with a hash for each image, by its class, its number and the place of its
    split in `splits`: random, with some bits turned."""
    manifest = dataset_dir.read_manifest(path)
    rows = []
    for label, name in enumerate(manifest["class_names"]):
        for place, split in enumerate(splits):
            for index in range(manifest["counts"][split][name]):
                rng = np.random.default_rng([label, place, index])
                bits = rng.integers(0, 2, 256).astype(np.uint8)
                bits[:differing_bits] ^= 1
                digest = np.packbits(bits).tobytes().hex()
                stored = f"{helpers.CLASS_NAMES[label]}/{split}-{index}.png"
                rows.append([stored, name, split, "shard", digest])
    with open(f"{path}/sources.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["filename", "class", "split", "shard", "near_hash"], *rows])


def _run(**flags):
    """The command's process, once it has ended."""
    return processes.run(
        "trainer.evaluate", *(f"--{name}={value}" for name, value in flags.items())
    )


def test_every_image_is_predicted_once_and_written_with_the_labels_of_the_run(
    run_dir, other, tmp_path
):
    import keras

    out = tmp_path / "out"
    done = _run(
        model=run_dir,
        data_dir=other,
        output_dir=out,
        map_classes="Healthy:Normal,Lung_Opacity:COVID,Viral Pneumonia:",
        resamples=100,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    assert "On the test split of other, balanced accuracy is " in printed
    assert "note: Left out by --map_classes: Viral Pneumonia (3 images)." in printed
    assert "could not be looked for" in printed
    assert sorted(path.name for path in out.iterdir()) == [
        *("evaluation.html", "evaluation.json", "evaluation.md", "predictions.csv"),
    ]
    written = read_predictions(str(out / "predictions.csv"))
    assert written.labels.tolist() == [0] * 9 + [2] * 6
    pixels, ids = [], []
    for shard in helpers.write_dataset(tmp_path / "same", THERE).split_shards("test"):
        for serialized in tfrecord.read_records(shard.path):
            record = records.parse_record(serialized)
            if record.class_name != "Viral Pneumonia":
                pixels.append(images.decode(record.encoded).pixels.reshape(32, 32, 1))
                ids.append(record.filename)
    assert written.ids == ids
    model = keras.models.load_model(f"{run_dir}/model.keras")
    np.testing.assert_allclose(written.logits, model(np.stack(pixels)), atol=1e-5)
    content = json.loads((out / "evaluation.json").read_text())
    assert content["data"]["classes"] == {
        "COVID": "COVID",
        "Lung_Opacity": "COVID",
        "Healthy": "Normal",
    }
    assert content["runs"][0]["counts"] == {"internal": [20, 0, 20, 0], "external": [9, 0, 6, 0]}
    done = _run(model=run_dir, data_dir=other, output_dir=out)
    assert (done.returncode, "exists and is not empty" in done.stderr) == (2, True)


@pytest.mark.parametrize(("bits", "copies"), [(0, 20), (16, 20), (40, 0)])
def test_copies_of_training_and_validation_images_are_found(run_dir, other, bits, copies):
    run = read_run(run_dir)
    class_map = {"Healthy": "Normal"}
    _sources(run.dataset["path"], ("train", "validation", "test"), 0)
    # 12 of its test images are ours of train.
    _sources(other, ("test", "validation", "train"), bits)
    opened = open_other([run], other, "all", class_map)
    assert (len(opened.copies), opened.unchecked) == (copies, "")
    opened = open_other([run], other, "test", {**class_map, "COVID": ""})
    assert len(opened.copies) == (9 if copies else 0)
    assert all("/test-" in name for name in opened.copies)


def test_the_images_of_each_fold_are_looked_at(run_dir, other, monkeypatch):
    run = read_run(run_dir)
    configs = [dataclasses.replace(run.config, fold=fold) for fold in (0, 1)]
    folds = [dataclasses.replace(run, config=config) for config in configs]
    hashes = [np.full((1, 4), value, np.uint64) for value in (0, 2**64 - 1, 0x5555555555555555)]
    read = (["a", "b", "c"], np.concatenate(hashes))
    monkeypatch.setattr(copies_of_training, "_read_hashes", lambda *_: read)
    trained_on = lambda one: hashes[one.config.fold]  # noqa: E731
    monkeypatch.setattr(copies_of_training, "_read_training_hashes", trained_on)
    found = copies_of_training.find_copies(folds, dataset_dir.load(str(other)), ("test",), ())
    assert found == ({"a", "b"}, "")


def test_the_run_that_a_training_started_from_counts_too(run_dir, other, tmp_path):
    mine = helpers.write_dataset(tmp_path / "mine", THERE, seed=7)
    dataset = {"path": mine.path, "fingerprint": mine.fingerprint, "image_size": 32}
    settings = {"counts": COUNTS, "planned": COUNTS["train"], "dataset": dataset}
    _sources(mine.path, ("train", "validation", "test"), 128)
    _sources(read_run(run_dir).dataset["path"], ("train", "validation", "test"), 0)
    _sources(other, ("test", "validation", "train"), 0)
    alone = read_run(fake_run.write_run(tmp_path / "alone", **settings))
    later = read_run(fake_run.write_run(tmp_path / "later", init_from=run_dir, **settings))
    opened = [open_other([run], other, "test", {"Healthy": "Normal"}) for run in (alone, later)]
    assert [len(one.copies) for one in opened] == [0, 12]


def test_a_list_of_images_that_was_cut_short_is_not_taken_for_whole(run_dir, other):
    run = read_run(run_dir)
    for path in (run.dataset["path"], other):  # whichever list it is
        _sources(run.dataset["path"], ("train", "validation", "test"), 0)
        _sources(other, ("test", "validation", "train"), 0)
        sources = pathlib.Path(path, "sources.csv")
        sources.write_text("".join(sources.read_text().splitlines(keepends=True)[:-12]))
        for text, words in (
            ("".join(sources.read_text().splitlines(keepends=True)[:-12]), "it lists "),
            ("", "it lists 0 images, manifest.json counts"),
            (sources.read_text()[:-9], ""),  # within the last hash
        ):
            sources.write_text(text)
            with pytest.raises(UserError, match=re.escape(f"{sources} is damaged ({words}")):
                open_other([run], other, "all", {"Healthy": "Normal"})


def test_lists_without_hashes_are_told_in_a_note(run_dir, other):
    run = read_run(run_dir)
    _sources(run.dataset["path"], ("train", "validation", "test"), 0)
    _sources(other, ("test", "validation", "train"), 0)
    sources = pathlib.Path(other, "sources.csv")
    rows = [line.split(",") for line in sources.read_text().splitlines()]
    for text, words in (
        ("\n".join(",".join(row[:-1]) for row in rows), "has no perceptual hashes"),
        (None, "is missing"),
    ):
        sources.unlink() if text is None else sources.write_text(text)
        opened = open_other([run], other, "all", {"Healthy": "Normal"})
        assert opened.unchecked == f"{sources} {words}"


def test_images_that_the_run_was_trained_on_are_refused(run_dir):
    run = read_run(run_dir)
    _sources(run.dataset["path"], ("train", "validation", "test"), 0)
    with pytest.raises(UserError, match=r"trained or validated on all 8 images of --split=valid"):
        open_other([run], run.dataset["path"], "validation", {})


def test_images_made_in_another_way_are_refused(run_dir, tmp_path):
    run = read_run(run_dir)
    path = helpers.write_dataset(tmp_path / "large", THERE, image_size=48, channels=3).path
    with pytest.raises(UserError, match=r"built with --image_size=48, --channels=3, .*again from"):
        open_other([run], path, "test", {})
    counts = {f"fold{number}": (1, 1, 1, 1) for number in range(3)}
    folds = helpers.write_dataset(tmp_path / "folds", counts)
    with pytest.raises(UserError, match="give --split=all"):
        open_other([run], folds.path, "test", {})
    opened = open_other([run], folds.path, "all", {"COVID": ""})
    assert sum(map(opened.data.num_examples, opened.splits)) == 9


def test_classes_that_the_model_has_not_are_refused(run_dir, other):
    with pytest.raises(UserError, match=r"no class of the model belongs to Healthy\. The data set"):
        open_other([read_run(run_dir)], other, "test", {})


def test_models_that_do_not_go_together_are_refused(run_dir, tmp_path):
    path = fake_run.write_run(tmp_path / "run", counts=COUNTS, planned=COUNTS["train"])
    with pytest.raises(UserError, match="is not a finished run whose model was kept"):
        read_runs([run_dir, path])
    pathlib.Path(path, "model.keras").touch()
    with pytest.raises(UserError, match="reads images in another way"):
        read_runs([run_dir, path])
    assert [run.path for run in read_runs([run_dir, f"{run_dir}/"])] == [run_dir]
