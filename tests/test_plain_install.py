"""What a plain installation can do: a worker's part of a build, and every command's --help."""

import importlib.metadata
import json
import re
import runpy
import subprocess
import sys

import pytest

from tests import light_processes
from tests.beam_pipelines.commands import environment
from tests.helpers import write_dataset
from tests.shared import ROOT

# Makes the modules named in the first argument impossible to import, then runs the second.
HIDING = """
import sys
hidden = sys.argv.pop(1).split(",")
code = sys.argv.pop(1)
sys.modules.update(dict.fromkeys(hidden))  # None: `import` raises ModuleNotFoundError
exec(code)
"""
COMMANDS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for package in ("beam_pipelines", "benchmarks", "cxr_tfrecords", "trainer")
    for path in sorted((ROOT / package).rglob("*.py"))
    if re.search(r"^    run_main\(main", path.read_text(encoding="utf-8"), re.MULTILINE)
]


def normal(name):
    return name.lower().replace("_", "-")


def distributions(requirements):
    return {normal(re.match(r"[\w-]+", text).group()) for text in requirements}


@pytest.fixture(scope="module")
def extra_modules():
    """Modules of the packages that only the extras for users name, not those for developers."""
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("setuptools.setup", given.update)
        runpy.run_path(str(ROOT / "setup.py"))
    extras = {name: texts for name, texts in given["extras_require"].items() if name != "dev"}
    wanted = [text for texts in extras.values() for text in texts]
    names = distributions(wanted) - distributions(given["install_requires"])
    modules = importlib.metadata.packages_distributions()
    found = [m for m, owners in modules.items() if names.intersection(map(normal, owners))]
    assert {"keras", "matplotlib", "sklearn", "tensorflow", "tensorflow_datasets"} <= set(found)
    return ",".join(found)


def run_without(hidden, module, *arguments):
    return light_processes.run(module, *arguments, hidden=hidden.split(","))


def test_what_a_worker_runs_needs_no_extra(extra_modules):
    code = "from beam_pipelines.shards import inspection, write_shards"
    command = [sys.executable, "-c", HIDING, extra_modules, code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", COMMANDS)
def test_help_of_every_command_needs_no_extra(module, extra_modules):
    done = run_without(extra_modules, module, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m {module}" in done.stdout


# Prints the values that the text flags of commands have after `--flag=~/x`, a line a command.
HOME_IN_FLAGS = """
import json, os, runpy, sys
from absl import app, flags
TEXTS = ("string", "comma separated list of strings")
def run(main, argv, flags_parser):
    modules = flags.FLAGS.flags_by_module_dict().items()
    own = [flag for name, defined in modules if not name.startswith("absl") for flag in defined]
    names = [flag.name for flag in own if flag.flag_type() in TEXTS]
    flags_parser([argv[0], *(f"--{name}=~/x" for name in names)])
    print(json.dumps({name: flags.FLAGS[name].value for name in names}), flush=True)
app.run = run
import cxr_tfrecords.errors, cxr_tfrecords.settings, numpy  # once for all commands
commands = sys.argv[1:]
for module in commands:
    sys.argv = [module]
    if not os.fork():
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        os._exit(0)
    assert os.wait()[1] == 0, module
"""


def test_home_folder_is_expanded_in_every_path_flag_of_every_command():
    command = [sys.executable, "-c", HOME_IN_FLAGS, *COMMANDS]
    done = subprocess.run(command, env=environment(HOME="/h"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flags = dict(zip(COMMANDS, map(json.loads, done.stdout.splitlines()), strict=True))
    kept = {
        name
        for values in flags.values()
        for name, value in values.items()
        if value not in ("/h/x", ["/h/x"])
    }
    assert kept == {"label_separator"}
    assert {"run_dir", "data_dir", "weights"} <= flags["trainer.main"].keys()
    assert {"model", "input", "output"} <= flags["trainer.predict"].keys()


def test_every_package_has_commands():
    assert len(COMMANDS) >= 20
    assert {"beam_pipelines.build", "benchmarks.build", "trainer.main"} <= set(COMMANDS)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("beam_pipelines.build", ["--input_dir={data}"]),
        ("cxr_tfrecords.verify", ["{data}"]),
        ("trainer.compare", ["--data_dir={data}", "--study_dir={data}/study", "--batch_size=8"]),
        ("trainer.from_confusion", ["{data}/manifest.json"]),
        ("trainer.main", ["--data_dir={data}"]),
        ("trainer.sampler_preview", ["--data_dir={data}", "--batch_size=2", "--out={data}/x.png"]),
        ("trainer.statistics_check", []),
    ],
)
def test_a_command_that_lacks_an_extra_names_it_in_one_line(
    module, arguments, extra_modules, tmp_path
):
    write_dataset(tmp_path / "set")
    arguments = [text.format(data=tmp_path / "set") for text in arguments]
    done = run_without(extra_modules, module, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(r"error: \w+ is not installed: pip install 'cxr-balance\[build\]' .*", line)


def test_serving_without_its_extra_names_it_in_one_line(extra_modules, tmp_path):
    done = run_without(extra_modules, "trainer.serve", f"--model={tmp_path}")
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: fastapi is not installed: pip install 'cxr-balance\[serve\]' .*\n", done.stderr
    )
