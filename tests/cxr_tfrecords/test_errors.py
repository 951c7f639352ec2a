"""What every command of ours does before and after its own work."""

import os
import subprocess
import sys

import pytest


def _run(main: str, call: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    code = f"from cxr_tfrecords.errors import run_main\n{main}\n{call}\n"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ("", 2, "error: unknown argument 'DATA': flags look like --name=value\n"),
        (", arguments=True", 0, ""),
        (", known_only=True", 0, ""),
    ],
)
def test_an_argument_is_refused_where_none_is_taken(settings, code, said):
    main = "def main(argv):\n    assert argv[1:] == ['DATA']"
    done = _run(main, f"run_main(main{settings})", "DATA")
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize("module", ["cxr_tfrecords.verify", "cxr_tfrecords.stats"])
@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([], "it names none"),
        (["a", "b"], "it names 2 (a, b)"),
        (["a", "--data_dir=b"], "it names 2 (a, b)"),
    ],
)
def test_a_data_set_is_named_once(module, arguments, given):
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"error: name one dataset directory: python -m {module} DATA, or --data_dir=DATA in place "
        f"of DATA; {given}\n"
    )


def test_a_message_that_quotes_much_of_a_file_keeps_its_beginning_and_its_end():
    main = "from cxr_tfrecords.errors import UserError\ndef main(argv):\n    raise UserError(TEXT)"
    text = "'run is damaged (' + '0.5' * 99_999 + '): train again\\nsecond line'"
    done = _run(main.replace("TEXT", text), "run_main(main)")
    first, second = done.stderr.splitlines()
    assert first.startswith("error: run is damaged (0.50")
    assert first.endswith("0.5): train again")
    assert len(first) < 1010
    assert (done.returncode, second) == (2, "second line")


def test_a_full_disk_is_one_line_in_every_command():
    main = "import errno\ndef main(argv):\n    raise OSError(errno.ENOSPC, 'No space left', 'out')"
    done = _run(main, "run_main(main)")
    line = "error: cannot write out: No space left: make room, then run the same command again\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_a_full_disk_names_the_file_also_where_a_write_does_not():
    main = """
import errno
from cxr_tfrecords import files
def main(argv):
    with files.replacing("out"):
        raise OSError(errno.ENOSPC, "No space left")"""
    done = _run(main, "run_main(main)")
    line = "error: cannot write out: No space left: make room, then run the same command again\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_a_message_that_quotes_a_name_gives_a_terminal_nothing_to_obey():
    name = "Icon\r\x1b]0;x\x07\u202e\udcff.png"
    main = f"def main(argv):\n    raise UserError({name!r})"
    done = _run(f"from cxr_tfrecords.errors import UserError\n{main}", "run_main(main)")
    assert done.stderr == "error: Icon\\r\\x1b]0;x\\x07\\u202e\\udcff.png\n"


@pytest.mark.parametrize("name", ["EROFS", "EACCES"])
def test_a_disk_that_cannot_be_written_is_one_line_in_every_command(name):
    main = f"import errno\ndef main(argv):\n    raise OSError(errno.{name}, 'No way', 'out.tmp-12')"
    done = _run(main, "run_main(main)")
    line = "error: out: No way: the disk or its rights do not allow it\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_too_many_open_files_is_one_line_in_every_command():
    main = "import errno\ndef main(argv):\n    raise OSError(errno.EMFILE, 'Too many', 'out')"
    done = _run(main, "run_main(main)")
    line = "error: Too many: allow more (ulimit -n 4096), then run the command again\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_lack_of_device_memory_is_one_line_that_says_what_to_make_smaller():
    main = """
from absl import flags
class ResourceExhaustedError(Exception):
    pass
def main(argv):
    flags.DEFINE_integer("batch_size", 9, "")
    raise ResourceExhaustedError("OOM when allocating\\nmore lines")"""
    done = _run(main, "run_main(main)")
    line = "error: out of memory (OOM when allocating): use a smaller --batch_size\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_home_folder_in_paths_is_expanded():
    main = """
from absl import flags
flags.DEFINE_string("out", "~/default", "Path.")
flags.DEFINE_string("store", "", "Path.")
flags.DEFINE_string("label_separator", "", "Text.")
flags.DEFINE_list("runs", [], "Paths.")
flags.DEFINE_alias("models", "runs")
flags.DEFINE_integer("count", 3, "Number.")
def main(argv):
    f = flags.FLAGS
    print(argv[1:], f.out, f.store, f.label_separator, f.runs, f.models, f.count)"""
    given = ["--store=gs://a/~/b", "--label_separator=~", "--models=~/a,b/~,~/c*", "~/in"]
    done = _run(main, "run_main(main, arguments=True)", *given, HOME="/h")
    runs = "['/h/a', 'b/~', '/h/c*']"
    assert done.stdout == f"['/h/in'] /h/default gs://a/~/b ~ {runs} {runs} 3\n", done.stderr


