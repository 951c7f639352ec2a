"""The commands and Python blocks of the pages run, in the order of the page, on small images.

The words that stand for a reader's own paths (DIR, DATA, RUN, …) are real names in the folder of
each page, so a block runs as it is written, but for

- `SMALL`: flags that are appended to a command, of which the last one counts (networks of a few
  layers, one epoch, one seed), and `SMALL_VALUES`: smaller numbers in the place of those given;
- `HELP_ONLY`: commands that are too dear here, of which only `--help` runs; `make docs` checks
  that their flags exist;
- `INSTALLING`: lines that install the project;
- blocks after a comment `<!-- not run: REASON -->`, which readers do not see.
"""

import os
import re
import shlex
import shutil

import numpy as np
import pytest

from tests.shared import ROOT
from tests.trainer import processes
from trainer.command_line import COMMANDS

NAMES = "quick_start tutorial training export external shortcuts label_doubts predict cascade api"
PAGES = ["README.md", *(f"docs/{name}.md" for name in NAMES.split())]
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
}
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
    "trainer.compare": ["docs/quick_start.md", "docs/tutorial.md", "docs/label_doubts.md"],
    "trainer.label_doubts": PAGES,  # which reads the runs of that comparison
}
RESULTS_OF_TRAINING = re.compile("--run_dir=(.+)")  # which other commands read
INSTALLING = ("git clone ", "python -m venv ", "pip install ", "cxr/bin/")
RESULTS = re.compile(r"--(?:output_dir|study_dir|cascade_dir|output)=(.+)")
_BLOCK = re.compile(r"(<!-- not run: .+? -->\n)?^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page):
    """Language and text of the blocks that are to be run."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = _BLOCK.findall(text)
    return [(language, block) for mark, language, block in found if not mark and language != "text"]


def commands(block):
    """Module and flags of each command of a block; None as module: a line that is none."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removesuffix(" …"), comments=True)
        if words[:2] == ["python", "-m"] and words[2] != "venv":
            yield words[2], words[3:]
        elif words[:1] == ["cxr-balance"]:
            yield COMMANDS[words[1]], words[2:]
        elif words and not line.startswith(INSTALLING):
            yield None, line


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page):
    for language, block in blocks(page):
        if language == "python":
            compile(block, page, "exec")
            continue
        assert language == "", f"{page}: mark a block of output as ```text"
        strange = [line for module, line in commands(block) if module is None]
        assert not strange, f"{page}: mark the block with <!-- not run: REASON -->: {strange}"


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


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_blocks_of_a_page_run_in_order(page, prepared, tmp_path, monkeypatch):
    for path in prepared.iterdir():
        (tmp_path / path.name).symlink_to(path)
    if page == "docs/cascade.md":
        (tmp_path / "DATA").unlink()
        (tmp_path / "DATA").symlink_to(prepared / "DATA_OF_SIX")
    monkeypatch.chdir(tmp_path)
    for language, block in blocks(page):
        if language == "python":
            _run_python(page, block, tmp_path, monkeypatch)
            continue
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
    if page in HELP_ONLY.get(module, ()):
        flags = ["--help"]
    else:
        flags = [*flags, *SMALL.get(module, ())]
        if module == "beam_pipelines.build" and "--image_size" not in " ".join(flags):
            flags.append("--image_size=32")
        results = RESULTS_OF_TRAINING if module == "trainer.main" else RESULTS
        for target in (match[1] for match in map(results.fullmatch, flags) if match):
            _remove(target)  # what was prepared, or an earlier variation of the same command
    done = processes.run(module, *flags, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, f"{page}: {module} {shlex.join(flags)}\n{done.stderr[-2000:]}"


def _remove(path):
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    else:
        shutil.rmtree(path, ignore_errors=True)
