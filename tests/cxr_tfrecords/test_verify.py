"""Verify passes what is right and names what is wrong."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from cxr_tfrecords import records, tfrecord, verify
from cxr_tfrecords.errors import UserError
from tests.fuzz.structure import wrong_length
from tests.helpers import write_dataset


def rewrite(path, change):
    """Replaces each record of a shard by change(index, record); None drops it."""
    old = [records.parse_record(r) for r in tfrecord.read_records(path)]
    new = [change(index, record) for index, record in enumerate(old)]
    tfrecord.write_records(path, [records.serialize_example(r) for r in new if r])
    return old


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / "set")


def faults(data):
    return verify.verify(data.path).faults


def test_a_sound_directory_passes(data):
    report = verify.verify(data.path)
    assert report.faults == []
    assert (report.images, report.groups["train"]) == (76, 44)


def test_flipped_bit_truncation_and_missing_shard(data):
    flipped, truncated, missing, extra = (data.shards[i].path for i in range(4))
    with open(flipped, "r+b") as file:
        file.seek(40)
        byte = file.read(1)
        file.seek(40)
        file.write(bytes([byte[0] ^ 1]))
    os.truncate(truncated, os.path.getsize(truncated) - 5)
    os.remove(missing)
    os.rename(extra, extra.replace("00001-of", "00007-of"))
    found = faults(data)
    for path in (flipped, truncated, missing, extra.replace("00001-of", "00007-of")):
        assert any(os.path.basename(path) in fault for fault in found), path
    assert any("record 0" in fault and "wrong checksum" in fault for fault in found)


@pytest.mark.parametrize("length", [1 << 50, (1 << 64) - 1])
def test_a_record_length_for_which_there_is_no_memory(tmp_path, length):
    path = str(tmp_path / "shard")
    tfrecord.write_records(path, [b"record"])
    with open(path, "r+b") as file:
        file.write(wrong_length(b"", length))
    with pytest.raises(tfrecord.DamagedRecordError, match="ends inside the record at byte 0"):
        list(tfrecord.read_records(path))


def test_wrong_label_undecodable_and_repeated_record(data):
    shard = data.split_shards("train", 2)[0]

    def change(index, record):
        if index == 0:
            return dataclasses.replace(record, label=1, class_name="Lung_Opacity")
        if index == 1:
            return dataclasses.replace(record, encoded=record.encoded[:50])
        return record

    rewrite(shard.path, change)
    found = " | ".join(faults(data))
    assert "record 0 (Normal/train-0.png): labelled 1 'Lung_Opacity'" in found
    assert "record 1 (Normal/train-1.png): truncated PNG" in found
    assert "not those that were built" in found


def test_a_group_and_a_picture_in_two_splits(data):
    stolen = rewrite(data.split_shards("train", 0)[0].path, lambda i, r: r)[:2]
    for index, group in enumerate([stolen[0].group, "another group"]):
        rewrite(
            data.split_shards("test", 0)[index].path,
            lambda i, r, index=index, group=group: (
                dataclasses.replace(r, encoded=stolen[index].encoded, group=group) if i == 0 else r
            ),
        )
    found = faults(data)
    assert any("its group is in test and, at " in f and "in train" in f for f in found)
    assert any("the same picture is in train" in f for f in found)


def test_exit_codes_and_lines(data):
    command = [sys.executable, "-m", "cxr_tfrecords.verify"]
    good = subprocess.run([*command, data.path], capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr
    assert good.stdout.splitlines()[-1].startswith("OK: ")
    named = [*command, f"--data_dir={data.path}"]
    same = subprocess.run(named, capture_output=True, text=True, check=False)
    assert (same.returncode, same.stdout) == (0, good.stdout)
    manifest = os.path.join(data.path, "manifest.json")
    with open(manifest) as file:
        content = json.load(file)
    content["counts"]["test"]["COVID"] += 1
    content["shards"] = [
        {
            **one,
            "num_examples": one["num_examples"]
            + (one["file"].startswith("cxr-test_covid.tfrecord-00000")),
        }
        for one in content["shards"]
    ]
    for key in ("found", "written"):
        content["sources"][key] += 1
    with open(manifest, "w") as file:
        json.dump(content, file)
    bad = subprocess.run([*command, data.path], capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert "fault: test COVID: 3 images in the shards, 4 in the manifest" in bad.stdout
    none = subprocess.run([*command, "nowhere"], capture_output=True, text=True, check=False)
    assert none.returncode == 2
    assert none.stderr.startswith("error: nowhere does not exist: name the --output_dir of")


def test_what_is_no_data_set_gets_advice_that_fits(tmp_path, data):
    (tmp_path / "images" / "COVID").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        verify.verify(str(tmp_path / "images"))
    assert f"--input_dir={tmp_path}/images --output_dir={tmp_path}/images-tfrecords" in str(
        caught.value
    )
    os.remove(os.path.join(data.path, "manifest.json"))
    with pytest.raises(UserError, match=r"not finished .* run the command that built it again"):
        verify.verify(data.path)
