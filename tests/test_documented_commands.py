"""The commands and Python blocks of the pages run, in the order of the page, on small images.

The words that stand for a reader's own paths (DIR, DATA, RUN, …) are real names in the folder of
each page, so a block runs as it is written, but for

- `SMALL`: flags that are appended to a command, of which the last one counts (networks of a few
  layers, one epoch, one seed), and `SMALL_VALUES`: smaller numbers in the place of those given;
- `HELP_ONLY`: commands that are too dear here, of which only `--help` runs; `make docs` checks
  that their flags exist;
- `INSTALLING`: lines that install the project;
- blocks after a comment `<!-- not run: REASON -->`, which readers do not see;
- blocks in another language than Python and the shell.

A block marked as ```sh is given to the shell as a whole, any other one runs line by line.
"""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tests.shared import ROOT
from tests.trainer import processes
from tests.trainer.equality import free_ports
from trainer.command_line import COMMANDS

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
TINY = ("--backbone=tiny", "--weights=none", "--epochs=1")
SMALL = {
    "beam_pipelines.build": ("--runner=DirectRunner", "--nostats"),
    "trainer.main": TINY,
    "trainer.compare": (
        *("--backbones=tiny", "--weights=none", "--methods=none,oversample", "--seeds=0"),
        *("--epochs=1", "--resamples=100"),
    ),
    "trainer.cascade": ("--resamples=100", "--weights=none", "--epochs=1", "--batch_size=8"),
    "trainer.sampler_preview": ("--batch_size=8",),
    "trainer.evaluate": ("--resamples=100",),
    "trainer.export": ("--format=keras,onnx,litert",),
    "benchmarks.imbalance": (
        *("--ratios=1,3", "--images=100", "--image_size=32", "--jobs=1", "--seeds=0", "--epochs=1"),
        *("--backbones=tiny", "--weights=none", "--methods=none,oversample", "--resamples=100"),
    ),
}
SMALL_RECIPES = (*TINY, "--seeds=0", "--resamples=100")  # trainer.compare --recipes
SMALL_VALUES = {
    "--image_size=299": "--image_size=32",
    "--image_size=224": "--image_size=24",
    "--image_size=128": "--image_size=16",
    "--image_size=96": "--image_size=32",
    "--folds=5": "--folds=3",
    "--backbone=vgg16": "--backbone=tiny",
    "--backbone=densenet121": "--backbone=tiny",
    "--backbone=resnet18": "--backbone=tiny",
}
HELP_ONLY = {
    "trainer.serve": PAGES,  # which waits for requests
    # Studies of minutes; that of statistics.md reads the runs of another one.
    "trainer.compare": [f"docs/{n}.md" for n in ("quick_start", "tutorial", "label_doubts")]
    + ["docs/statistics.md"],
    "trainer.label_doubts": PAGES,  # which reads the runs of that comparison
}
RESULTS_OF_TRAINING = re.compile("--run_dir=(.+)")  # which other commands read
INSTALLING = ("git clone ", "python -m venv ", "pip install ", "cxr/bin/")
RESULTS = re.compile(r"--(?:output_dir|study_dir|cascade_dir|output)=(.+)")
_BLOCK = re.compile(
    r"^(?: *(<!-- not run: .+? -->)\n)?^( *)```(\w*)\n(.*?)^\2```", re.MULTILINE | re.DOTALL
)
_LINES, _SHELL, _PYTHON = ("", "bash"), "sh", "python"  # languages of the blocks that run


