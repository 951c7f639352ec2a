"""JSON of ours keeps names of any bytes; not every file that others name is opened."""

from __future__ import annotations

import os

import pytest

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError


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


def test_a_folder_that_cannot_be_put_in_place_is_refused_before_the_work(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    files.check_output_dir(str(folder))
    folder.mkdir()
    files.check_output_dir(f"{folder}/")
    with pytest.raises(UserError, match=r"^--output_dir=/proc/1 exists and is not empty"):
        files.check_output_dir("/proc/1")
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"--output_dir=.*file/out: .*file is not a folder: name an"
    ):
        files.check_output_dir(str(tmp_path / "file" / "out"))
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(UserError, match=r"is a mounted disk: name a new folder in it"):
        files.check_output_dir(str(folder))
    monkeypatch.undo()
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))
    with pytest.raises(UserError, match=rf"out: {tmp_path} cannot be written to: name another"):
        files.check_output_dir(str(folder))
