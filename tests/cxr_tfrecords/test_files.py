"""JSON of ours keeps names of any bytes, and refuses what it could not have written."""

from __future__ import annotations

import os

from cxr_tfrecords import files


def test_file_names_of_any_bytes_come_back_from_json(tmp_path):
    content = {"folder": os.fsdecode(b"r\xf6ntgen \xff"), "name": "röntgen", "ends": "\\udc80"}
    path = str(tmp_path / "settings.json")
    files.write_json(path, content)
    assert files.read_json(path) == content
    assert '"röntgen"'.encode() in files.read_bytes(path)
