"""Pieces of an HTML page: every text given is escaped, unless it is `Html`."""

from __future__ import annotations

import base64
import dataclasses
import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cxr_tfrecords import images

_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px 20px 64px; background: #fff;
  color: #222; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 1.2rem; margin: 44px 0 8px; padding-bottom: 4px; border-bottom: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 20px 0 6px; }
p { margin: 8px 0; max-width: 78ch; }
.quiet { color: #666; font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 10px 0; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 16px 4px 0; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid #eee; }
th { font-weight: 600; border-bottom-color: #bbb; }
th.text, td.text { text-align: left; }
td.text { overflow-wrap: break-word; white-space: normal; min-width: 7em; }
tr.total td { font-weight: 600; }
.box { border-left: 6px solid; border-radius: 4px; padding: 12px 18px; margin: 20px 0; }
.box p:first-child { font-weight: 600; margin-top: 0; }
.red { background: #fdecea; border-color: #c62828; }
.amber { background: #fff4e0; border-color: #d98200; }
.green { background: #e9f5ec; border-color: #2e7d32; }
.gray { background: #f2f2f2; border-color: #888; }
.plot { display: block; width: 100%; max-width: 860px; margin: 8px 0; }
.row, .groups { display: flex; flex-wrap: wrap; gap: 12px; }
.group { border: 1px solid #ddd; border-radius: 4px; padding: 10px 12px; }
.conflict { border-color: #c62828; }
.group h3 { margin-top: 0; }
.conflict h3 { color: #b71c1c; }
figure { margin: 0; width: 136px; font-size: .8rem; line-height: 1.35; }
figure img, figure .none { width: 136px; height: 136px; display: block; background: #eee; }
figure .none { padding: 12px; color: #666; }
figcaption { overflow-wrap: anywhere; margin-top: 4px; }
.bar { display: inline-block; width: 100px; height: .7em; margin-left: 6px; background: #e8e8e8; }
.bar span { display: block; height: 100%; background: #0072B2; }
"""
# For `document`: a page of results with pictures on white cards and wide tables.
RESULTS = """
.card { background: #fff; margin: 10px 0; }
.picture { display: block; width: 100%; height: auto; }
small { font-size: .8rem; opacity: .85; }
th { white-space: normal; vertical-align: bottom; }
thead th:not(.text) { min-width: 5.5em; }
.box p { overflow-wrap: anywhere; }
@media (max-width: 600px) {
  body { padding: 16px 12px 40px; font-size: 15px; }
  h1 { font-size: 1.3rem; }
  th, td { padding-right: 10px; }
}
"""

# For `document`: a dark page where the reader's system is dark, and narrow screens. Not for pages
# with plots, which are drawn on white.
DARK = """
@media (max-width: 600px) {
  body { padding: 16px 12px 40px; }
  h1 { font-size: 1.3rem; }
  .row, .groups { gap: 10px 8px; }
  th, td { padding-right: 10px; white-space: normal; }
}
@media (prefers-color-scheme: dark) {
  :root { color-scheme: dark; }
  body { background: #151515; color: #ddd; }
  h2 { border-color: #444; }
  th, td { border-color: #333; }
  .quiet { color: #aaa; }
  .gray { background: #262626; }
  .amber { background: #332a17; }
  .red { background: #3a1d1b; }
  .green { background: #1b2d20; }
  .group { border-color: #444; }
  .conflict { border-color: #d9534f; }
  figure img, figure .none { background: #262626; }
}
"""


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """A stored image, made small.

    Attributes:
      jpeg: the file's bytes.
      leading: it is one of its class's samples.
    """

    filename: str
    class_name: str
    jpeg: bytes
    leading: bool = False

    @classmethod
    def of(cls, filename: str, pixels: np.ndarray, side: int) -> Thumbnail:
        """Of an image, uint8 [size, size, channels]; at most `side` pixels wide."""
        small = images.resize(pixels, min(side, pixels.shape[0]))
        return cls(filename, "", images.encode(small, "jpeg"))


class Html(str):
    """Text that is HTML already and is not escaped."""


# Marks that turn the direction of the text after them, and characters that HTML does not allow.
_UNSEEN = dict.fromkeys(
    [
        *(*range(9), 11, 12, *range(14, 32), 0x7F),
        *(0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
        *range(0xD800, 0xE000),
    ],
    "\ufffd",
)


def visible(text: str) -> str:
    """The text with � in place of marks that would hide or turn a part of it."""
    return text.translate(_UNSEEN)


def escaped(value: object) -> str:
    return value if isinstance(value, Html) else html.escape(visible(str(value)))


def document(title: str, body: str, css: str = "") -> str:
    """A whole page. body: HTML; css: rules that come after those of all pages."""
    title = escaped(title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_CSS}{css}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    return f"<h2>{escaped(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escaped(text)}</p>' if kind else f"<p>{escaped(text)}</p>"


def box(kind: str, *texts: str) -> str:
    return f'<div class="box {kind}">{"".join(paragraph(text) for text in texts)}</div>'


def details(summary: str, *parts: str) -> str:
    """Parts (HTML) that are folded away under one line of text."""
    return f"<details><summary>{escaped(summary)}</summary>{''.join(parts)}</details>"


def stacked(text: str) -> Html:
    """`81.2% [78.0%, 84.1%]` as two lines, which take half of the width."""
    first, bracket, rest = text.partition(" [")
    return Html(
        f"{escaped(first)}<br><small>[{escaped(rest)}</small>" if bracket else escaped(text)
    )


def table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], *, texts: int = 1, total: bool = False
) -> str:
    """A table whose first `texts` columns are words and whose others are numbers."""

    def line(tag: str, cells: Sequence[Any]) -> str:
        kinds = [' class="text"' if i < texts else "" for i in range(len(cells))]
        return "".join(
            f"<{tag}{k}>{escaped(cell)}</{tag}>" for k, cell in zip(kinds, cells, strict=True)
        )

    lines = [f"<tr>{line('td', row)}</tr>" for row in rows]
    if total:
        lines[-1] = lines[-1].replace("<tr>", '<tr class="total">', 1)
    body = "\n".join(lines)
    return (
        f'<div class="wide"><table>\n<thead><tr>{line("th", header)}</tr></thead>\n'
        f"<tbody>{body}</tbody>\n</table></div>"
    )


def figure(thumbnails: Thumbnail | Sequence[Thumbnail] | None, captions: Sequence[str]) -> str:
    """A thumbnail, several side by side, or an empty square, over lines of text."""
    caption = "<br>".join(escaped(one).replace("/", "/<wbr>") for one in captions)
    caption = f"<figcaption>{caption}</figcaption>"
    if not thumbnails:
        return f'<figure><div class="none">no image</div>{caption}</figure>'
    if not isinstance(thumbnails, Sequence):
        return f"<figure>{_image(thumbnails)}{caption}</figure>"
    pictures = "".join(map(_image, thumbnails))
    return f'<figure class="several"><div>{pictures}</div>{caption}</figure>'


def _image(thumbnail: Thumbnail) -> str:
    source = _data_uri("image/jpeg", thumbnail.jpeg)
    return f'<img src="{source}" alt="{escaped(thumbnail.filename)}">'


def row(cells: Iterable[str]) -> str:
    return f'<div class="row">{"".join(cells)}</div>'


def plot(svg: bytes, alt: str) -> str:
    source = _data_uri("image/svg+xml", svg)
    return f'<div class="wide"><img class="plot" src="{source}" alt="{escaped(alt)}"></div>'


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def bar(share: float) -> Html:
    """A number in 0..1 and a bar of its length."""
    return Html(f'{share:.3f} <span class="bar"><span style="width:{share:.0%}"></span></span>')
