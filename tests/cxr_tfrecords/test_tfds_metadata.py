"""TFDS has a name for each class, never one for two classes, and reads splits as wholes."""

import pytest

import cxr_tfrecords
from cxr_tfrecords import dataset_dir, tfds_metadata
from cxr_tfrecords.errors import UserError
from tests.helpers import COUNTS, write_dataset


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["COVID", "Viral Pneumonia"], ("covid", "viral_pneumonia")),
        (["新冠", "正常"], ("class_0", "class_1")),
        (["Норма", "Normal"], ("class_0", "normal")),
        (["COVID+", "COVID-"], ("covid", "class_1")),
        (["class 1", "肺炎", "class_4"], ("class_1", "class_4", "class_2")),
    ],
)
def test_slugs_of_names_in_any_script_are_unique(names, expected):
    assert tfds_metadata.slugs(names) == expected


@pytest.mark.parametrize(
    "names",
    [["Viral Pneumonia", "viral_pneumonia"], ["covid", "COVID"], ["НОРМА", "норма"]],
)
def test_two_names_of_one_class_are_refused(names):
    with pytest.raises(UserError, match=f"classes '{names[0]}' and '{names[1]}' differ only in"):
        tfds_metadata.slugs(names)


@pytest.mark.parametrize("name", ["x" * 201, "肺" * 67])
def test_a_name_too_long_for_a_file_is_refused(name):
    assert len(tfds_metadata.slugs(["A", name[:-1]])) == 2
    with pytest.raises(UserError, match="has a name of 201 bytes"):
        tfds_metadata.slugs(["A", name])


FOLDS = {f"fold{k}": (3, k, 2) for k in range(4)}  # fold0 has no image of the second class


@pytest.mark.parametrize(("counts", "fold"), [(COUNTS, None), (FOLDS, 3)])
def test_tfds_reads_train_validation_and_test(tmp_path, counts, fold):
    import tensorflow_datasets as tfds

    path = write_dataset(tmp_path / "set", counts).path
    tfds_metadata.write_tfds_metadata(path, dataset_dir.read_manifest(path), str(tmp_path))
    data = cxr_tfrecords.load_dataset(path, fold)
    builder = cxr_tfrecords.tfds_builder(path, fold)
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    assert sizes == {split: data.num_examples(split) for split in ("train", "validation", "test")}
    names = {}
    for split, by_class in data.counts.items():
        images = [x["image"] for x in tfds.as_numpy(builder.as_dataset(split=split))]
        labels = [image["class"]["label"] for image in images]
        assert tuple(map(labels.count, range(data.num_classes))) == by_class
        names[split] = {image["filename"] for image in images}
        assert len(names[split]) == sum(by_class)
    assert not names["train"] & names["test"]
    assert len(builder.as_dataset(split="train[:3]+test")) == 3 + sizes["test"]
    assert len(builder.as_dataset(split="all")) == sum(sizes.values())
