"""A worker of a build imports what a plain installation brings, and nothing of the extras."""

import importlib.metadata
import re
import runpy
import subprocess
import sys

import pytest

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


def normal(name):
    return name.lower().replace("_", "-")


def distributions(requirements):
    return {normal(re.match(r"[\w-]+", text).group()) for text in requirements}


@pytest.fixture
def extra_modules(monkeypatch):
    """Modules of the packages that only the extras `build` and `cpu` name."""
    given = {}
    monkeypatch.setattr("setuptools.setup", given.update)
    runpy.run_path(str(ROOT / "setup.py"))
    extras = given["extras_require"]
    names = distributions([*extras["build"], *extras["cpu"]]) - distributions(
        given["install_requires"]
    )
    modules = importlib.metadata.packages_distributions()
    found = [m for m, owners in modules.items() if names.intersection(map(normal, owners))]
    assert {"keras", "matplotlib", "sklearn", "tensorflow", "tensorflow_datasets"} <= set(found)
    return ",".join(found)


def test_what_a_worker_runs_needs_no_extra(extra_modules):
    code = "from beam_pipelines.shards import inspection, write_shards"
    command = [sys.executable, "-c", HIDING, extra_modules, code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["beam_pipelines.build", "cxr_tfrecords.verify"])
def test_a_command_that_lacks_an_extra_names_it_in_one_line(module, extra_modules, tmp_path):
    dataset = tmp_path / "set"
    write_dataset(dataset)
    code = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    arguments = [f"--input_dir={dataset}"] if module.endswith("build") else [str(dataset)]
    command = [sys.executable, "-c", HIDING, extra_modules, code, *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(r"error: \w+ is not installed: pip install 'cxr-balance\[build\]' .*", line)
