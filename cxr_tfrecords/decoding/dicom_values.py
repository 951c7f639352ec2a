"""The stored values of a DICOM image to the 8 bits of a screen.

The grayscale pipeline of DICOM PS3.4 N.2.1: modality LUT (PS3.3 C.11.1), then the first VOI LUT
or window (C.11.2), then MONOCHROME1 inverted (C.7.6.3.1.2), padding (C.7.5.1.1.2) black. All
functions return uint8 pixels and the steps, for `Decoded.steps`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_tfrecords.decoding.depth import by_rows, depth_of, describe_depth, to_8_bits
from cxr_tfrecords.decoding.result import BadImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Shown = tuple[np.ndarray, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Table:
    """A lookup table (PS3.3 C.11.1.1.1, C.11.2.1.1, C.7.6.3.1.5).

    Attributes:
      entries: uint8 or uint16. depth: their bits.
      first: the input value of the first entry; smaller ones have the first entry, too, and those
        past the last entry have the last.
    """

    entries: np.ndarray
    depth: int
    first: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        whole = values if values.dtype.kind in "iu" else np.rint(values)
        return self.entries[np.clip(whole.astype(np.int64) - self.first, 0, len(self.entries) - 1)]


def show_gray(stored: np.ndarray, file: Dataset) -> Shown:
    """Stored values [height, width] to gray, in which 255 is white.

    Without VOI LUT and window the whole range is shown, see `depth.depth_of`; of signed values so
    too, from 0 if none is negative.
    """
    if stored.ndim != 2:
        raise BadImageError(f"gray DICOM with pixels of shape {stored.shape}")
    if stored.size <= 2**16 or stored.dtype.itemsize > 2:
        return _show_values(stored, file)
    # What a pixel becomes depends on its value and on which values there are, so it is enough to
    # work it out once for each: in floating point all pixels would need much memory.
    kind = stored.dtype.newbyteorder("=")
    index = stored.astype(kind, copy=False).view(f"u{kind.itemsize}")
    present = np.zeros(2 ** (8 * kind.itemsize), bool)
    for rows in np.array_split(index, 1 + index.size // 2**20):
        present[rows] = True
    values = np.flatnonzero(present).astype(index.dtype)
    shown, steps = _show_values(values.view(kind)[None], file)
    table = np.zeros(len(present), np.uint8)
    table[values] = shown[0]
    return by_rows(lambda rows: table[rows], index), steps


def _show_values(stored: np.ndarray, file: Dataset) -> Shown:
    padding = _padding(stored, file)
    steps: list[str] = []
    little_endian = _is_little_endian(file)
    signed = bool(file.PixelRepresentation)
    slope, intercept = _rescale(file)
    modality = _sequence_table(file, "ModalityLUTSequence", signed, little_endian)
    if modality:
        values, slope, intercept, negative = modality(stored), 1.0, 0.0, False
        steps.append("modality LUT")
    else:
        values = stored if (slope, intercept) == (1, 0) else stored * slope + intercept
        negative = signed or intercept < 0 or slope < 0
    voi = _sequence_table(file, "VOILUTSequence", negative, little_endian)
    window = None if voi else _window(file)
    if voi:
        shown = to_8_bits(voi(values), voi.depth)
        steps.append("VOI LUT")
    elif window:
        shown = _apply_window(values, *window)
        steps.append("window {:g}/{:g} ({})".format(*window))
    elif modality:
        shown = to_8_bits(values, modality.depth)
    else:
        inside = stored if padding is None else stored[~padding]
        shown, more = _show_range(stored, inside, int(file.BitsStored))
        shown = 255 - shown if slope < 0 else shown
        steps += more
    if file.PhotometricInterpretation == "MONOCHROME1":
        shown = 255 - shown
        steps.append("inverted (MONOCHROME1)")
    if padding is not None:
        shown[padding] = 0
        steps.append("padding black")
    return shown, tuple(steps)


def show_colour(stored: np.ndarray, file: Dataset) -> Shown:
    """RGB [height, width, 3], into which pydicom has turned YBR already."""
    bits = int(file.BitsStored)
    if bits <= 8:
        return stored.astype(np.uint8), ()
    depth = depth_of(int(stored.max(initial=0)), bits)
    return to_8_bits(stored, depth), describe_depth(depth, bits)


def show_palette(stored: np.ndarray, file: Dataset) -> Shown:
    """Indices [height, width] to RGB by the file's palette."""
    if not file.get("RedPaletteColorLookupTableData"):  # a segmented one: pydicom unpacks it
        from pydicom.pixels import apply_color_lut

        coloured = apply_color_lut(stored, file)[..., :3]
        depth = depth_of(int(coloured.max(initial=0)), 8 * coloured.dtype.itemsize)
        return _upper_8_bits(coloured, depth), ("palette",)
    signed, little_endian = bool(file.PixelRepresentation), _is_little_endian(file)
    tables = []
    for colour in ("Red", "Green", "Blue"):
        descriptor = file[f"{colour}PaletteColorLookupTableDescriptor"].value
        data = file[f"{colour}PaletteColorLookupTableData"].value
        tables.append(_table(descriptor, data, signed, little_endian))
    depth = max(table.depth for table in tables)
    shown = [_upper_8_bits(table(stored), depth) for table in tables]
    return np.stack(shown, axis=2), ("palette",)


