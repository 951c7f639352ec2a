"""A view of a data set with other classes: what a build of these classes would have given."""

import numpy as np
import pytest

from cxr_tfrecords.errors import UserError
from tests.helpers import COUNTS, write_dataset
from trainer.input.split_batches import SplitSource
from trainer.settings.chosen_classes import choose_classes
from trainer.settings.config import TrainConfig

# COVID and Viral Pneumonia become one class, and Lung_Opacity is left out.
SICK = {"map_classes": (("COVID", "Sick"), ("Viral Pneumonia", "Sick"))}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("set"), image_size=8)


def view(data, **settings):
    return TrainConfig(data_dir="", **settings).shown(data)


def test_names_counts_and_shards_are_those_of_the_chosen_classes(data):
    chosen = view(data, classes=("Normal", "Sick"), **SICK)
    assert (chosen.class_names, chosen.class_slugs) == (("Sick", "Normal"), ("covid", "normal"))
    covid, _, normal, pneumonia = COUNTS["train"]
    assert chosen.counts["train"] == (covid + pneumonia, normal)
    for split, counts in chosen.counts.items():
        held = [sum(s.num_examples for s in chosen.split_shards(split, k)) for k in (0, 1)]
        assert held == list(counts)
        assert [s.label for s in chosen.split_shards(split)] == [0, 0, 0, 0, 1, 1]


def test_order_of_the_flag_and_of_the_data_set_make_no_difference(data):
    first = view(data, classes=("Normal", "COVID"))
    assert first == view(data, classes=("COVID", "Normal"))
    left_out = (("Lung_Opacity", ""), ("Viral Pneumonia", ""))
    assert first == view(data, map_classes=left_out)


def test_other_classes_are_another_data_set_and_all_classes_are_the_same_one(data):
    assert view(data, classes=data.class_names) == view(data) == data
    views = [view(data, classes=data.class_names[:3]), view(data, **SICK)]
    assert len({data.fingerprint, *(one.fingerprint for one in views)}) == 3
    joined = TrainConfig(data_dir="", **SICK)
    assert joined.shown(views[1]) == views[1]


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_each_record_of_the_classes_is_read_once_with_its_new_label(data, cache):
    source = SplitSource(view(data, classes=("Normal", "Sick"), **SICK), "test", cache=cache)
    elements = [[p.numpy() for p in e] for e in source.evaluation(batch_size=5)]
    labels, index = (np.concatenate([e[k] for e in elements]) for k in (1, 2))
    ids = source.ids()
    assert sorted(index[index >= 0]) == list(range(len(ids)))
    names = {"COVID": 0, "Viral Pneumonia": 0, "Normal": 1}
    for row, label in zip(index, labels, strict=True):
        assert row < 0 or names[ids[row].split("/")[0]] == label
    assert len(set(ids)) == sum(COUNTS["test"]) - COUNTS["test"][1]


@pytest.mark.parametrize(
    ("classes", "class_map", "message"),
    [
        (("COVID", "Flu"), (), "no class Flu; its classes are COVID, Lung_Opacity, Normal, Viral"),
        (("COVID",), (("COVID", "Sick"),), "after --map_classes are Sick, Lung_Opacity"),
        (("COVID", "COVID"), (), "--classes=COVID,COVID leaves COVID, and a classifier needs at"),
        ((), (("Flu", "Sick"),), "--map_classes: the data set has no class Flu"),
        ((), tuple((n, "") for n in ("COVID", "Lung_Opacity", "Normal")), "leaves Viral Pneumonia"),
    ],
)
def test_classes_that_do_not_fit_are_refused(data, classes, class_map, message):
    with pytest.raises(UserError) as caught:
        choose_classes(data, classes, class_map)
    assert message in str(caught.value)
