"""How far the perceptual hash of a radiograph moves when the image is changed, and what is found.

  python -m benchmarks.near_duplicates --input_dir=DIR [--json=FILE]

Each image is stored as a build would store it (gray, --image_size), changed in one way, and stored
again; the table tells how many of 256 bits differ and which share lies within the default distance.
The last lines tell how far apart different images are: what the distance must stay below.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from absl import flags

from beam_pipelines.inputs.sources import find_sources
from cxr_tfrecords import enhance, files, images, near_duplicates
from cxr_tfrecords.errors import run_main
from cxr_tfrecords.pages.markdown import markdown_table

FLAGS = flags.FLAGS

_NEAR = near_duplicates.DEFAULT_MAX_DISTANCE


def _jpeg(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(gray: np.ndarray) -> np.ndarray:
        _, data = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))

    return change


def _resized(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return lambda gray: cv2.resize(gray, None, fx=factor, fy=factor, interpolation=how)


def _scaled(factor: float, offset: float = 0) -> Callable[[np.ndarray], np.ndarray]:
    return lambda gray: np.clip(gray * factor + offset, 0, 255).astype(np.uint8)


def _gamma(exponent: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda gray: (255 * (gray / 255) ** exponent).astype(np.uint8)


def _cropped(share: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(gray: np.ndarray) -> np.ndarray:
        top, left = (int(side * share) for side in gray.shape)
        return gray[top : gray.shape[0] - top, left : gray.shape[1] - left]

    return change


def _rotated(degrees: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(gray: np.ndarray) -> np.ndarray:
        height, width = gray.shape
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        return cv2.warpAffine(gray, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)

    return change


def _marked(gray: np.ndarray) -> np.ndarray:
    marked = gray.copy()
    size = gray.shape[0] / 300
    cv2.putText(marked, "R 1234", (5, int(40 * size)), cv2.FONT_HERSHEY_SIMPLEX, size, 255, 2)
    return marked


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "half the size": _resized(0.5),
    "a third of the size": _resized(1 / 3),
    "twice the size": _resized(2),
    "JPEG quality 90": _jpeg(90),
    "JPEG quality 50": _jpeg(50),
    "JPEG quality 20": _jpeg(20),
    "brightness - 10%": _scaled(0.9),
    "brightness + 10%": _scaled(1.1),
    "brightness + 20 levels": _scaled(1, 20),
    "contrast - 20%": _scaled(0.8, 25),
    "gamma 0.8": _gamma(0.8),
    "gamma 1.25": _gamma(1.25),
    "text burned in": _marked,
    "1% cropped on each side": _cropped(0.01),
    "3% cropped on each side": _cropped(0.03),
    "rotated by 1 degree": _rotated(1),
    "rotated by 3 degrees": _rotated(3),
    "CLAHE": lambda gray: enhance.enhance(gray[:, :, None], "clahe")[:, :, 0],
    "histogram equalised": lambda gray: enhance.enhance(gray[:, :, None], "histogram")[:, :, 0],
    "mirrored": lambda gray: gray[:, ::-1],
    "complement": lambda gray: 255 - gray,
}


def _hash(gray: np.ndarray, size: int) -> np.ndarray:
    stored = images.resize(np.ascontiguousarray(gray)[:, :, None], size)[:, :, 0]
    return np.frombuffer(near_duplicates.perceptual_hash(stored), np.uint64)


def main(argv: list[str]) -> None:
    del argv
    sources = find_sources(FLAGS.input_dir)
    plain: list[np.ndarray] = []
    moved: dict[str, list[int]] = {name: [] for name in CHANGES}
    for file in sources.listed:
        data = files.read_bytes(files.join(sources.root, file.filename))
        gray = images.to_channels(images.decode(data).pixels, 1)[:, :, 0]
        plain.append(_hash(gray, FLAGS.image_size))
        for name, change in CHANGES.items():
            other = _hash(change(gray), FLAGS.image_size)
            moved[name].append(int(np.bitwise_count(plain[-1] ^ other).sum()))
    rows = [
        {
            "change": name,
            "median_bits": float(np.median(bits)),
            "bits_99": float(np.percentile(bits, 99)),
            "found": float(np.mean(np.array(bits) <= _NEAR)),
        }
        for name, bits in moved.items()
    ]
    table = [
        [f"{r['change']}", f"{r['median_bits']:g}", f"{r['bits_99']:g}", f"{r['found']:.1%}"]
        for r in rows
    ]
    header = f"found (at most {_NEAR} bits)"
    print(markdown_table(["change", "median bits", "99th percentile", header], table))
    _print_others(np.array(plain))
    if FLAGS.json:
        files.write_json(FLAGS.json, rows)


def _print_others(hashes: np.ndarray) -> None:
    """Distances of all pairs of different files."""
    low, high = np.triu_indices(len(hashes), 1)
    bits = np.bitwise_count(hashes[low] ^ hashes[high]).sum(axis=1)
    close = np.bincount(bits, minlength=41)
    distances = ", ".join(f"{n} at {b}" for b, n in enumerate(close[:41]) if n)
    print(f"{len(bits):,} pairs of different files; within 40 bits: {distances or 'none'}")
    print(f"median {np.median(bits):.0f}, 1 in 1,000 within {np.percentile(bits, 0.1):.0f} bits")


if __name__ == "__main__":
    flags.DEFINE_string("input_dir", None, "Folder of radiographs, a sub-folder a class.")
    flags.DEFINE_integer("image_size", 224, "Side of the stored images, in pixels.", lower_bound=1)
    flags.DEFINE_string("json", "", "File for the rows.")
    flags.mark_flag_as_required("input_dir")
    run_main(main)
