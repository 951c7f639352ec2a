"""The pages of docs/ say what is there: their code runs, and their messages are those of the code.

`make docs` also checks every link, and every flag of a command in a code block.
"""

import ast
import html
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from tests.test_architecture import ABOVE_BOTH, ORDER

ROOT = Path(__file__).parents[1]
WALKS = re.findall(
    r"^## (.*?)$.*?^```python\n(.*?)^```",
    (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


def _run_walk(title):
    """The names that the code below a heading of extending.md defines."""
    names = {}
    exec(dict(WALKS)[title], names)
    return names


def test_a_sampler_is_one_row():
    from trainer.balancing import sampler_table, samplers
    from trainer.balancing.class_shares import Sampling

    _run_walk("A sampler")
    try:
        plan = samplers.draw_epoch(
            Sampling("half_filled"), [40, 10, 30], batch_size=10, seed=0, epoch=0
        )
    finally:
        del sampler_table.SAMPLERS["half_filled"]
    assert np.bincount(plan.labels).tolist() == [40, 20, 30]


def test_a_loss_is_one_row():
    from trainer.balancing.loss_table import LOSSES

    _run_walk("A loss")
    weights = LOSSES.pop("inverse_square_root").terms([400, 100], None).weights
    np.testing.assert_allclose(weights, [500 / 600, 1000 / 600])


@pytest.mark.slow
def test_a_backbone_is_one_row():
    from trainer.models import backbones, small_networks
    from trainer.models.backbone_table import TABLE

    _run_walk("A backbone")
    try:
        network = backbones.create_backbone("two_layers", 16, "none")
    finally:
        del TABLE["two_layers"], small_networks.two_layers
    assert network.output_shape == (None, 3, 3, 32)


def test_an_input_format_is_one_word(monkeypatch):
    from cxr_tfrecords import images
    from cxr_tfrecords.decoding import other_formats

    monkeypatch.setattr(other_formats, "FORMATS", other_formats.FORMATS)
    file = b"P5 2 2 255\n" + bytes([0, 50, 100, 200])
    with pytest.raises(images.BadImageError, match="PPM is not supported"):
        images.decode(file)
    _run_walk("An input format")
    assert images.decode(file).pixels.tolist() == [[0, 50], [100, 200]]


def test_the_picture_of_the_rooms_has_the_order_that_is_kept():
    """A room that stands above another one in ORDER is not drawn below it."""
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    top, height = "", {}  # package that is being drawn; room -> y
    for y, text in re.findall(
        r'<text [^>]*y="(\d+)"[^>]*>(?:<tspan class="name">)?([\w.]+)<', picture
    ):
        top = text if text in {"benchmarks", "trainer", "beam_pipelines", "cxr_tfrecords"} else top
        height[text if text in (top, ABOVE_BOTH) else f"{top}.{text}"] = int(y)
    for package in ("benchmarks", "trainer", "beam_pipelines", "cxr_tfrecords"):
        rows = [[r for r in line.split() if r.startswith(f"{package}.")] for line in ORDER]
        heights = [[height.pop(room) for room in row] for row in rows if row]
        assert all(len(set(row)) == 1 for row in heights), package
        assert heights == sorted(heights, reverse=True), package
    assert set(height) == {"benchmarks", "trainer", "beam_pipelines", "cxr_tfrecords"}


def test_messages_of_the_errors_page_are_those_of_the_code():
    """Each heading is a message, with … for what differs from case to case."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### `(.*)`$", page, re.MULTILINE)
    assert len(headings) > 20
    templates = "\n".join(
        _template(node)
        for package in ("cxr_tfrecords", "beam_pipelines", "trainer")
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.JoinedStr | ast.Constant)
    )
    parts = [part.strip() for heading in headings for part in heading.split("…")]
    assert [part for part in parts if len(part) > 3 and part not in templates] == []


def test_comparisons_that_are_shown_have_two_methods():
    """Those that are too dear to be run by tests, and those of help texts."""
    paths = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "trainer").glob("*.py")]
    methods = []
    for path in paths:
        text = re.sub(r"\\\\?\n", " ", path.read_text(encoding="utf-8"))
        methods += re.findall(
            r"^ *python -m trainer\.compare .*--methods=(\S+)", text, re.MULTILINE
        )
    assert len(methods) > 3
    assert all("," in one for one in methods), methods


def test_a_page_of_a_command_shows_its_help_as_it_is():
    pytest.importorskip("mkdocs", reason="the extra docs brings it")
    markdown = pytest.importorskip("markdown", reason="the extra docs brings it")
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    entry = "--run_dir=TEXT\n      Empty: runs/<backbone>-[x]_y_*z* | #1."
    page = hooks.command_page("paint", f"Paints.\n\nData\n\n  {entry}\n")
    text = html.unescape(markdown.markdown(page, extensions=["def_list", "tables"]))
    assert "<h2>Data</h2>" in text
    assert "Empty: runs/<backbone>-[x]_y_*z* | #1." in text


def _template(node):
    """A string of the code, with … where it holds a value."""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    return node.value if isinstance(node.value, str) else ""
