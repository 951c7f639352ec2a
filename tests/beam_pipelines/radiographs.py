"""A small folder of radiograph-like files, good and bad, for the build's tests."""

from __future__ import annotations

import pathlib
import shutil

import numpy as np
from PIL import Image

from tests.helpers import tiny_image

CLASSES = {"COVID": 12, "Normal": 18, "Viral Pneumonia": 10}


def write_radiographs(root: pathlib.Path, classes=CLASSES, *, nested: bool = True) -> pathlib.Path:
    """Writes `<root>/<class>/images/*.png` (or without `images`), 40 px, seeded."""
    for label, (name, count) in enumerate(classes.items()):
        folder = root / name / "images" if nested else root / name
        folder.mkdir(parents=True)
        rng = np.random.default_rng(label)
        for index in range(count):
            pixels = tiny_image(label, rng, 40, 1)[:, :, 0]
            Image.fromarray(pixels).save(folder / f"{name}-{index}.png")
    return root


def add_bad_files(folder: pathlib.Path) -> dict[str, str]:
    """Adds one file of each kind of damage; returns file name -> a part of the reason."""
    good = sorted(folder.glob("*.png"))[0]
    data = good.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 4
    (folder / "zero.png").write_bytes(b"")
    (folder / "text.png").write_text("not a radiograph")
    (folder / "truncated.png").write_bytes(data[: len(data) // 2])
    (folder / "flipped.png").write_bytes(bytes(flipped))
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    Image.new("L", (900, 900)).save(folder / "huge.png")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(folder / "picture.ppm")
    return {
        "zero.png": "empty file",
        "text.png": "not an image",
        "truncated.png": "truncated PNG",
        "flipped.png": "damaged PNG: wrong checksum",
        "dangling.png": "unreadable (No such file",
        "huge.png": "900 x 900 pixels are more than --max_pixels",
        "picture.ppm": "format PPM is not supported",
    }


def add_copies(root: pathlib.Path) -> None:
    """Adds a byte copy, a pixel copy in another format, and a copy in another class."""
    covid = root / "COVID" / "images"
    shutil.copy(covid / "COVID-0.png", covid / "copy.png")
    Image.open(covid / "COVID-1.png").convert("RGB").save(covid / "recoded.png")
    shutil.copy(covid / "COVID-2.png", root / "Normal" / "images" / "conflict.png")
