"""Images in folders below a class folder: read with --recursive, else counted or refused."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from beam_pipelines.folders.listing import NOT_A_FILE
from beam_pipelines.inputs import sources
from beam_pipelines.settings.call import BuildCall
from beam_pipelines.settings.config import BuildConfig
from beam_pipelines.shards import inspection
from cxr_tfrecords.errors import UserError


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"12345")
    return root


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "in", "A/p1/1.png", "A/p2/s1/IM0001", "B/Images/1.png", "B/2.dcm")


def find(root, **how):
    return sources.find_sources(str(root), **how)


def names(listed):
    return [(file.filename, file.label) for file in listed.listed]


def test_recursive_reads_every_depth(root):
    listed = find(root, recursive=True)
    expected = [("A/p1/1.png", 0), ("A/p2/s1/IM0001", 0), ("B/2.dcm", 1), ("B/Images/1.png", 1)]
    assert names(listed) == expected
    assert all(file.num_bytes == 5 for file in listed.listed)
    assert listed.notes == listed.ignored == ()


def test_recursive_reads_below_folders_of_splits(root, tmp_path):
    shutil.move(root, tmp_path / "whole" / "train")
    listed = find(tmp_path / "whole", recursive=True)
    assert next(iter(listed.listed)).filename == "train/A/p1/1.png"
    assert {file.split for file in listed.listed} == {0}


def test_what_recursive_passes_over_is_counted(root):
    plain = find(root, recursive=True)
    write(root, "A/labels.csv", "A/p1/a.TXT", "A/p1/b.txt", "A/p1/Thumbs.db")
    write(root, "A/p1/Masks/1.png", "B/__MACOSX/1.png", "B/.git/1.png")
    (root / "A" / "p2" / "again").symlink_to(root / "A")  # would be followed for ever
    listed = find(root, recursive=True)
    assert listed.listed.digest == plain.listed.digest
    assert listed.notes == (
        "passed over in class folders: 2 folders (such as A/p1/Masks), "
        "3 files that are no images (.csv 1, .txt 2)",
    )
    assert listed.ignored == (
        *("A/p1/Masks", "A/p1/Thumbs.db", "A/p2/again", "B/.git", "B/__MACOSX"),
    )


def test_masks_have_the_folders_of_their_images(root):
    shutil.rmtree(root / "B")
    write(root, "B/images/p1/1.png", "B/masks/p1/1.png", "B/more/1.png")
    listed = find(root, recursive=True, with_masks=True)
    assert [file.mask for file in listed.listed][-1] == "B/masks/p1/1.png"
    assert names(listed)[-1] == ("B/images/p1/1.png", 1)
    assert "1 folders (such as B/more)" in listed.notes[0]


def test_without_recursive_folders_are_counted_or_name_the_flag(root):
    with pytest.raises(
        UserError, match=r"folder .*/A holds no image, but .*A/p1/1\.png: .* --recurs"
    ):
        find(root)
    write(root, "A/labels.csv")  # no image either
    with pytest.raises(UserError, match=r"--recursive reads images at any depth"):
        find(root)
    write(root, "A/1.png", "A/masks/1.png")
    listed = find(root)
    assert [name for name, _ in names(listed)] == ["A/1.png", "A/labels.csv", "B/2.dcm"]
    (note,) = listed.notes
    assert "3 folders (such as A/p1); --recursive reads them" in note
    (root / "C").mkdir()
    for how in ({}, {"recursive": True}):
        with pytest.raises(UserError, match="C holds no file that can be an image: remove it"):
            find(root, **how)


def test_an_input_dir_above_the_folder_of_classes_is_named_before_recursive(tmp_path):
    """With --recursive alone, names of folders would become diagnoses."""
    root = write(tmp_path / "parent", "papers/x/y/1.png", "papers/notes.txt")
    for name in ("COVID", "Lung_Opacity", "Normal", "Pneumonia", "Viral"):
        write(root, f"radiographs/{name}/images/1.png", f"radiographs/{name}/masks/1.png")
    shutil.rmtree(root / "papers")
    words = "; if COVID, Lung_Opacity, Normal, Pneumonia, … are the classes, give --input_dir="
    with pytest.raises(UserError) as caught:
        find(root)
    assert str(caught.value).endswith(f"{words}{root}/radiographs")
    write(root, "a/inner/A/1.png", "a/inner/B/1.png", "b/only/1.png")
    with pytest.raises(UserError) as caught:
        find(root)
    assert (
        f"such as a/inner/A/1.png: if A, B are the classes, give --input_dir={root}/a/inner. "
        "Otherwise --recursive reads images at any depth"
    ) in str(caught.value)
    shutil.rmtree(root / "a")
    with pytest.raises(UserError, match=rf"b/only.*: if COVID, .*={root}/radiographs\. Otherwise"):
        find(root)
    shutil.rmtree(root / "radiographs")
    write(root, "c/1.png")
    with pytest.raises(UserError, match=r"such as b/only/1\.png: --recursive reads"):
        find(root)
    shutil.move(root, tmp_path / "all" / "train")  # another --input_dir would lose the split
    with pytest.raises(UserError, match=r"1\.png: --recursive reads"):
        find(tmp_path / "all")


def test_an_input_dir_that_is_one_class_names_the_folder_above(tmp_path, monkeypatch):
    root = write(tmp_path / "radiographs", "A/1.png", "B/images/1.png", "B/masks/1.png")
    write(root, "notes/readme.txt")
    (root / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    words = "at least 2 class folders are needed.*; if A, B are the classes, give --input_dir="
    for folder in ("radiographs/A", "radiographs/B", "radiographs/B/"):
        with pytest.raises(UserError, match=f"{words}radiographs$"):
            find(folder)
    monkeypatch.chdir(root / "B")  # its folders images and masks are no classes
    with pytest.raises(UserError, match=f"holds images, masks: {words}{root}$"):
        find(".")
    with pytest.raises(UserError, match=r"in its folder `images`$"):
        find(root / "empty")  # is no class folder itself
    shutil.rmtree(root / "B")
    with pytest.raises(UserError, match=r"in its folder `images`$"):
        find(root / "A")


def test_recursive_is_about_folders():
    with pytest.raises(UserError, match="--recursive reads folders"):
        BuildCall(input_csv="list.csv", recursive=True)


@pytest.mark.parametrize("name", ["archive.zip", "Images.TAR.GZ"])
def test_an_archive_is_named_with_the_hint_to_unpack_it(root, name):
    write(root.parent / "packed", name)
    with pytest.raises(UserError, match=r"is not a folder but an archive: unpack it"):
        find(root.parent / "packed" / name)
    with pytest.raises(UserError, match=rf"2 class folders are needed.*; {name} is an archive"):
        find(root.parent / "packed")
    write(root.parent / "splits", "train/A/1.png", "train/B/1.png", f"test/{name}")
    with pytest.raises(UserError, match=rf"holds no class folder: .*; test/{name} is an archive"):
        find(root.parent / "splits")
    write(root, f"C/{name}")
    with pytest.raises(UserError, match=rf"C holds no file .*; C/{name} is an archive: unpack it"):
        find(root, recursive=True)


def test_archives_beside_images_are_warned_of(root):
    plain = find(root, recursive=True)
    write(root, "C.zip", "A/more.tgz")
    listed = find(root, recursive=True)
    assert listed.listed.digest == plain.listed.digest
    assert listed.notes[-1].startswith("warning: 2 archives are not read, such as A/more.tgz:")
    assert "C.zip (an archive, not unpacked)" in listed.ignored


@pytest.mark.parametrize("recursive", [False, True])
def test_pipes_sockets_devices_and_endless_links_are_never_opened(tmp_path, monkeypatch, recursive):
    root = write(tmp_path / "in", "A/1.png", "B/2.png")
    os.mkfifo(root / "A" / "pipe.png")
    (root / "A" / "endless.png").symlink_to("endless.png")
    (root / "B" / "device.png").symlink_to("/dev/zero")
    monkeypatch.chdir(root / "B")  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
        listed = find(root, recursive=recursive)
    assert names(listed) == [("A/1.png", 0), ("B/2.png", 1)]
    assert [path.removesuffix(NOT_A_FILE) for path in listed.ignored] == [
        *("A/endless.png", "A/pipe.png", "B/device.png", "B/socket.png")
    ]
    assert listed.notes == (
        "warning: 4 pipes, devices, sockets or endless links are not read, such as A/endless.png",
    )
    # A list may name them as well.
    work = inspection.Work(str(root), ("A", "B"), BuildConfig())
    for name in ("A/pipe.png", "B/device.png", "B/socket.png"):
        row, _, _ = inspection.inspect(sources.SourceFile(name, 0), work)
        assert row["reason"] == "unreadable (a pipe, device or socket)"


def test_a_name_that_only_this_locale_cannot_read_is_not_called_wrong(tmp_path):
    (tmp_path / "ä.png").touch()
    code = f"from beam_pipelines.folders.listing import *\nprint(*list_entries({str(tmp_path)!r}))"
    settings = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=False
    )
    assert "Python takes names for ascii here, set PYTHONUTF8=1" in done.stderr