def _upper_8_bits(values: np.ndarray, depth: int) -> np.ndarray:
    """Palettes of 16 bits are mostly ones of 8 bits in the upper byte, so that 0xFF00 is white."""
    return (values >> (depth - 8) if depth > 8 else values).astype(np.uint8)


def _show_range(stored: np.ndarray, inside: np.ndarray, bits: int) -> Shown:
    """All values that the image's depth can hold; `inside`: the pixels that are not padding."""
    low, high = int(inside.min(initial=0)), int(inside.max(initial=0))
    if low >= 0:
        depth = depth_of(high, bits)
        return to_8_bits(np.clip(stored, 0, 2**depth - 1), depth), describe_depth(depth, bits)
    # One bit more than the larger of both sides is the sign.
    depth = depth_of(2 * max(high, -low - 1) + 1, bits)
    half = 2 ** (depth - 1)
    shifted = np.clip(stored.astype(np.int32), -half, half - 1) + half
    return to_8_bits(shifted, depth), (*describe_depth(depth, bits), "signed")


def _rescale(file: Dataset) -> tuple[float, float]:
    """Slope and intercept (C.11.1.1.2); a slope of 0, which no image can have, counts as absent."""
    slope, intercept = (_numbers(file.get(f"Rescale{name}")) for name in ("Slope", "Intercept"))
    if slope[:1] == [0]:
        return 1.0, 0.0
    return (slope or [1.0])[0], (intercept or [0.0])[0]


def _window(file: Dataset) -> tuple[float, float, str] | None:
    """Centre, width and function of the first window that has both and a width above 0."""
    centres, widths = (_numbers(file.get(f"Window{name}")) for name in ("Center", "Width"))
    for centre, width in zip(centres, widths, strict=False):
        if width > 0 and math.isfinite(centre):
            function = str(file.get("VOILUTFunction") or "LINEAR").strip().upper()
            # LINEAR needs a width of 1 or more; below, LINEAR_EXACT is what the standard has.
            if function not in ("LINEAR_EXACT", "SIGMOID"):
                function = "LINEAR" if width >= 1 else "LINEAR_EXACT"
            return centre, width, function
    return None


def _apply_window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID) and C.11.2.1.3.2 (LINEAR_EXACT)."""
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            shown = 255 / (1 + np.exp(-4 * (values.astype(np.float64) - centre) / width))
        return np.rint(shown).astype(np.uint8)
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:  # a threshold
        return np.where(values > centre, 255, 0).astype(np.uint8)
    shown = ((values.astype(np.float64) - centre) / width + 0.5) * 255
    return np.clip(np.rint(shown), 0, 255).astype(np.uint8)


def _padding(stored: np.ndarray, file: Dataset) -> np.ndarray | None:
    """Where padding is, bool [height, width]; None if nowhere."""
    value, limit = file.get("PixelPaddingValue"), file.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    ends = [value, limit if isinstance(limit, int) else value]
    if file.PixelRepresentation:  # some files write them as unsigned
        ends = [end - 2**16 if end >= 2**15 else end for end in ends]
    # The limit is the smaller one under MONOCHROME1.
    inside = (stored >= min(ends)) & (stored <= max(ends))
    return inside if inside.any() else None


def _sequence_table(file: Dataset, name: str, signed: bool, little_endian: bool) -> Table | None:
    """The first item's table; None without one, or if it is empty."""
    items = file.get(name)
    if not items or not items[0].get("LUTDescriptor") or not items[0].get("LUTData"):
        return None
    return _table(items[0].LUTDescriptor, items[0].LUTData, signed, little_endian)


def _table(descriptor: Any, data: Any, signed: bool, little_endian: bool) -> Table:
    """
    Args:
      descriptor: number of entries (0: 65,536), first input value, bits of an entry.
      data: bytes or whole numbers.
      signed: whether the input can be negative; the first input value then has 16 bits with sign,
        which many files write as unsigned.
    """
    count, first, bits = (int(value) for value in descriptor)
    count = count % 2**16 or 2**16
    if signed and first >= 2**15:
        first -= 2**16
    if isinstance(data, bytes):
        words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little_endian else ">u2")
        # Two entries of 8 bits may share a word, the first of them in its lower byte.
        packed = bits <= 8 and len(data) < 2 * count
        entries = words.astype("<u2").view(np.uint8) if packed else words.astype(np.uint16)
    else:
        entries = np.atleast_1d(np.asarray(data, np.int64)).astype(np.uint16)
    entries = entries[:count]
    if not len(entries):
        raise BadImageError("DICOM with an empty lookup table")
    most = int(entries.max())
    return Table(entries, depth_of(most, bits if 0 < bits <= 16 and most < 2**bits else 16), first)


def _numbers(value: Any) -> list[float]:
    """The numbers of a tag that may have one, several or none; stops at the first empty one."""
    values = value if isinstance(value, list) or hasattr(value, "append") else [value]
    result = []
    for one in values:
        if one is None or not str(one).strip():
            break
        result.append(float(one))
    return result


def _is_little_endian(file: Dataset) -> bool:
    return bool(file.file_meta.TransferSyntaxUID.is_little_endian)
