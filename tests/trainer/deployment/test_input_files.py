"""Which files below --input are predicted."""

import pytest

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
