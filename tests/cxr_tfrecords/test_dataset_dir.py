"""The directory's contract: records round trip, metadata is enough, TFDS reads it."""

import os
import re
import shlex
import struct

import pytest
import tensorflow as tf

from cxr_tfrecords import dataset_dir, records, tfds_metadata, tfrecord
from cxr_tfrecords.errors import UserError
from tests.helpers import COUNTS, write_dataset


@pytest.mark.parametrize(("encoding", "channels"), [("png", 1), ("raw", 3), ("jpeg", 1)])
def test_tfds_and_our_parser_read_the_same(tmp_path, encoding, channels):
    import tensorflow_datasets as tfds

    data = write_dataset(tmp_path / "set", encoding=encoding, channels=channels)
    tfds_metadata.write_tfds_metadata(data.path, dataset_dir.read_manifest(data.path), "")
    builder = tfds.builder_from_directory(data.path)
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    assert sizes == {
        f"{split}_{slug}": count
        for split, counts in COUNTS.items()
        for slug, count in zip(data.class_slugs, counts, strict=True)
    }
    by_tfds = {
        example["image"]["filename"].decode(): example["image"]
        for example in tfds.as_numpy(builder.as_dataset(split="train_covid+train_viral_pneumonia"))
    }
    ours = [
        records.parse_example(serialized, data)
        for shard in (*data.split_shards("train", 0), *data.split_shards("train", 3))
        for serialized in tf.data.TFRecordDataset(shard.path)
    ]
    assert len(ours) == len(by_tfds) == 12
    for example in ours:
        theirs = by_tfds[example["id"].numpy().decode()]
        assert (example["image"].numpy() == theirs["encoded"]).all()
        assert example["label"] == theirs["class"]["label"]


def test_load_needs_no_shard_to_be_read(tmp_path):
    data = write_dataset(tmp_path / "set")
    for shard in data.shards:  # same size, no content
        with open(shard.path, "r+b") as file:
            file.write(b"\0" * shard.num_bytes)
    again = dataset_dir.load(data.path)
    assert again.counts == COUNTS
    assert again.num_examples("train") == 44
    assert [s.label for s in again.split_shards("test")] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_record_round_trip_is_deterministic():
    record = records.Record(b"\x00pixels", 2, "Normal", "a/ü.png", "ab", "cd", 299, 301, "PNG")
    data = records.serialize_example(record)
    assert records.parse_record(data) == record
    assert data == records.serialize_example(records.parse_record(data))
    with pytest.raises(ValueError, match="not a radiograph record"):
        records.parse_record(b"\xff\xff")


def test_an_error_while_writing_leaves_no_file(tmp_path):
    def broken():
        yield b"one"
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        tfrecord.write_records(str(tmp_path / "shard"), broken())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("length", [2**26 + 1, 2**40, 2**63, 2**64 - 1])
def test_a_record_of_a_length_beyond_its_file_takes_no_memory(tmp_path, length):
    header = struct.pack("<Q", length)
    checksum = struct.pack("<I", tfrecord._masked_crc(header))
    (tmp_path / "shard").write_bytes(header + checksum + bytes(100))
    with pytest.raises(tfrecord.DamagedRecordError, match="ends inside the record at byte 0"):
        list(tfrecord.read_records(str(tmp_path / "shard")))


@pytest.mark.parametrize("damage", ["missing", "truncated", "no manifest", "damaged manifest"])
def test_a_damaged_directory_is_named(tmp_path, damage):
    data = write_dataset(tmp_path / "set")
    shard, manifest = data.shards[0].path, tmp_path / "set" / "manifest.json"
    expected = f"shard {shard} "
    if damage == "missing":
        os.remove(shard)
    elif damage == "truncated":
        os.truncate(shard, data.shards[0].num_bytes - 3)
    elif damage == "no manifest":
        manifest.unlink()
        expected = "manifest.json is missing"
    else:
        manifest.write_text("{")
        expected = "manifest.json is damaged"
    with pytest.raises(UserError, match=re.escape(expected)) as caught:
        dataset_dir.load(data.path)
    assert ("or this command if the data set grew" in str(caught.value)) == ("shard" in expected)


FOLDS = {"fold0": (3, 4), "fold1": (3, 5), "fold2": (4, 4), "fold3": (3, 4)}


def test_a_fold_is_a_view_with_training_validation_and_test(tmp_path):
    path = write_dataset(tmp_path / "set", FOLDS).path
    data = dataset_dir.load(path, 3)
    assert data.counts == {"train": (7, 9), "validation": (3, 4), "test": (3, 4)}
    assert (data.folds, data.fold) == (4, 3)
    names = [os.path.basename(shard.path).split(".")[0] for shard in data.split_shards("train")]
    assert names == [
        *("cxr-fold1_covid", "cxr-fold1_covid", "cxr-fold2_covid", "cxr-fold2_covid"),
        *("cxr-fold1_lung_opacity",) * 2,
        *("cxr-fold2_lung_opacity",) * 2,
    ]
    assert {s.split: s.path[-40:] for s in data.shards}.keys() == {"train", "validation", "test"}
    # Of folds 1 and 2 alone: the pixels 100, 120, 110, 130.
    assert data.mean == (115.0,)
    assert data.std == (round(125**0.5, 6),)
    everywhere = [dataset_dir.load(path, fold) for fold in range(4)]
    tested = [shard.path for data in everywhere for shard in data.split_shards("test")]
    assert sorted(tested) == sorted(shard.path for shard in data.shards)


def test_the_fold_must_fit_the_data_set(tmp_path):
    path = write_dataset(tmp_path / "folds", FOLDS).path
    with pytest.raises(UserError, match=r"--folds=4, and no --fold is given.*from 0 to 3"):
        dataset_dir.load(path)
    with pytest.raises(UserError, match=r"--fold=4 is not one of them.*from 0 to 3"):
        dataset_dir.load(path, 4)
    path = write_dataset(tmp_path / "splits").path
    with pytest.raises(UserError, match=r"--fold=0: .* has no folds: leave --fold out"):
        dataset_dir.load(path, 0)


def test_the_command_that_builds_from_a_folder_can_be_pasted_whatever_the_name(tmp_path):
    folder = tmp_path / "my X-rays; 1"
    (folder / "COVID").mkdir(parents=True)
    with pytest.raises(UserError) as refused:
        dataset_dir.load(str(folder))
    command = str(refused.value).rpartition("from its images: ")[2]
    assert shlex.split(command)[3:] == [f"--input_dir={folder}", f"--output_dir={folder}-tfrecords"]
