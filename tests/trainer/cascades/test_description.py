"""The stages that a user describes as a tree of classes."""

import numpy as np
import pytest

from cxr_tfrecords import files
from cxr_tfrecords.checks import seal
from cxr_tfrecords.errors import UserError
from tests.damage import edit_json
from tests.helpers import CLASS_NAMES, write_dataset
from trainer.cascades import description, stage_runs

FIRST = "first: Normal, Sick --backbone=tiny --dropout=0.1"
SICK = "Sick: Lung_Opacity, Infection"
INFECTION = "Infection: COVID=COVID, Viral=Viral Pneumonia"


def test_stages_are_put_in_order_and_know_the_classes_of_later_ones():
    cascade = description.parse([INFECTION, FIRST, SICK], CLASS_NAMES)
    assert [stage.name for stage in cascade.stages] == ["first", "Sick", "Infection"]
    first, sick, infection = cascade.stages
    assert first.answers["Sick"] == ("Lung_Opacity", "COVID", "Viral Pneumonia")
    assert first.flags == ("--backbone=tiny", "--dropout=0.1")
    assert cascade.class_flags(sick.answers) == (
        ("Lung_Opacity", "Infection"),
        (("COVID", "Infection"), ("Viral Pneumonia", "Infection")),
    )
    assert list(cascade.leaves) == ["Normal", "Lung_Opacity", "COVID", "Viral"]
    assert cascade.path("Viral") == [
        (first, "Sick"),
        (sick, "Infection"),
        (infection, "Viral"),
    ]
    assert cascade.leaves_below("Sick") == ["Lung_Opacity", "COVID", "Viral"]
    assert cascade.leaves_below("Normal") == ["Normal"]
    flat = "'--map_classes=Viral Pneumonia:Viral' --classes=Normal,Lung_Opacity,COVID,Viral"
    assert cascade.flat_flags == flat


def test_classes_that_no_stage_has_are_left_out_even_if_an_answer_has_their_name(tmp_path):
    data = write_dataset(tmp_path / "set")
    cascade = description.parse(["first: Normal, COVID=Viral Pneumonia"], data.class_names)
    assert cascade.left_out == ["COVID", "Lung_Opacity"]
    assert stage_runs.leaf_data(cascade, data).counts["test"] == (7, 2)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "--stage is missing: give it once for each stage"),
        (["Normal, COVID"], "must be NAME: and at least two different answers"),
        (["first: Normal, Normal"], "must be NAME: and at least two different answers"),
        (["first: Normal"], "must be NAME: and at least two different answers"),
        ([FIRST, SICK, SICK], "the stage Sick is there twice"),
        ([FIRST, SICK, "Infection: COVID, Normal"], "the answer Normal is there twice"),
        ([FIRST, "Other: COVID, Lung_Opacity"], "first, Other would be first: the name of every"),
        (["a: b, Normal", "b: a, COVID"], "no stage would be first"),
        ([FIRST, SICK, INFECTION, "a: b, x", "b: a, y"], "no image reaches a, b from first"),
        ([FIRST, SICK], "the data set has no class Infection; its classes are COVID, Lung_"),
        (["first: Normal, a=COVID+Normal"], "the class Normal is in two answers"),
        (["first: Normal, Sick=COVID", SICK, INFECTION], "Sick= gives classes to an answer whose"),
        (["a b: Normal, a_b", "a_b: COVID, Lung_Opacity"], "give one folder (a_b, a_b)"),
        (["first: Normal, COVID --x='"], "No closing quotation"),
        (["..: Normal, COVID"], "the stage '..' cannot have a folder of this name"),
        (["cascade.json: Normal, COVID"], "the stage 'cascade.json' cannot have a folder of this"),
        ([f"{'é' * 101}: Normal, COVID"], "is longer than 200 bytes: shorten it"),
    ],
)
def test_stages_that_make_no_tree_of_the_classes_are_refused(stages, message):
    with pytest.raises(UserError) as caught:
        description.parse(stages, CLASS_NAMES)
    assert message in str(caught.value)


