"""A table of settings: flags, checks and --help that come from one place."""

import dataclasses
import subprocess
import sys

import pytest

from cxr_tfrecords import settings
from cxr_tfrecords.errors import UserError

CODE = """
'''Shows its settings.'''
import dataclasses
from cxr_tfrecords.errors import run_main
from cxr_tfrecords.settings import check, define_flags, flag_values, setting

@dataclasses.dataclass(frozen=True)
class Config:
    groups = ("First things", "Rarely")
    kind: str = setting("a", "Rarely", "a: one. b: another.", choices=("a", "b"))
    size: int = setting(3, "First things", "Of it.", within="[1, inf)", alias="width")
    share: float = setting(0.5, "First things", "Of all.", within="(0, 1)")
    words: tuple = setting((), "Rarely", "Some.", parse=tuple)
    channels: int = setting(1, "Rarely", "1: gray. 3: RGB.", choices=(1, 3))
    where: str = setting("", "Rarely", "Empty: x.", choices=("", "x", "y"), hint="see --share")
    on: bool = setting(True, "Rarely", "Whether.")

    def __post_init__(self):
        check(self)

define_flags(Config)
run_main(lambda argv: print(Config(**flag_values(Config))))
"""


def _run(tmp_path, *arguments):
    script = tmp_path / "command.py"
    script.write_text(CODE)
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, check=False
    )


def test_flags_have_the_defaults_and_types_of_the_fields(tmp_path):
    done = _run(tmp_path)
    expected = "Config(kind='a', size=3, share=0.5, words=(), channels=1, where='', on=True)\n"
    assert (done.stdout, done.stderr) == (expected, "")
    done = _run(tmp_path, "--kind=b", "--width=5", "--words=x,y", "--channels=3", "--noon")
    expected = (
        "Config(kind='b', size=5, share=0.5, words=('x', 'y'), channels=3, where='', on=False)\n"
    )
    assert (done.stdout, done.stderr) == (expected, "")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--size=0", "--size=0 must be at least 1"),
        ("--share=1", "--share=1.0 must lie within (0, 1)"),
        ("--kind=c", "error: --kind=c is not one of a, b. --help"),
        ("--where=0.8", "error: --where=0.8 is not one of x, y (or empty); see --share. --help"),
        ("--size=many", "--size=many"),
    ],
)
def test_what_is_not_allowed_is_one_line_with_flag_and_value(tmp_path, argument, words):
    done = _run(tmp_path, argument)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_has_the_docstring_and_then_the_groups_in_their_order(tmp_path):
    done = _run(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    order = ["Shows its settings.", "First things", "--size=NUMBER", "Rarely", "--kind=a|b"]
    assert [line for line in lines if line in order] == order
    assert "1: gray. 3: RGB. (default: 1)" in lines
    assert lines[lines.index("--where=x|y") + 1] == "Empty: x. (default: empty)"
    assert "--width" not in done.stdout


def test_a_library_is_refused_in_the_same_words():
    @dataclasses.dataclass(frozen=True)
    class Config:
        power: float | None = settings.setting(None, "", "", within="[0, 1]")
        tau: float = settings.setting(1.0, "", "", within="(-inf, inf)")
        kind: str = settings.setting("", "", "", choices=("", "a"), hint="see --tau")

    settings.check(Config())
    settings.check(Config(power=1.0, tau=-3.0))
    with pytest.raises(UserError, match=r"--power=1.5 must lie within \[0, 1\]"):
        settings.check(Config(power=1.5))
    with pytest.raises(UserError, match="--tau=nan must be a finite number"):
        settings.check(Config(tau=float("nan")))
    with pytest.raises(UserError, match=r"--kind=b is not one of a \(or empty\); see --tau"):
        settings.check(Config(kind="b"))
