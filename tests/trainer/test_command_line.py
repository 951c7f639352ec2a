"""cxr-balance: every command has a verb, which does what `python -m MODULE` does."""

import subprocess
import sys

import pytest

import cxr_tfrecords
from tests.beam_pipelines.commands import environment
from tests.test_plain_install import COMMANDS, HIDING
from trainer import command_line

SLOW = "tensorflow,keras,apache_beam,matplotlib,scipy,sklearn,numpy"


def run(*arguments, hidden=SLOW):
    code = "from trainer.command_line import main; sys.exit(main())"
    command = [sys.executable, "-c", HIDING, hidden, code, *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True)


@pytest.fixture
def shown(monkeypatch, capsys):
    """Runs the command line in this process: exit code, stdout and stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["/usr/bin/cxr-balance", *arguments])
        code = command_line.main()
        return code, *capsys.readouterr()

    return call


def test_every_command_that_is_installed_has_a_verb():
    installed = [module for module in COMMANDS if not module.startswith("benchmarks.")]
    assert sorted(command_line.COMMANDS.values()) == sorted(installed)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_each_verb_with_its_purpose(shown, flag):
    code, out, err = shown(flag)
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    for verb, module in command_line.COMMANDS.items():
        first = command_line._first_line(module)
        assert len(first) > 20
        assert f" {verb} {first} ({module}) " in text
    assert max(map(len, out.splitlines())) <= 100


def test_version_is_the_packages(shown):
    assert shown("--version") == (0, f"cxr-balance {cxr_tfrecords.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "--epochs=1"], "there is no command 'trian': did you mean train?"),
        (["predictions"], "did you mean predict or predict-beam?"),
        (["zzz"], "there is no command 'zzz' (cxr-balance --help lists all)"),
        ([], "no command is given"),
        (["--data_dir=x"], "there is no command '--data_dir=x'"),
    ],
)
def test_an_unknown_verb_is_refused_with_the_similar_ones(shown, arguments, message):
    code, out, err = shown(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err


def test_a_verb_runs_its_module_with_its_own_flags():
    done = run("from_confusion", "nowhere.json", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Metrics, intervals and comparisons from confusion matrices")
    assert "--out=TEXT" in done.stdout
    done = run("verify", "nowhere", hidden="tensorflow,keras,apache_beam")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nowhere")


def test_help_needs_the_standard_library_alone():
    done = run("--help", hidden=f"{SLOW},absl,cv2,PIL,fsspec,pyarrow")
    assert (done.returncode, done.stderr) == (0, "")
    assert "trainer.main" in done.stdout


@pytest.mark.parametrize("flags", [["export", "--output_dir=o"], ["model-card", "--output=o"]])
def test_every_command_that_uses_a_model_takes_it_as_model(flags, tmp_path):
    """As predict, serve, evaluate and shortcuts do; --run_dir is the older name."""
    done = run(*flags, f"--model={tmp_path / 'none'}", hidden="none")
    assert done.returncode == 2
    assert "a finished run" in done.stderr
