"""--help shows a command's purpose, then its flags by group, each with its default."""

import os
import sys
import types

import pytest
from absl import flags

from cxr_tfrecords.console import command_help


@pytest.fixture
def values(monkeypatch):
    """Flags of a made-up command; its docstring is its module's."""
    values = flags.FlagValues()
    module = {"flag_values": values, "module_name": "paint"}
    flags.DEFINE_string("canvas", "", "What to paint on.", **module)
    flags.DEFINE_integer("coats", 2, "Layers of paint. " * 12, **module)
    flags.DEFINE_boolean("gloss", True, "Whether it shines.", **module)
    flags.DEFINE_enum("colour", "red", ["red", "blue"], "Of the paint.", **module)
    flags.DEFINE_enum("brush", "b1", [f"b{i}" for i in range(40)], "Of hair.", **module)
    flags.DEFINE_list("layers", [], "Names.", **module)
    flags.DEFINE_string("file", "pictures/of-" * 3 + "mine", "Where the picture goes.", **module)
    flags.DEFINE_float("width", None, "In metres.", **module)
    flags.DEFINE_alias("tint", "colour", **module)
    flags.DEFINE_integer("elsewhere", 1, "Of another module.", flag_values=values, module_name="b")
    values(["paint"])
    monkeypatch.setattr(command_help.flags, "FLAGS", values)
    monkeypatch.setattr(command_help, "GROUPS", {"coats": "Paint", "gloss": "Finish"})
    monkeypatch.setattr(sys, "argv", ["paint"])
    monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace(__doc__="\nPaints.\n"))
    monkeypatch.setattr(
        command_help.shutil, "get_terminal_size", lambda _: os.terminal_size((60, 24))
    )
    return values


def test_help_has_purpose_groups_values_and_defaults(values):
    text = command_help.command_help()
    headings = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert headings == [
        *("Paints.", "Flags", "Paint", "Finish"),
        "--helpfull also lists the flags of absl, such as --flagfile=FILE.",
    ]
    assert "  --canvas=TEXT\n      What to paint on. (default: empty)" in text
    assert "  --coats=NUMBER\n" in text
    assert "  --[no]gloss\n      Whether it shines. (default: true)" in text
    assert "  --colour=red|blue\n      Of the paint. (default: red)" in text
    assert "  --layers=ITEM,…\n" in text
    assert "  --width=NUMBER\n      In metres. (default: none)" in text
    assert text.index("--canvas") < text.index("--coats") < text.index("--[no]gloss")
    assert "tint" not in text, "an alias is not shown a second time"
    assert "elsewhere" not in text


def test_long_texts_and_many_choices_are_wrapped(values):
    text = command_help.command_help()
    assert "  --brush=NAME\n      One of b0, b1, " in text
    assert " pictures/of-pictures/of-pictures/of-mine)" in text, "a path is not broken at a hyphen"
    assert max(map(len, text.splitlines())) <= 65


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--help"], True),
        (["-h"], True),
        (["--data_dir=x", "-?"], True),
        (["--helpfull"], False),
        (["--", "--help"], False),
        (["help"], False),
    ],
)
def test_help_is_asked_for_before_a_double_dash(arguments, wanted):
    assert command_help.is_wanted(arguments) == wanted
