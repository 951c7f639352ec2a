"""Pictures of the statistics page: plots as SVG, and thumbnails of stored images.

The colours are Okabe and Ito's, which people of any colour vision can tell apart. Matplotlib is
imported where it is needed, so that a build's workers start without it.
"""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_tfrecords import dataset_dir, files, images, records, tfrecord
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.figures import new_figure
from cxr_tfrecords.pages.html import Thumbnail
from cxr_tfrecords.pages.plot_style import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE = {
    **STYLE,
    "svg.hashsalt": "cxr",  # the same ids, and so the same bytes, each time
    "svg.fonttype": "none",  # text stays text: the reader's fonts show the letters of any script
}
_SIDE = 128
_UNREADABLE = (tfrecord.DamagedRecordError, images.BadImageError, ValueError, OSError)


def read_thumbnails(
    path: str,
    manifest: Mapping[str, Any],
    named: Mapping[str, Collection[str]],
    leading: Mapping[str, int],
) -> dict[str, Thumbnail]:
    """Reads a few images, each shard only up to the last one that is wanted of it.

    Args:
      named: shard -> file names of the sources that are wanted.
      leading: shard -> number of its first records that are wanted too.

    Returns:
      File name -> image, in the order of the manifest's shards.

    Raises:
      UserError: a shard is missing or damaged.
    """
    thumbnails: dict[str, Thumbnail] = {}
    for entry in manifest["shards"]:
        missing, first = set(named.get(entry["file"], ())), leading.get(entry["file"], 0)
        if not missing and not first:
            continue
        try:
            for number, serialized in enumerate(
                tfrecord.read_records(files.join(path, entry["file"]))
            ):
                record = records.parse_record(serialized)
                if number < first or record.filename in missing:
                    thumbnail = _thumbnail(record, manifest["image"], number < first)
                    thumbnails[record.filename] = thumbnail
                    missing.discard(record.filename)
                if not missing and number + 1 >= first:
                    break
        except _UNREADABLE as error:
            raise UserError(
                f"shard {files.join(path, entry['file'])} cannot be read ({error}): run the build "
                "again to repair it"
            ) from error
    return thumbnails


def read_left_out(path: str, manifest: Mapping[str, Any]) -> dict[str, Thumbnail]:
    """File name -> image of those that no shard holds; an empty dictionary where none was kept.

    Raises:
      UserError: the file is damaged.
    """
    name = files.join(path, dataset_dir.LEFT_OUT)
    if not files.exists(name):
        return {}
    try:
        stored = map(records.parse_record, tfrecord.read_records(name))
        return {one.filename: _thumbnail(one, manifest["image"], False) for one in stored}
    except _UNREADABLE as error:
        raise UserError(
            f"{name} cannot be read ({error}): remove it; the page is then made without it"
        ) from error


def _thumbnail(record: records.Record, image: Mapping[str, Any], leading: bool) -> Thumbnail:
    size, channels = image["size"], image["channels"]
    pixels = images.decode_stored(record.encoded, image["encoding"], size, channels)
    made = Thumbnail.of(record.filename, pixels, _SIDE)
    return dataclasses.replace(made, class_name=record.class_name, leading=leading)


def draw(
    numbers: Mapping[str, Any], points: Mapping[str, Sequence[Sequence[int]]]
) -> dict[str, bytes]:
    """Draws the plots `intensity`, `bytes` and, if image sizes differ, `sizes`: name -> SVG.

    Args:
      numbers: content of stats.json.
      points: class name -> [height, width, images] of each size, see `sources.size_points`.
    """
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that Matplotlib's own font lacks
        plots = {
            "intensity": _draw_intensity(numbers["intensity"]),
            "bytes": _draw_bytes(numbers["files"]),
        }
        if len({tuple(size) for rows in points.values() for *size, _ in rows}) > 1:
            plots["sizes"] = _draw_sizes(points)
        return {name: _to_svg(figure) for name, figure in plots.items()}


def _to_svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _one_panel(width: float, height: float) -> tuple[Figure, Axes]:
    figure = new_figure(width, height)
    return figure, figure.add_subplot()


def _label(name: str) -> str:
    """A class name as Matplotlib shows it unchanged: between `$` it would draw a formula, and it
    would leave a name that begins with `_` out of the legend."""
    name = name if len(name) <= 28 else name[:27] + "…"
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _add_legend(figure: Figure, classes: int) -> None:
    figure.legend(loc="outside lower center", ncols=min(classes, 4), frameon=False)


def _draw_intensity(intensity: Mapping[str, Any]) -> Figure:
    figure, axes = _one_panel(8.6, 3.9)
    top = 0.0
    for number, (name, one) in enumerate(intensity.items()):
        histogram = np.array(one["histogram"], float)
        shares = histogram / max(histogram.sum(), 1)
        style: Any = {
            "color": _COLORS[number % len(_COLORS)],
            "ls": _DASHES[number // len(_COLORS) % len(_DASHES)],
        }
        axes.plot(shares, label=_label(name), lw=1.6, **style)
        axes.axvline(one["mean"], lw=1, alpha=0.6, **style)
        # The peaks of black borders and white letters would flatten the curve between them.
        top = max(top, np.sort(shares[1:-1])[-3])
    axes.set_xlim(0, 255)
    axes.set_ylim(0, 1.15 * top if top else 1)
    axes.set_xticks([0, 32, 64, 96, 128, 160, 192, 224, 255])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axes.set_xlabel("gray value as stored; thin lines: class means")
    axes.set_ylabel("share of pixels")
    _add_legend(figure, len(intensity))
    return figure


def _draw_bytes(sources: Mapping[str, Any]) -> Figure:
    figure, axes = _one_panel(8.6, 1.1 + 0.42 * len(sources))
    stats = [
        {
            "label": _label(name),
            "whislo": one["bytes"]["p5"] / 1000,
            "q1": one["bytes"]["q1"] / 1000,
            "med": one["bytes"]["median"] / 1000,
            "q3": one["bytes"]["q3"] / 1000,
            "whishi": one["bytes"]["p95"] / 1000,
            "fliers": [],
        }
        for name, one in sources.items()
    ]
    boxes = axes.bxp(
        stats,
        vert=False,
        showfliers=False,
        patch_artist=True,
        widths=0.55,
        medianprops={"color": "black", "lw": 1.6},
    )
    for number, box in enumerate(boxes["boxes"]):
        box.set(facecolor=_COLORS[number % len(_COLORS)], alpha=0.65, edgecolor="#444444")
    low = min(one["whislo"] for one in stats)
    high = max(one["whishi"] for one in stats)
    if low > 0 and high / low > 30:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    else:
        axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.set_xlabel("file size in kB: 5%, quartiles, 95%")
    return figure


def _draw_sizes(points: Mapping[str, Sequence[Sequence[int]]]) -> Figure:
    figure, axes = _one_panel(8.6, 4.4)
    for number, (name, rows) in enumerate(points.items()):
        height, width, count = np.array(rows, float).reshape(-1, 3).T
        area = 25 + 250 * np.sqrt(count / max(count.sum(), 1))
        color = _COLORS[number % len(_COLORS)]
        # Hollow, and of another shape for each class: images of several classes often have the
        # same size, and their marks lie on each other.
        axes.scatter(
            width,
            height,
            s=area,
            marker=_MARKERS[number % len(_MARKERS)],
            facecolor="none",
            edgecolor=color,
            linewidth=1.5,
            alpha=0.9,
            label=_label(name),
        )
    axes.margins(0.15)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.set_xlabel("width in pixels")
    axes.set_ylabel("height in pixels")
    _add_legend(figure, len(points))
    return figure