def blocks(page):
    """Language and text of the blocks that are to be run."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        (language, textwrap.dedent(block))
        for mark, _, language, block in _BLOCK.findall(text)
        if not mark and language in (*_LINES, _SHELL, _PYTHON)
    ]


def commands(block):
    """Module, or script, and flags of each command of a block; None: a line that is none."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removesuffix(" …"), comments=True)
        if words[:2] == ["python", "-m"] and words[2] != "venv":
            yield words[2], words[3:]
        elif words[:1] == ["cxr-balance"]:
            yield COMMANDS[words[1]], words[2:]
        elif words and words[0].startswith("launch/"):
            yield words[0], words[1:]
        elif words and not line.startswith(INSTALLING):
            yield None, line


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page):
    for language, block in blocks(page):
        if language == _PYTHON:
            compile(block, page, "exec")
        if language not in _LINES:
            continue
        strange = [line for module, line in commands(block) if module is None]
        assert not strange, (
            f"{page}: mark it as ```text or with <!-- not run: REASON -->: {strange}"
        )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with what a reader has before the first command, and a finished run."""
    folder = tmp_path_factory.mktemp("prepared")

    def do(module, *flags):
        done = processes.run(module, *flags, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr[-2000:]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        do("cxr_tfrecords.synthetic", "--output_dir=DIR", "--synthetic_scale=0.008")
        do("cxr_tfrecords.synthetic", "--output_dir=THEIRS", "--synthetic_scale=0.005", "--seed=1")
        build = ("beam_pipelines.build", "--nostats", "--image_size=32")
        do(*build, "--input_dir=DIR", "--output_dir=DATA")
        do("trainer.main", "--data_dir=DATA", "--run_dir=RUN", *TINY, "--sampler=oversample")
        classes = {"COVID": "Device", "Lung_Opacity": "Pneumonia", "Normal": "Healthy"}
        for mine, theirs in classes.items():
            shutil.copytree(f"THEIRS/{mine}/images", f"THEIR_IMAGES/{theirs}")
        _six_classes(folder)
        do(*build, "--input_dir=SIX", "--output_dir=DATA_OF_SIX")
        for name in ("DATA299", "LARGE_DATA"):
            os.symlink("DATA", name)
        for name in ("radiographs", "IMAGES"):
            os.symlink("DIR", name)
        shutil.copytree("THEIRS/COVID/images", "new_images")
        shutil.copyfile(sorted((folder / "new_images").iterdir())[0], "chest.png")
        _list_of_a_source(folder)
        os.symlink(ROOT / "launch", "launch")
        secret = folder / "config" / "cxr-balance" / "group_salt"  # that hashes ids
        secret.parent.mkdir(parents=True)
        secret.write_text("0123456789abcdef" * 2 + "\n")
        np.save("images.npy", np.zeros((2, 32, 32, 1), np.uint8))
    return folder


def _six_classes(folder):
    """The classes that docs/cascade.md speaks of."""
    images = sorted((folder / "DIR").glob("*/images/*"))
    names = ["Normal", "Tuberculosis", "Viral Pneumonia", "Bacterial Pneumonia", "Mild", "Severe"]
    for index, image in enumerate(images[:120]):
        target = folder / "SIX" / names[index % 6] / image.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, target)


def _list_of_a_source(folder):
    """LIST.csv: the images of three classes with a source and a patient each."""
    images = [
        path
        for path in sorted((folder / "DIR").glob("*/images/*"))
        if path.parts[-3] != "Viral Pneumonia"
    ]
    rows = [(path.relative_to(folder / "DIR"), path.parts[-3]) for path in images]
    with open(folder / "LIST.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("path", "label", "source", "group"),
                *((*row, "rsna", number) for number, row in enumerate(rows)),
            ]
        )


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_blocks_of_a_page_run_in_order(page, prepared, tmp_path, monkeypatch):
    for path in prepared.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    if page == "docs/cascade.md":
        (tmp_path / "DATA").unlink()
        (tmp_path / "DATA").symlink_to(prepared / "DATA_OF_SIX")
    monkeypatch.chdir(tmp_path)
    for language, block in blocks(page):
        if language == _PYTHON:
            _run_python(page, block, tmp_path, monkeypatch)
        elif language == _SHELL:
            _run_shell(page, block)
        else:
            for module, flags in commands(block):
                _run_command(page, module, flags)


def _run_python(page, block, folder, monkeypatch):
    if page == "docs/export.md":  # which reads files of an exported model beside it
        shutil.copyfile("images.npy", "MODEL/images.npy")
        monkeypatch.chdir("MODEL")
    block = block.replace('"chest.dcm", ', "")
    done = processes.run("-c", block, env={**os.environ, "PYTHONPATH": str(ROOT)})
    monkeypatch.chdir(folder)
    assert done.returncode == 0, f"{page}:\n{block}\n{done.stderr[-2000:]}"


def _run_command(page, module, flags):
    for old, new in SMALL_VALUES.items():
        flags = [re.sub(rf"{old}\b", new, flag) for flag in flags]
    if module.startswith("launch/"):
        _run_script(page, module, flags)
        return
    if page in HELP_ONLY.get(module, ()):
        flags = ["--help"]
    else:
        recipes = any(flag.startswith("--recipes=") for flag in flags)
        flags = [*flags, *(SMALL_RECIPES if recipes else SMALL.get(module, ()))]
        if module == "beam_pipelines.build" and "--image_size" not in " ".join(flags):
            flags.append("--image_size=32")
        results = RESULTS_OF_TRAINING if module == "trainer.main" else RESULTS
        for target in (match[1] for match in map(results.fullmatch, flags) if match):
            _remove(target)  # what was prepared, or an earlier variation of the same command
    done = processes.run(module, *flags, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, f"{page}: {module} {shlex.join(flags)}\n{done.stderr[-2000:]}"


def _run_script(page, script, flags):
    """A launcher, with flags for a tiny network after its `--`."""
    if "--dry_run" not in flags:
        flags = [*flags, *([] if "--" in flags else ["--"]), *TINY]
        _remove_runs(shlex.join(flags))
    _run_process(page, [str(ROOT / script), *flags], {"PYTHON": sys.executable})


def _run_shell(page, block):
    """A block that is a script: its `python` trains a tiny network, its workers get free ports."""
    _remove_runs(block)
    ports = sorted(set(re.findall(r"localhost:(\d+)", block)))
    for old, new in zip(ports, free_ports(len(ports)), strict=True):
        block = block.replace(f"localhost:{old}", f"localhost:{new}")
    python = f'python() {{ {shlex.quote(sys.executable)} "$@" {shlex.join(TINY)}; }}'
    _run_process(page, ["bash", "-c", f"{python}\n{block}"])
    for run_dir in re.findall(r"--run_dir=(\S+)", block):  # a script does not end with its failures
        assert os.path.exists(f"{run_dir}/report.md"), page


def _run_process(page, command, env=()):
    env = {**os.environ, "PYTHONPATH": str(ROOT), **dict(env)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{page}: {shlex.join(command)}\n{done.stderr[-2000:]}"


def _remove_runs(text):
    for run_dir in re.findall(r"--run_dir=(\S+)", text):
        _remove(run_dir)


def _remove(path):
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    else:
        shutil.rmtree(path, ignore_errors=True)
