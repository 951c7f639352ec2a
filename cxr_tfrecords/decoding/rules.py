"""The version of the rules by which files become pixels: what is counted in a data set's manifest.

Whoever changes a pixel of any file that could be read before adds a version here. Then --append
refuses older data sets, of which the old and the new images would differ by the rule.
"""

from __future__ import annotations

# Version -> what it changed.
CHANGES = {
    2: (
        "EXIF orientation: followed",
        "16 bits: scaled by the smallest depth of 8 to 16 bits that holds the image",
        "DICOM, empty tags: count as absent; so do a window without width or of width 0",
        "DICOM, windows: of a width below 1 shown; the right way round with a negative slope",
        "DICOM, signed values without a window: as unsigned ones, or at the smallest depth",
        "DICOM, lookup tables: may begin below 0; shown at the depth of their entries",
        "DICOM, palettes: of big-endian files",
        "DICOM, padding: up to PixelPaddingRangeLimit",
        "animated PNG: the default image",
    ),
}
VERSION = max(CHANGES)


def changes_since(version: int) -> list[str]:
    """Lines on what differs from a data set that was built with a version; none if nothing does.

    Args:
      version: 1 where a manifest has none.
    """
    if version > VERSION:
        return [f"pixel rules: version {version}, this software has {VERSION}"]
    return changes_between(version, VERSION)


def changes_between(one: int, other: int) -> list[str]:
    """Lines on what two versions decode in another way; those that are not known here are left
    out."""
    return [
        f"pixel rules, version {number}: {change}"
        for number in range(min(one, other) + 1, max(one, other) + 1)
        for change in CHANGES.get(number, ())
    ]
