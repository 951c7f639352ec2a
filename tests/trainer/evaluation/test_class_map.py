"""Names of classes of one data set and of another."""

import pytest

from cxr_tfrecords.errors import UserError
from trainer.evaluation.class_map import map_labels, map_names, parse_class_map

THEIRS = ["Healthy", "Pneumonia", "Bacterial", "Device", "COVID"]
OURS = ["COVID", "Normal", "Viral Pneumonia"]
ITEMS = [
    *("Healthy:Normal", "Pneumonia:Viral Pneumonia", " Bacterial : Viral Pneumonia "),
    "Device:",
]


def test_classes_are_renamed_merged_and_left_out():
    mapping = parse_class_map(ITEMS, "map_classes")
    names = ["Normal", "Viral Pneumonia", "Viral Pneumonia", "", "COVID"]
    assert map_names(THEIRS, mapping, "map_classes") == names
    assert map_labels(THEIRS, mapping, OURS, "map_classes") == [1, 2, 2, None, 0]


def test_without_a_mapping_names_must_be_the_same_in_any_order():
    assert parse_class_map([], "map_classes") == {}
    assert map_labels(["Normal", "COVID"], {}, OURS, "map_classes") == [1, 0]


@pytest.mark.parametrize("item", ["Healthy", ":Normal", "a:b:c", "", "Device:x"])
def test_an_item_that_is_no_pair_or_comes_twice_is_refused(item):
    with pytest.raises(UserError, match=r"--map_classes: .* must be FROM:TO"):
        parse_class_map(["Device:", item], "map_classes")


def test_unknown_classes_are_refused_with_both_lists():
    with pytest.raises(UserError, match="no class Sick; its classes are Healthy, Pneumonia"):
        map_labels(THEIRS, {"Sick": "COVID"}, OURS, "map_classes")
    with pytest.raises(UserError) as caught:
        map_labels(["Sick", "COVID", "Healthy"], {"Healthy": "Fine"}, OURS, "map_classes")
    message = str(caught.value)
    assert "Sick, Healthy (mapped to Fine). The data set has the classes Sick, COVID" in message
    assert "the model has COVID, Normal, Viral Pneumonia" in message
    assert "--map_classes='Sick:'" in message
    with pytest.raises(UserError, match="leaves all classes"):
        map_labels(["COVID"], {"COVID": ""}, OURS, "map_classes")