def test_flags_of_a_stage_overrule_those_of_all():
    cascade = description.parse([FIRST, SICK, INFECTION], CLASS_NAMES)
    common = ["--data_dir=d", "--dropout=0.4", "--seed=3"]
    configs = stage_runs.stage_configs(cascade, "out", common)
    assert {name: config.dropout for name, config in configs.items()} == {
        **{"first": 0.1, "Sick": 0.4},
        "Infection": 0.4,
    }
    assert configs["Sick"].classes == ("Lung_Opacity", "Infection")
    assert [config.run_dir for config in configs.values()] == [
        *("out/first", "out/Sick", "out/Infection"),
    ]


@pytest.mark.parametrize(
    ("common", "of_stage", "message"),
    [
        (["--classes=COVID"], "", "--classes: the cascade sets it: leave it out"),
        ([], "--fold=1", "--fold: all stages have the same: give it outside of --stage"),
        ([], "--bogus=1", "unknown flag --bogus"),
        (["--strategy=multi_worker"], "", "train each stage with trainer.main into its folder"),
    ],
)
def test_flags_that_a_cascade_sets_are_refused(common, of_stage, message):
    cascade = description.parse([f"first: Normal, COVID {of_stage}"], CLASS_NAMES)
    with pytest.raises(UserError) as caught:
        stage_runs.stage_configs(cascade, "out", common)
    assert message in str(caught.value)


def _write(folder, cascade, **changes):
    """The part of cascade.json that `read` needs."""
    stages = [{"name": one.name, "answers": one.answers} for one in cascade.stages]
    content = {
        "class_names": list(cascade.leaves),
        "stages": stages,
        "data": {
            **{"left_out": cascade.left_out, "fingerprint": "f"},
            "counts": {split: [3, 2, 4, 1] for split in ("train", "validation", "test")},
        },
    }
    files.write_json(str(folder / "cascade.json"), {**seal.sealed(content), **changes})


def test_an_edited_cascade_is_one_line(tmp_path):
    cascade = description.parse([FIRST, SICK, INFECTION], CLASS_NAMES)
    _write(tmp_path, cascade)
    found, names = description.read(str(tmp_path))
    assert (found.leaves, names) == (cascade.leaves, tuple(cascade.leaves))
    text, rng, refused = (tmp_path / "cascade.json").read_text(), np.random.default_rng(0), 0
    for _ in range(300):
        words, data = edit_json(text, rng)
        (tmp_path / "cascade.json").write_bytes(data)
        message = str(tmp_path / "cascade.json")
        try:
            again = description.read(str(tmp_path))
        except UserError as error:
            again, message = (found, names), str(error)
            refused += 1
        assert again == (found, names), words
        assert message.startswith(str(tmp_path / "cascade.json")), words
        assert "\n" not in message, words
    assert refused > 250


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": ["Normal", "Lung_Opacity", "COVID", 3]},
        {"class_names": ["Normal", "Lung_Opacity", "COVID"]},
        {"stages": [{"name": "first", "answers": {"Normal": "Normal", "Sick": "COVID"}}]},
        {"stages": [{"name": 3, "answers": {"Normal": ["Normal"], "Sick": ["COVID"]}}]},
        {"stages": []},
        {"data": {"left_out": []}},
    ],
)
def test_a_cascade_that_is_none_is_one_line_even_with_a_right_digest(tmp_path, changes):
    cascade = description.parse([FIRST, SICK, INFECTION], CLASS_NAMES)
    _write(tmp_path, cascade)
    content = files.read_json(str(tmp_path / "cascade.json")) | changes
    files.write_json(str(tmp_path / "cascade.json"), seal.sealed(content))
    with pytest.raises(UserError, match=r"cascade\.json is not the file of a cascade"):
        description.read(str(tmp_path))
