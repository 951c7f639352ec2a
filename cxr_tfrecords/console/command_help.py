"""The text of --help: a command's docstring, then its flags by group, the common ones first."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable

from absl import flags

_HELP_FLAGS = ("-h", "--help", "-help", "--helpshort", "-helpshort", "-?", "--?")
_WIDEST = 100
# Flag -> the heading that it stands under; `settings.define_flags` fills it.
GROUPS: dict[str, str] = {}
# Flag -> which other flags do what its wrong values were meant for; filled there, too.
HINTS: dict[str, str] = {}


def not_one_of(choices: Iterable[object], hint: str = "") -> str:
    """`is not one of a, b (or empty); hint`: what a message says after a flag and its value."""
    words = [str(choice) for choice in choices]
    text = f"is not one of {', '.join(filter(None, words))}" + " (or empty)" * ("" in words)
    return text + (f"; {hint}" if hint else "")


def is_wanted(arguments: Iterable[str]) -> bool:
    """Whether a command line asks for its help; after `--`, `--help` is no flag."""
    for argument in arguments:
        if argument == "--":
            return False
        if argument in _HELP_FLAGS:
            return True
    return False


def command_help() -> str:
    """The help of the running command."""
    main = sys.modules["__main__"]
    width = min(shutil.get_terminal_size((80, 24)).columns, _WIDEST)
    parts = [(main.__doc__ or "").strip()]
    groups: dict[str, list[flags.Flag]] = {}
    # In the order in which `settings.define_flags` met the groups, after the flags without one.
    for name in ("", *dict.fromkeys(GROUPS.values())):
        groups[name] = []
    for flag in _own_flags():
        groups[GROUPS.get(flag.name, "")].append(flag)
    for title, members in groups.items():
        if members:
            parts.append(
                "\n\n".join([title or "Flags", *(_entry(flag, width) for flag in members)])
            )
    parts.append("--helpfull also lists the flags of absl, such as --flagfile=FILE.")
    return "\n\n".join(parts) + "\n"


def _own_flags() -> list[flags.Flag]:
    """The command's own flags in the order of their definition, without aliases."""
    key = flags.FLAGS.get_key_flags_for_module(sys.argv[0])  # absl's name for __main__
    return [flag for flag in key if not flag.help.startswith("Alias for --")]


def _entry(flag: flags.Flag, width: int) -> str:
    choices = getattr(flag.parser, "enum_values", None)
    text = flag.help or ""
    if flag.boolean:
        head, default = f"--[no]{flag.name}", str(bool(flag.default)).lower()
    else:
        # The text explains what an empty value means.
        words = "|".join(filter(None, choices or ()))
        head = f"--{flag.name}={words or _placeholder(flag)}"
        default = (
            (flag.default_as_str or "").strip("'") or "empty"
            if flag.default is not None
            else "none"
        )
    if choices:
        text = text.removeprefix(f"<{'|'.join(choices)}>: ")
        if len(head) > width - 2:
            head, text = f"--{flag.name}=NAME", f"One of {', '.join(choices)}. {text}"
    lines = [head]
    # Not broken at hyphens: who copies a path would copy the break with it.
    lines += textwrap.wrap(
        f"{text} (default: {default})",
        width - 6,
        initial_indent="    ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )
    return "\n".join("  " + line for line in lines)


def _placeholder(flag: flags.Flag) -> str:
    kind = flag.flag_type()
    return {"int": "NUMBER", "float": "NUMBER", "comma separated list of strings": "ITEM,…"}.get(
        kind, "TEXT"
    )
