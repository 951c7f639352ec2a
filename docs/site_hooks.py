"""Pages of the site that are made from other files, and a check of the commands on all pages.

The home page is README.md, one page shows the notebook, and the pages of commands are what `--help`
of each command prints. A flag in a code block that its command does not have is a warning, which
`strict` in mkdocs.yml makes an error. MkDocs calls the functions `on_…` (https://www.mkdocs.org/user-guide/configuration/#hooks).
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from trainer.command_line import COMMANDS

log = logging.getLogger("mkdocs.hooks.commands")
ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOK = "notebook/first_steps.ipynb"
NOTEBOOK_PAGE = "notebook/first_steps.md"
TEXTS: dict[str, str] = {}  # module -> what its --help prints
_BLOCK = re.compile(r"^( *)```(?:\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:python -m |cxr-balance )([\w.-]+)(.*)")
# Apache Beam's own flags, of which --help says where they are listed.
_BEAM = {"runner", "setup_file", "region", "project", "temp_location", "staging_location"}
_FLAG = re.compile(r"^  --.*(\n      .*)*$")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds index.md, the notebook's page, commands.md and a page for each command."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=readme.replace("](docs/", "](")))
    notebook = (ROOT / "docs" / NOTEBOOK).read_text(encoding="utf-8")
    page = notebook_page(json.loads(notebook)["cells"])
    files.append(File.generated(config, NOTEBOOK_PAGE, content=page))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        TEXTS.update(zip(COMMANDS.values(), pool.map(_help, COMMANDS.values()), strict=True))
    overview = ["# Commands", "", "| command | as a module | what it does |", "|---|---|---|"]
    for name, module in COMMANDS.items():
        first = TEXTS[module].partition("\n")[0]
        overview.append(f"| [`cxr-balance {name}`](commands/{name}.md) | `{module}` | {first} |")
        page = command_page(f"cxr-balance {name}", TEXTS[module])
        files.append(File.generated(config, f"commands/{name}.md", content=page))
    overview += ["", "These pages are what `--help` prints: of each command, all flags by group."]
    files.append(File.generated(config, "commands.md", content="\n".join(overview)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Warns of flags in code blocks that do not exist; links to the notebook go to its page."""
    for _, block in _BLOCK.findall(markdown):
        for line in block.replace("\\\n", " ").splitlines():
            if command := _COMMAND.search(line.partition(" #")[0]):
                module = COMMANDS.get(command[1], command[1])
                for flag in _unknown_flags(module, command[2].partition(" -- ")[0]):
                    log.warning("%s: %s has no flag --%s", page.file.src_uri, module, flag)
    return markdown.replace(f"]({NOTEBOOK})", f"]({NOTEBOOK_PAGE})")


def _unknown_flags(module: str, arguments: str) -> list[str]:
    if module not in TEXTS:  # such as benchmarks
        return []
    text = TEXTS[module]
    if module in ("trainer.compare", "trainer.cascade"):  # which give other flags to their runs
        text += TEXTS["trainer.main"]
    known = set(re.findall(r"^  --(?:\[no\])?(\w+)", text, re.MULTILINE))
    known |= {"help", "helpfull", "flagfile", *{f"no{name}" for name in known}}
    if module.startswith("beam_pipelines"):
        known |= _BEAM
    return [flag for flag in re.findall(r"(?<=\s)--(\w+)", arguments) if flag not in known]


def _help(module: str) -> str:
    env = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def notebook_page(cells: list[dict[str, Any]]) -> str:
    """The cells of a notebook as Markdown, with a link to the file itself below the title."""
    sources = ["".join(cell["source"]) for cell in cells]
    title, _, introduction = sources[0].partition("\n\n")
    parts = [title, f"[Download this notebook]({pathlib.PurePath(NOTEBOOK).name}).", introduction]
    for cell, source in zip(cells[1:], sources[1:], strict=True):
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
    return "\n\n".join(parts) + "\n"


def command_page(title: str, text: str) -> str:
    """The text of a --help as Markdown: the description as it is, then the flags by group."""
    paragraphs = text.strip().split("\n\n")
    is_flag = [bool(_FLAG.match(paragraph)) for paragraph in paragraphs]
    start = is_flag.index(True) - 1 if any(is_flag) else len(paragraphs)  # the title before it
    lines = [f"# {title}", "", "```text", "\n\n".join(paragraphs[:start]), "```"]
    for paragraph, flag in zip(paragraphs[start:], is_flag[start:], strict=True):
        if flag:
            head, *rest = (line.strip() for line in paragraph.split("\n"))
            lines += ["", f"`{head}`", "", f":   {_escaped(' '.join(rest))}"]
        elif paragraph.startswith("--helpfull"):
            lines += ["", "---", "", _escaped(paragraph)]
        else:
            lines += ["", f"## {paragraph}"]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    text = re.sub(r"([\\`*_{}\[\]#|])", r"\\\1", text)
    return text.replace("<", "&lt;").replace(">", "&gt;")  # a backslash before them stays visible
