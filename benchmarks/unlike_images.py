"""Images that are no chest radiographs, or that are shown in another way than they were trained on.

All are uint8, [n, size, size] in gray or [n, size, size, channels] as the radiographs that are
changed, and drawn or cut by one random generator, so that two calls give the same ones. NumPy and
OpenCV; scikit-image and pydicom bring pictures where installed.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from cxr_tfrecords import images
from trainer.audit.conditions import shuffled

_PHOTOGRAPHS = [
    *("astronaut.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "moon.png"),
    *("motorcycle_left.png", "rocket.jpg"),
]
_TEXTURES = ["brick.png", "cell.png", "coins.png", "grass.png", "gravel.png", "ihc.png"]
_PAGES = ["page.png", "text.png"]
# Files that pydicom brings for its own tests: CT and MR slices, and a bone scan of a whole body.
_SLICES = ["693_J2KI", "CT_small", "J2K_pixelrep_mismatch", "MR_small", "examples_overlay"]
_SLICES += ["JPEG2000"]
_FACES = 100  # of lfw_subset, whose other half shows no faces

Image = np.ndarray


def drawn(count: int, size: int, rng: np.random.Generator) -> Iterator[tuple[str, Image]]:
    """(kind, gray images uint8 [count, size, size]) that need no picture."""
    yield "hand (drawn)", np.stack([hand(size, rng) for _ in range(count)])
    noise = rng.normal(128, 50, (count, size, size))
    yield "Gaussian noise", np.clip(noise, 0, 255).astype(np.uint8)
    yield "smooth noise", np.stack([_smooth_noise(size, rng) for _ in range(count)])
    levels = np.linspace(0, 255, count).astype(np.uint8)
    yield "one gray level", np.tile(levels[:, None, None], (1, size, size))


def hand(size: int, rng: np.random.Generator) -> Image:
    """A radiograph of a hand as a sketch, gray uint8 [size, size]: soft tissue with brighter bones
    on black, turned and shifted a little."""
    scale = 4  # drawn larger, so that edges are smooth
    side = scale * size
    picture = np.zeros((side, side), np.float32)
    palm = np.array([0.5, 0.68]) + rng.uniform(-0.03, 0.03, 2)
    tissue, bone = rng.uniform(70, 110), rng.uniform(180, 240)

    def line(start: np.ndarray, end: np.ndarray, width: float, gray: float) -> None:
        first, last = (tuple(int(v) for v in point * side) for point in (start, end))
        cv2.line(picture, first, last, gray, max(1, int(width * side)), cv2.LINE_AA)

    turned = rng.uniform(-0.2, 0.2)
    fingers = []
    for angle, length in ((-1.0, 0.3), (-0.35, 0.46), (-0.1, 0.5), (0.15, 0.46), (0.42, 0.38)):
        direction = np.array([np.sin(angle + turned), -np.cos(angle + turned)])
        root = palm + 0.1 * direction
        fingers.append((root, direction, length * rng.uniform(0.9, 1.1)))
    cv2.circle(picture, tuple(int(v) for v in palm * side), int(0.16 * side), tissue, -1)
    line(palm, palm + np.array([0.0, 0.4]), 0.2, tissue)
    for root, direction, length in fingers:
        line(root, root + length * direction, 0.085, tissue)
    for root, direction, length in fingers:
        ends = np.array([0.0, 0.42, 0.72, 0.95]) * length
        for start, end in itertools.pairwise(ends):
            line(root + (start + 0.015) * direction, root + (end - 0.015) * direction, 0.035, bone)
    for offset in (-0.05, 0.05):  # radius and ulna
        line(palm + np.array([offset, 0.14]), palm + np.array([offset, 0.4]), 0.05, bone)
    small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(small + rng.normal(0, 4, small.shape), 0, 255).astype(np.uint8)


def _smooth_noise(size: int, rng: np.random.Generator) -> Image:
    coarse = rng.uniform(0, 255, (8, 8)).astype(np.float32)
    large = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(large, 0, 255).astype(np.uint8)


def pictures(count: int, size: int, rng: np.random.Generator) -> Iterator[tuple[str, Image]]:
    """(kind, gray images) cut out of the pictures that scikit-image and pydicom bring; nothing of
    a package that is not installed."""
    try:
        import skimage.data
    except ImportError:
        pass
    else:
        folder = os.path.dirname(skimage.data.__file__)
        kinds = {"photographs": _PHOTOGRAPHS, "textures, coins, cells": _TEXTURES}
        for kind, names in {**kinds, "pages of text": _PAGES}.items():
            yield kind, _cuts([_gray(f"{folder}/{name}") for name in names], count, size, rng)
        faces = np.load(os.path.join(folder, "lfw_subset.npy"))[:_FACES]
        small = (255 * faces[:count]).astype(np.uint8)
        yield "faces, 25 px", np.stack([_resized(face, size) for face in small])
    try:
        from pydicom.data import get_testdata_file
    except ImportError:
        return
    paths = [get_testdata_file(f"{name}.dcm", download=False) for name in _SLICES]
    slices = [_gray(str(path)) for path in paths if path]
    yield "slices of CT, MR and a bone scan", _cuts(slices, count, size, rng)


def _gray(path: str) -> Image:
    with open(path, "rb") as file:
        return images.to_channels(images.decode(file.read()).pixels, 1)[:, :, 0]


def _cuts(whole: list[Image], count: int, size: int, rng: np.random.Generator) -> Image:
    """Squares of half to all of a picture's shorter side, of each picture in turn."""
    cuts = []
    for number in range(count):
        picture = whole[number % len(whole)]
        side = int(min(picture.shape) * rng.uniform(0.5, 1))
        top, left = (rng.integers(0, length - side + 1) for length in picture.shape)
        cuts.append(_resized(picture[top : top + side, left : left + side], size))
    return np.stack(cuts)


