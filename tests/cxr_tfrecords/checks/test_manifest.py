"""An edited manifest.json is refused at its door in one line, or changes nothing."""

import json

import numpy as np
import pytest

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.checks.json_schema import Number, OneOf, Optional, find_problem
from cxr_tfrecords.checks.manifest import dataset_fingerprint, manifest_digest
from cxr_tfrecords.errors import UserError
from tests.damage import edit_json
from tests.helpers import write_dataset

COUNTS = {"train": (3, 4), "validation": (2, 2), "test": (2, 3)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set's folder and its manifest, with the digest that a build adds."""
    folder = tmp_path_factory.mktemp("set")
    write_dataset(folder, COUNTS, image_size=8)
    manifest = json.loads((folder / "manifest.json").read_text())
    return folder, {**manifest, "digest": manifest_digest(manifest)}


def refusal(folder, content):
    """The error's message, or none, of a manifest with this content."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / "manifest.json").write_bytes(data)
    try:
        dataset_dir.read_manifest(str(folder))
    except UserError as error:
        return str(error)
    return ""


def test_each_of_350_edits_is_harmless_or_one_line(whole):
    folder, manifest = whole
    text, rng = json.dumps(manifest), np.random.default_rng(0)
    refused = 0
    for _ in range(350):
        words, data = edit_json(text, rng)
        message = refusal(folder, data)
        if not message:
            assert {**json.loads(data), "digest": ""} == {**manifest, "digest": ""}, words
            continue
        refused += 1
        assert "\n" not in message, words
        assert message.startswith(f"{folder}/manifest.json "), words
        assert message.endswith("build again with --overwrite") or "has format" in message, words
    assert refused > 315


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["class_names"].reverse(), 'shards[0].file is "cxr-train_covid.tfrecord-0'),
        (
            lambda m: [m["class_names"].reverse(), m["class_slugs"].reverse()],
            "class_names (and their order)",
        ),
        (lambda m: m["class_names"].append("COVID"), "class_names is ["),
        (lambda m: m.pop("shards"), "build: shards is missing; restore"),
        (lambda m: m["counts"]["train"].update(COVID=-3), "counts.train.COVID is -3, not a whole"),
        (lambda m: m["counts"]["train"].update(COVID=True), "counts.train.COVID is true, not a"),
        (lambda m: m["counts"]["train"].update(COVID=9), "train.COVID is 9, but num_examples of"),
        (lambda m: m["counts"].pop("test"), 'keys of counts are ["train", "validation"], not'),
        (lambda m: m["config"].update(folds=4), '"train", not one of fold0, fold1, fold2, fold3'),
        (lambda m: m["config"].update(image_size=9), "image.size is 8, but config.image_size is 9"),
        (lambda m: m["pixels"].update(mean=[1.0, 2.0]), "pixels.mean is [1.0, 2.0], not a number"),
        (lambda m: m["pixels"].update(std=[float("nan")]), "pixels.std[0] is NaN, not a finite"),
        (lambda m: m["shards"][0].update(file="../x"), 'shards[0].file is "../x", not another'),
        (lambda m: m["shards"][1].update(split="train2"), 'shards[1].split is "train2", not one'),
        (lambda m: m["sources"].update(found=10**40), "found is a number of more than 19 digits"),
        (lambda m: m["sources"].update(found=99), "sources.found is 99, but written, rejected"),
        (lambda m: m["config"].update(seed=1), "digest is "),
    ],
)
def test_the_message_names_key_and_value(whole, change, message):
    folder, manifest = whole
    changed = json.loads(json.dumps(manifest))
    change(changed)
    assert message in refusal(folder, changed)


def test_a_data_set_of_before_the_digest_is_read(whole):
    folder, manifest = whole
    assert refusal(folder, {key: manifest[key] for key in manifest if key != "digest"}) == ""
    parts = manifest["class_names"], manifest["image"], manifest["shards"]
    assert manifest["fingerprint"] == dataset_fingerprint(*parts)


def test_schemas():
    schema = {"a": [Number(1)], "b?": Optional(OneOf((1, "x")))}
    assert find_problem({"a": [1, 2], "c": 0}, schema) == ""
    assert find_problem({"a": [], "b": None}, schema) == ""
    assert find_problem({"a": [1, 0]}, schema) == "a[1] is 0, not a whole number of at least 1"
    assert find_problem({"a": [], "b": True}, schema) == 'b is true, not one of 1, "x"'
    assert find_problem([], schema) == "the file is [], not an object"
    assert find_problem(2.0, Number(whole=False)) == ""
    assert find_problem(2.0, Number(1, 3)) == "the file is 2.0, not a whole number from 1 to 3"
