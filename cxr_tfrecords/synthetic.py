"""Synthetic chest radiographs, in the layout and class ratio of the public data set.

  python -m cxr_tfrecords.synthetic --output_dir=DIR --synthetic_scale=0.05

They are drawn by formulas and have no clinical meaning: with them the whole job can be tried where
no data may be downloaded. The strength of opacities is near zero in some images, so no classifier
can be perfect. The same seed gives the same images.
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from absl import flags

from cxr_tfrecords.concurrency import temporary
from cxr_tfrecords.concurrency.cores import usable_cores
from cxr_tfrecords.errors import UserError, run_main

FULL_COUNTS = {"COVID": 3616, "Lung_Opacity": 6012, "Normal": 10192, "Viral Pneumonia": 1345}
VERSION = 1
_MARKER = "synthetic.json"
_COPY_EVERY = 85  # about 1.2% exact copies of the first class, as in the public data set
_LARGE_BLOCK = 16 << 20  # bytes


def synthetic_counts(scale: float) -> dict[str, int]:
    """Images of each class: those of the public data set times `scale`, and at least 8."""
    return {name: max(8, round(count * scale)) for name, count in FULL_COUNTS.items()}


def long_tailed_counts(total: int, ratio: float, classes: int) -> list[int]:
    """Images of each class, most frequent first: n_1 ratio^(-c / (classes - 1)), `total` in all
    (the profile of Cui et al. 2019, section 4.2). Every class gets one image at least."""
    weights = ratio ** -np.linspace(0, 1, classes)
    counts = np.maximum(np.rint(total * weights / weights.sum()), 1).astype(int)
    counts[0] += total - counts.sum()
    return counts.tolist()


def render(
    class_name: str, index: int, seed: int = 0, image_size: int = 299
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one radiograph, a pure function of its arguments.

    Returns:
      The image and its lung mask (0 or 255), both uint8 [image_size, image_size].
    """
    if class_name == "COVID" and index % _COPY_EVERY == 1:
        index -= 1  # a copy of the image before it
    key = zlib.crc32(f"{VERSION}/{class_name}/{seed}/{index}".encode())
    rng = np.random.Generator(np.random.Philox(key))
    y, x = _grid(image_size)
    angle = rng.normal(0, 0.05)
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    x, y = (x - rng.normal(0, 0.04)) / rng.uniform(0.9, 1.08), y - rng.normal(0, 0.04)
    body = _soft(_fourth(x / 0.92) + _fourth((y - 0.15) / 1.15), 1.0, 0.08)
    sides = [_lung(x, y, side, rng) for side in (-1, 1)]
    heart = _soft(((x - 0.12) / 0.34) ** 2 + ((y - 0.42) / 0.36) ** 2, 1.0, 0.25)
    lungs = np.maximum(*sides) * (1 - 0.9 * heart)
    image = 0.66 * body - rng.uniform(0.36, 0.46) * lungs + 0.1 * heart
    image += 0.16 * body * np.exp(-((x / 0.1) ** 2))  # spine and mediastinum
    ribs = np.cos(
        (y + 0.35 * x * x * rng.uniform(0.8, 1.3)) * rng.uniform(20, 26) + rng.uniform(0, 6)
    )
    image += 0.05 * body * np.clip(ribs, 0, 1)
    image += _opacity(class_name, x, y, lungs, sides, rng)
    image += rng.normal(0, 0.05) * x + rng.normal(0, 0.05) * y
    image = image * rng.uniform(0.85, 1.15) + rng.normal(0, 0.03)
    image += cv2.GaussianBlur(rng.standard_normal(image.shape, np.float32), (3, 3), 0) * 0.05
    picture = np.clip(image * 255, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        place = (int(image_size * 0.05), int(image_size * 0.12))
        cv2.putText(picture, "R", place, cv2.FONT_HERSHEY_SIMPLEX, image_size / 400, 235, 2)
    return picture, np.where(lungs > 0.5, 255, 0).astype(np.uint8)


@functools.cache
def _grid(image_size: int) -> np.ndarray:
    """y and x of every pixel, from -1 to 1, float32 [2, image_size, image_size]."""
    return np.mgrid[-1 : 1 : image_size * 1j, -1 : 1 : image_size * 1j].astype(np.float32)


def _soft(distance: np.ndarray, edge: float, width: float) -> np.ndarray:
    """1 inside of the edge and 0 outside, with a transition of about `width`."""
    soft = distance - edge  # then changed in place: new arrays take longer than the arithmetic
    soft /= width
    soft *= 4
    np.clip(soft, -30, 30, out=soft)
    np.exp(soft, out=soft)
    soft += 1
    return np.divide(1, soft, out=soft)


def _fourth(values: np.ndarray) -> np.ndarray:
    return values**2 * values**2  # 100 times as fast as values**4


def _lung(x: np.ndarray, y: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    centre, width = side * rng.uniform(0.38, 0.46), rng.uniform(0.26, 0.33)
    top = rng.uniform(0.6, 0.72)
    u = (x - centre) / (width * (1 + 0.25 * np.clip(y, -1, 1)))
    return _soft(u**2 + np.abs((y + 0.05) / top) ** 2.6, 1.0, 0.12)


def _opacity(
    class_name: str,
    x: np.ndarray,
    y: np.ndarray,
    lungs: np.ndarray,
    sides: list[np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """The opacity by which the classes differ; its strength is drawn from a wide distribution."""
    strength = rng.gamma(3.0, 0.085) * (class_name != "Normal")
    if class_name == "Lung_Opacity":  # one dense consolidation, in one lobe
        side = rng.integers(2)
        cx, cy = (-0.42, 0.42)[side] + rng.normal(0, 0.06), rng.uniform(-0.35, 0.4)
        blob = np.exp(-(((x - cx) / 0.2) ** 2 + ((y - cy) / 0.17) ** 2))
        return 1.3 * strength * blob * sides[side]
    coarse = rng.standard_normal((9, 9)).astype(np.float32)
    texture = cv2.resize(coarse, x.shape[::-1], interpolation=cv2.INTER_CUBIC)
    if class_name == "COVID":  # bilateral, peripheral, lower zones, ground glass
        where = _soft(-np.abs(x), -0.36, 0.2) * _soft(-y, 0.05, 0.4)
        return strength * lungs * where * np.clip(0.75 + 0.5 * texture, 0, 1.6)
    fine = rng.standard_normal((60, 60)).astype(np.float32)
    streaks = cv2.resize(fine, x.shape[::-1], interpolation=cv2.INTER_LINEAR)
    hilar = np.exp(-(((np.abs(x) - 0.25) / 0.25) ** 2 + (y / 0.6) ** 2))
    if class_name == "Viral Pneumonia":  # diffuse, reticular, around the hila
        return strength * lungs * (0.5 * hilar + 0.45 * np.abs(streaks))
    return 0.05 * lungs * texture


def write_synthetic(
    root: str,
    *,
    scale: float = 1.0,
    seed: int = 0,
    image_size: int = 299,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Writes `<root>/<Class>/images/*.png` and `<root>/<Class>/masks/*.png`.

    If it fails, nothing is left. If `root` already holds the same set, nothing is written.

    Args:
      workers: number of threads, on which the files do not depend.
      progress: called with (done, total) after every few images.

    Returns:
      Number of images of each class.

    Raises:
      UserError: `root` exists and does not hold this set.
    """
    counts = synthetic_counts(scale)
    wanted = {"version": VERSION, "seed": seed, "image_size": image_size, "counts": counts}
    if os.path.exists(root):
        marker = os.path.join(root, _MARKER)
        existing = None
        if os.path.exists(marker):
            with open(marker) as file:
                existing = json.load(file)
        if existing != wanted:
            raise UserError(f"{root} exists and is not this synthetic set: remove or rename it")
        return counts
    tasks = [(name, index) for name, count in counts.items() for index in range(count)]
    with temporary.replacing_folder(root) as whole:
        for name in counts:
            for folder in ("images", "masks"):
                os.makedirs(os.path.join(whole, name, folder))

        def write(task: tuple[str, int]) -> None:
            name, index = task
            for folder, pixels in zip(
                ("images", "masks"), render(name, index, seed, image_size), strict=True
            ):
                path = os.path.join(whole, name, folder, f"{name}-{index + 1}.png")
                if not cv2.imwrite(path, pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
                    raise UserError(f"cannot write {path}: check that the disk is not full")

        # Until a block as large as this one has been freed once, the C library (glibc) gives freed
        # memory back to the system and asks for it again with every array: a quarter of the time.
        np.empty(_LARGE_BLOCK, np.uint8)
        with ThreadPoolExecutor(workers or usable_cores()) as pool:
            for done, _ in enumerate(pool.map(write, tasks), 1):
                if progress and (done % 16 == 0 or done == len(tasks)):
                    progress(done, len(tasks))
        with open(os.path.join(whole, _MARKER), "w") as file:
            json.dump(wanted, file)
    return counts


def main(argv: list[str]) -> None:
    del argv
    counts = write_synthetic(
        flags.FLAGS.output_dir, scale=flags.FLAGS.synthetic_scale, seed=flags.FLAGS.seed
    )
    print(f"{flags.FLAGS.output_dir}: {counts}")


if __name__ == "__main__":
    flags.DEFINE_string("output_dir", "data/synthetic-radiographs", "Folder to write.")
    flags.DEFINE_float("synthetic_scale", 1.0, "Images of each class, times 3616/6012/10192/1345.")
    flags.DEFINE_integer("seed", 0, "Another seed draws other images.")
    run_main(main)
