"""Which files below --input are predicted."""

import pytest

from cxr_tfrecords.errors import UserError
from trainer.deployment.input_files import find_files


@pytest.fixture(params=["local", "memory"])
def make(request, tmp_path):
    """Writes empty files; returns their folder, on the disk and in a store of objects."""

    def write(*names):
        if request.param == "local":
            for name in names:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).touch()
            return str(tmp_path)
        fsspec = pytest.importorskip("fsspec")
        folder = f"memory:/{tmp_path}"
        for name in names:
            with fsspec.open(f"{folder}/{name}", "wb") as file:
                file.write(b"x")
        return folder

    return write


def test_masks_beside_images_are_no_radiographs(make):
    kept = ["COVID/images/1.png", "COVID/images/p/2.png", "masks/3.png", "other/masks/4.png"]
    folder = make(*kept, "COVID/masks/1.png", "COVID/masks/p/2.png")
    assert find_files(folder) == (folder, kept)


def test_what_systems_leave_is_passed_over(make):
    # Synology's file servers keep thumbnails of every image in @eaDir.
    folder = make(
        "a.png", "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "Thumbs.db", ".DS_Store", "#recycle/b.png"
    )
    assert find_files(folder) == (folder, ["a.png"])


def test_what_the_command_itself_has_written_is_no_image(make):
    own = ["p.csv.part", "p.csv.part.json", "p.csv.parts/rows/1.csv", "p.csv"]
    folder = make("p.png", "sub/p.csv.part", *own)
    assert find_files(folder, f"{folder}/p.csv") == (folder, ["p.png", "sub/p.csv.part"])
    assert find_files(folder, "elsewhere.csv")[1] == sorted(["p.png", "sub/p.csv.part", *own])


def test_a_list_without_rows_is_refused(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("path\n")
    with pytest.raises(UserError, match="the list names no file"):
        find_files(str(path))


def test_a_list_with_a_nul_character_is_refused(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(b"path\na\0.png\n")
    with pytest.raises(UserError, match="NUL"):
        find_files(str(path))
