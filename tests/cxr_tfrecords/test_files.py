"""JSON of ours keeps names of any bytes; not every file that others name is opened."""

from __future__ import annotations

import os

import pytest

from cxr_tfrecords import files


def test_file_names_of_any_bytes_come_back_from_json(tmp_path):
    content = {"folder": os.fsdecode(b"r\xf6ntgen \xff"), "name": "röntgen", "ends": "\\udc80"}
    path = str(tmp_path / "settings.json")
    files.write_json(path, content)
    assert files.read_json(path) == content
    assert '"röntgen"'.encode() in files.read_bytes(path)


@pytest.mark.skipif(not os.path.exists("/proc/version"), reason="a file of Linux")
def test_a_file_that_says_that_it_is_empty_is_not_opened(tmp_path):
    """As those of /proc do, where reading some of them waits for ever."""
    (tmp_path / "a.png").symlink_to("/proc/version")
    assert files.read_bytes(str(tmp_path / "a.png"))
    assert not files.read_regular(str(tmp_path / "a.png"))
