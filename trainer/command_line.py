"""All commands under one name: `cxr-balance train …` is `python -m trainer.main …`.

Imports nothing but the standard library before it runs a command, because an installation that only
builds has no TensorFlow.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import runpy
import shutil
import sys
import textwrap

COMMANDS = {
    "build": "beam_pipelines.build",
    "verify": "cxr_tfrecords.verify",
    "stats": "cxr_tfrecords.stats",
    "synthetic": "cxr_tfrecords.synthetic",
    "preview": "trainer.sampler_preview",
    "train": "trainer.main",
    "decouple": "trainer.decouple",
    "cascade": "trainer.cascade",
    "compare": "trainer.compare",
    "predict": "trainer.predict",
    "predict-beam": "beam_pipelines.predict",
    "evaluate": "trainer.evaluate",
    "label-doubts": "trainer.label_doubts",
    "shortcuts": "trainer.shortcuts",
    "train-segmenter": "trainer.train_segmenter",
    "serve": "trainer.serve",
    "export": "trainer.export",
    "model-card": "trainer.model_card",
    "from-confusion": "trainer.from_confusion",
    "tpu-check": "trainer.tpu_check",
    "decode-server": "trainer.decode_server",
    "statistics-check": "trainer.statistics_check",
}


def main() -> int:
    """Runs the command that the first argument names, which may end the process itself."""
    name, *rest = sys.argv[1:] or [""]
    if name in ("-h", "--help", "-help", "help"):
        print(_help())
        return 0
    if name == "--version":
        from cxr_tfrecords import __version__

        print(f"cxr-balance {__version__}")
        return 0
    module = COMMANDS.get(name.replace("_", "-"))
    if module is None:
        print(f"error: {_unknown(name)} (cxr-balance --help lists all)", file=sys.stderr)
        return 2
    sys.argv = [f"cxr-balance {name}", *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _unknown(name: str) -> str:
    if not name:
        return "no command is given"
    similar = " or ".join(difflib.get_close_matches(name, COMMANDS, n=2))
    return f"there is no command {name!r}" + (f": did you mean {similar}?" if similar else "")


def _help() -> str:
    width = min(shutil.get_terminal_size((80, 24)).columns, 100)
    lines = ["cxr-balance COMMAND [--flag=VALUE …]", ""]
    for name, module in COMMANDS.items():
        text = f"{_first_line(module)} ({module})"
        first, *more = textwrap.wrap(text, width - 20)
        lines += [f"  {name:18}{first}", *(" " * 20 + line for line in more)]
    end = (
        "cxr-balance COMMAND --help explains a command. Examples there call it by its module, "
        "which stands in brackets here: `cxr-balance train` is `python -m trainer.main`."
    )
    return "\n".join([*lines, "", textwrap.fill(end, width)])


def _first_line(module: str) -> str:
    """The first line of a module's docstring, which its source tells without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:
        return (ast.get_docstring(ast.parse(file.read())) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