def _resized(gray: Image, size: int) -> Image:
    return images.resize(gray[:, :, np.newaxis], size)[:, :, 0]


def changed(radiographs: Image, rng: np.random.Generator) -> Iterator[tuple[str, Image]]:
    """(kind, images) of radiographs uint8 [n, size, size, channels] that are shown otherwise."""
    mask = np.zeros(radiographs.shape[1:3], bool)
    mixed = [shuffled(one, mask, str(number)) for number, one in enumerate(radiographs)]
    yield "shuffled patches", np.stack(mixed)
    yield "inverted", 255 - radiographs
    yield "blurred", _each(radiographs, _blurred)
    noisy = radiographs + rng.normal(0, 25, radiographs.shape)
    yield "noise added", np.clip(noisy, 0, 255).astype(np.uint8)
    yield "upper left quarter", _each(radiographs, _quarter)
    yield "turned by 90°", np.rot90(radiographs, axes=(1, 2))
    yield "turned by 180°", radiographs[:, ::-1, ::-1]
    yield "upside down", radiographs[:, ::-1]
    yield "turned by 15°", _each(radiographs, _turned)
    yield "black border, half the size", _each(radiographs, _framed)
    yield "darker", (radiographs * 0.6).astype(np.uint8)
    yield "mirrored left to right", radiographs[:, :, ::-1]


def _each(radiographs: Image, change: Callable[[Image], Image]) -> Image:
    return np.stack([change(one).reshape(one.shape) for one in radiographs])


def _blurred(one: Image) -> Image:
    return cv2.GaussianBlur(one, (0, 0), len(one) / 48)


def _quarter(one: Image) -> Image:
    half = len(one) // 2
    return images.resize(one[:half, :half], len(one))


def _turned(one: Image) -> Image:
    size = len(one)
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), 15, 1)
    return cv2.warpAffine(one, turn, (size, size))


def _framed(one: Image) -> Image:
    half, start = len(one) // 2, len(one) // 4
    framed = np.zeros_like(one)
    framed[start : start + half, start : start + half] = images.resize(one, half)
    return framed