def test_home_folder_in_flags_of_other_programs_is_expanded():
    main = "def main(argv):\n    print(argv[1:])"
    given = ["--temp_location=~/t", "--staging_location=gs://a/~", "--name", "a=~"]
    done = _run(main, "run_main(main, known_only=True)", *given, HOME="/h")
    expected = ["--temp_location=/h/t", "--staging_location=gs://a/~", "--name", "a=~"]
    assert done.stdout == f"{expected}\n", done.stderr


def test_the_first_use_of_matplotlib_on_a_machine_logs_nothing(tmp_path):
    main = "def main(argv):\n    import matplotlib.font_manager"
    done = _run(main, "run_main(main)", MPLCONFIGDIR=str(tmp_path))
    assert done.returncode == 0
    assert list(tmp_path.glob("fontlist*.json"))
    assert "font_manager" not in done.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 75)])
def test_a_signal_ends_a_command_that_may_end_at_any_moment(name, code):
    main = f"""
def main(argv):
    import os, signal
    print("begun")
    try:
        os.kill(os.getpid(), signal.{name})
    except BaseException:
        print("no library may catch it")"""
    done = _run(main, "run_main(main, interrupted='all is kept')")
    said = {"SIGINT": "interrupted", "SIGTERM": "SIGTERM"}[name]
    assert (done.returncode, done.stdout) == (code, "begun\n")
    assert done.stderr == f"\n{said}: all is kept\n"


@pytest.mark.parametrize(
    ("define", "value", "said"),
    [
        ("DEFINE_integer('size', 1, '')", "large", "flag --size=large: not a whole number."),
        ("DEFINE_float('size', 1, '')", "fast", "flag --size=fast: not a number."),
        ("DEFINE_float('sizes', 1, '')", "1", "unknown flag --size (did you mean --sizes?)."),
        ("DEFINE_float('verbose', 1, '')", "1", "unknown flag --size."),
    ],
)
def test_a_flag_of_the_wrong_kind_is_said_without_words_of_python(define, value, said):
    main = f"from absl import flags\nflags.{define}\ndef main(argv):\n    pass"
    done = _run(main, "run_main(main)", f"--size={value}")
    assert (done.returncode, done.stderr) == (2, f"error: {said} --help explains the flags\n")


def test_a_flag_error_gives_a_terminal_nothing_to_obey_and_is_short():
    main = "from absl import flags\nflags.DEFINE_enum('size', 'a', ['a'], '')"
    done = _run(
        f"{main}\ndef main(argv):\n    pass",
        "run_main(main)",
        f"--size=\x1b[31m\u202e{'x' * 100_000}",
    )
    assert (done.returncode, done.stderr.isprintable()) == (2, False)  # for its line ends alone
    assert done.stderr.replace("\n", "").isprintable()
    assert len(done.stderr) < 2100


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 75)])
@pytest.mark.parametrize("where", ["os.kill(os.getpid(), number)", "Lost()"])
def test_a_signal_ends_a_command_after_it_has_cleaned_up(name, code, where):
    """Also one that comes while Python collects garbage, where it drops what is raised."""
    main = f"""
import os, signal, time
number = signal.{name}
class Lost:
    def __del__(self):
        os.kill(os.getpid(), number)
        time.sleep(0)
def main(argv):
    try:
        {where}
        time.sleep(20)
    finally:
        print("cleaned up")"""
    done = _run(main, "run_main(main)")
    said = {"SIGINT": "interrupted", "SIGTERM": "SIGTERM"}[name]
    assert (done.returncode, done.stdout) == (code, "cleaned up\n"), done.stderr
    assert done.stderr == f"{said}: run the same command again to go on\n"
