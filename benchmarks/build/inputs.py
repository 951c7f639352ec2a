"""Folders of exactly N radiographs for the build benchmark, made once and kept.

The pixels lie in one place; a folder of fewer images is made of hard links to them.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from cxr_tfrecords.concurrency.cores import usable_cores
from cxr_tfrecords.quotas import apportion
from cxr_tfrecords.synthetic import FULL_COUNTS, render, synthetic_counts, write_synthetic

SIDE = 299  # as in the public data set
_NOISE_SIDE, _NOISE_STRENGTH = 16, 25


def class_counts(images: int) -> dict[str, int]:
    """Exactly so many images in the public data set's class ratio (largest remainders)."""
    total = sum(FULL_COUNTS.values())
    exact = np.array([images * count / total for count in FULL_COUNTS.values()])
    return dict(zip(FULL_COUNTS, apportion(exact, images).tolist(), strict=True))


def synthetic_folder(work_dir: str, images: int) -> str:
    """Path of a folder of so many synthetic radiographs, `<Class>/images/*.png`."""
    folder = os.path.join(work_dir, f"synthetic-{images}")
    if not os.path.exists(folder):
        scale = _scale_of(class_counts(images))
        whole = os.path.join(work_dir, f"synthetic-scale-{scale:.4f}")
        write_synthetic(whole, scale=scale)
        link_folder(whole, folder, images)
    return folder


def _scale_of(counts: dict[str, int]) -> float:
    """The first scale, in steps of 2%, that has at least these counts."""
    scale = sum(counts.values()) / sum(FULL_COUNTS.values())
    while any(synthetic_counts(scale)[name] < count for name, count in counts.items()):
        scale *= 1.02
    return scale


def distinct_folder(work_dir: str, images: int, largest: int) -> str:
    """Path of a folder of images that are no near-duplicates, made much faster than radiographs.

    Args:
      largest: images of the largest such folder that will be asked for; all are linked from it.
    """
    whole = os.path.join(work_dir, f"distinct-{largest}")
    if not os.path.exists(whole):
        _replacing(whole, lambda temporary: _write_distinct(temporary, largest))
    if images == largest:
        return whole
    folder = os.path.join(work_dir, f"distinct-{images}")
    if not os.path.exists(folder):
        link_folder(whole, folder, images)
    return folder


def distinct_image(base: np.ndarray, index: int) -> np.ndarray:
    """`base` rolled, under coarse noise of its own.

    Rolling alone gives other pixels, but neighbours that a perceptual hash calls the same; the
    noise decides the low frequencies that such hashes look at.
    """
    rng = np.random.Generator(np.random.Philox(zlib.crc32(f"distinct/{index}".encode())))
    rolled = np.roll(base, rng.integers(0, SIDE, 2).tolist(), axis=(0, 1))
    coarse = rng.standard_normal((_NOISE_SIDE, _NOISE_SIDE)).astype(np.float32) * _NOISE_STRENGTH
    noise = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.clip(rolled + noise, 0, 255).astype(np.uint8)


def _write_distinct(folder: str, images: int) -> None:
    base, _ = render("Normal", 0, image_size=SIDE)
    base = base.astype(np.float32)
    tasks = []
    for name, count in class_counts(images).items():
        os.makedirs(os.path.join(folder, name, "images"))
        tasks += [os.path.join(folder, name, "images", f"{i:06d}.png") for i in range(count)]

    def write(task: tuple[int, str]) -> None:
        index, path = task
        pixels = distinct_image(base, index)
        if not cv2.imwrite(path, pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise OSError(f"cannot write {path}: is the disk full?")

    with ThreadPoolExecutor(usable_cores()) as pool:
        for _ in pool.map(write, enumerate(tasks)):
            pass


def link_folder(source: str, target: str, images: int) -> None:
    """Makes `target` of hard links to the first images of each class of `source`."""

    def link(temporary: str) -> None:
        for name, count in class_counts(images).items():
            originals = os.path.join(source, name, "images")
            linked = os.path.join(temporary, name, "images")
            os.makedirs(linked)
            for file in sorted(os.listdir(originals))[:count]:
                os.link(os.path.join(originals, file), os.path.join(linked, file))

    _replacing(target, link)


def _replacing(target: str, make: Callable[[str], None]) -> None:
    """Makes a folder under another name first: what stands under `target` is always whole."""
    temporary = f"{target}.tmp-{os.getpid()}"
    os.makedirs(temporary)
    try:
        make(temporary)
        os.rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def read_all(folder: str) -> None:
    """Reads every file once, so that no system pays for a cold page cache."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                while file.read(1 << 20):
                    pass
