"""A folder gets its name when it is whole; of two writers one says that it came too late."""

from __future__ import annotations

import os

import pytest

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError


def test_of_two_writers_of_one_folder_the_second_is_told(tmp_path):
    target = str(tmp_path / "out")

    def write_while_another_does():
        with files.replacing_folder(target) as folder:
            (tmp_path / "first").mkdir()
            (tmp_path / "first" / "model").write_text("first")
            os.rename(tmp_path / "first", target)
            with open(os.path.join(folder, "model"), "w") as file:
                file.write("second")

    with pytest.raises(UserError, match=r"/out: another process has written there meanwhile"):
        write_while_another_does()
    assert (tmp_path / "out" / "model").read_text() == "first"
    assert os.listdir(tmp_path) == ["out"]


def test_file_names_of_any_bytes_come_back_from_json(tmp_path):
    content = {"folder": os.fsdecode(b"r\xf6ntgen \xff"), "name": "röntgen", "ends": "\\udc80"}
    path = str(tmp_path / "settings.json")
    files.write_json(path, content)
    assert files.read_json(path) == content
    assert '"röntgen"'.encode() in files.read_bytes(path)
