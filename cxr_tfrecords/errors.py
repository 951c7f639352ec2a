"""Mistakes that a user can mend, and how every command of ours reports them."""

import difflib
import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

from absl import app, flags

from cxr_tfrecords.console import command_help, signals
from cxr_tfrecords.console.printable import printable

EXIT_TEMPORARY = 75  # EX_TEMPFAIL of sysexits.h, "the user is invited to retry"

# Modules of setup.py's extras `build` and `cpu`, which a plain installation does not have.
_EXTRA_MODULES = (
    *("keras", "matplotlib", "scipy", "sklearn", "tensorboard"),
    *("tensorflow", "tensorflow_datasets", "tqdm"),
)


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # a full disk, or a user's share of it
# A disk that is read-only, broken or gone, another user's files, names that it does not take.
_NO_ACCESS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.EBUSY),
    *(errno.ENAMETOOLONG, errno.ELOOP),
)
_TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)  # in the process, on the machine

_MOST_OF_A_LINE = 1000  # characters of a message, which may quote what a damaged file holds

# A run directory is `--model` where its model is used, and `--run_dir` where it is written.
_OTHER_NAMES = {"run_dir": "model", "model": "run_dir"}

# Text flags that are not paths, and whose value may well begin with "~".
_NOT_PATHS = ("label_separator",)


class TemporaryError(BaseException):
    """Nothing is wrong that a user must mend: the same command, run again, goes on.

    Signals raise it at any line, as they raise KeyboardInterrupt, so `except Exception` around
    the reading of a file must not take it for a damaged file.

    Entry modules print the message and exit with `EXIT_TEMPORARY`, which launchers restart on.
    """


class UserError(Exception):
    """Says what is wrong, where (file, value) and which flag mends it, in one message.

    Entry modules print it as `error: …` and exit with `exit_code`; anything else that is raised is
    a bug of ours and keeps its stack trace.
    """

    exit_code = 2


class DivergedError(UserError):
    """A training whose loss or weights became NaN or infinite. Nothing was wrong with the command,
    so others of the same study may well succeed."""

    exit_code = 3


def require_flags(*names: str) -> None:
    """Refuses a command line without these flags.

    Raises:
      UserError: one of them is empty.
    """
    for name in names:
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing: --help explains it")


def named_data_set(arguments: Sequence[str], data_dir: str, module: str) -> str:
    """The one dataset directory that a command line names, as an argument or by --data_dir.

    Args:
      arguments: those that are no flags, without the program's name.
      module: the command, for the message.

    Raises:
      UserError: it names none, or more than one.
    """
    named = [*arguments, *([data_dir] if data_dir else [])]
    if len(named) == 1:
        return named[0]
    given = f"it names {len(named)} ({', '.join(named)})" if named else "it names none"
    raise UserError(
        f"name one dataset directory: python -m {module} DATA, or --data_dir=DATA in place of "
        f"DATA; {given}"
    )


def first_line(error: BaseException, length: int | None = None) -> str:
    """The first line of an error's message, cut to `length` characters; its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:length]


def flag_problem(error: flags.Error, *values: flags.FlagValues) -> str:
    """What is wrong with a flag, without the words of Python's own converters.

    Args:
      values: flags that could have been meant; none: those of the command.
    """
    if isinstance(error, flags.UnrecognizedFlagError):
        known = [name for one in values or (flags.FLAGS,) for name in _own_flags(one)]
        other = _OTHER_NAMES.get(error.flagname)
        near = [other] if other in known else difflib.get_close_matches(error.flagname, known, 2)
        hint = " or ".join(f"--{name}" for name in dict.fromkeys(near))
        return f"unknown flag --{error.flagname}" + (f" (did you mean {hint}?)" if hint else "")
    text = re.sub(r"invalid literal for int\(\) with base 10: .*", "not a whole number", str(error))
    text = re.sub(r"could not convert string to float: .*", "not a number", text)
    choice = re.fullmatch(r"flag (--(\w+)=.*): value should be one of <(.*)>", text, re.DOTALL)
    if not choice:
        return text
    given, name, choices = choice.groups()
    hint = command_help.HINTS.get(name, "")
    return f"{given} {command_help.not_one_of(choices.split('|'), hint)}"


def _own_flags(values: flags.FlagValues) -> list[str]:
    """Names of flags without those that absl brings."""
    return [
        flag.name
        for module, defined in values.flags_by_module_dict().items()
        if not module.startswith("absl")
        for flag in defined
    ]


def _shortened(message: str) -> str:
    """The message as a terminal may show it, with the middle of each very long line left out: the
    remedy is at its end."""
    message = printable(message)
    half = _MOST_OF_A_LINE // 2
    return "\n".join(
        line if len(line) <= _MOST_OF_A_LINE else f"{line[:half]} … {line[-half:]}"
        for line in message.split("\n")
    )


def _expand_home(values: flags.FlagValues) -> None:
    """Replaces `~` at the beginning of a text flag, or of an item of a list, by the home folder.

    A shell does so in `--flag ~/x`, but not in `--flag=~/x`. It is done for every text flag but
    those of `_NOT_PATHS`, so that no flag for a path can be forgotten.
    """
    for name in values:
        flag = values[name]
        if name in _NOT_PATHS:
            continue
        if isinstance(flag.value, str):
            flag.value = os.path.expanduser(flag.value)
        elif isinstance(flag.value, list):
            flag.value = [
                os.path.expanduser(item) if isinstance(item, str) else item for item in flag.value
            ]


def expand_argument(argument: str) -> str:
    """The same for an argument: a path, or a flag of another program such as Beam's."""
    name, equals, value = argument.partition("=")
    if argument.startswith("-") and equals:
        return name + equals + os.path.expanduser(value)
    return os.path.expanduser(argument)


def run_main(
    main: Callable[[list[str]], int | None],
    *,
    known_only: bool = False,
    arguments: bool = False,
    interrupted: str = "",
) -> None:
    """Runs an entry point under absl; a user's mistake becomes one line and its exit code.

    In flags and arguments, `~` at the beginning of a path becomes the home folder.

    Args:
      main: gets the arguments that are not flags (the program's name first), returns the exit
        code; None is 0.
      known_only: leave unknown flags among main's arguments instead of refusing them.
      arguments: main takes others than flags; without, and without `known_only`, any is refused.
      interrupted: of a command that may end at any moment: what it says at Ctrl-C and SIGTERM.
    """

    def parse_flags(argv: list[str]) -> list[str]:
        try:
            if command_help.is_wanted(argv[1:]):
                print(command_help.command_help(), end="", flush=True)
                sys.exit(0)
            rest = flags.FLAGS(argv, known_only=known_only)
            _expand_home(flags.FLAGS)
            return [expand_argument(argument) for argument in rest]
        except flags.Error as error:
            text = f"error: {flag_problem(error)}. --help explains the flags"
            print(_shortened(text), file=sys.stderr)
            sys.exit(2)
        except SystemExit:  # absl has shown the help, and would call that a failure
            sys.exit(0)
        except BrokenPipeError:  # … and its reader has seen enough of it, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)

    def reported(argv: list[str]) -> int:
        # absl shows what is of interest; that matplotlib lists fonts on its first use is not, nor
        # where S3's library has found keys.
        for name in ("aiobotocore", "botocore", "matplotlib"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if interrupted:
            signals.end_at_once(interrupted, EXIT_TEMPORARY)
        else:
            signals.raise_once(TemporaryError("SIGTERM"))
        try:
            if argv[1:] and not (arguments or known_only):
                raise UserError(f"unknown argument {argv[1]!r}: flags look like --name=value")
            return main(argv) or 0
        except UserError as error:
            print(_shortened(f"error: {error}"), file=sys.stderr)
            return error.exit_code
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _EXTRA_MODULES:
                raise
            print(
                f"error: {package} is not installed: pip install 'cxr-balance[build]' brings "
                "what a build needs, 'cxr-balance[cpu]' (or gpu, tpu) all that training needs",
                file=sys.stderr,
            )
            return UserError.exit_code
        except TemporaryError as error:
            print(f"{error}: run the same command again to go on", file=sys.stderr)
            return EXIT_TEMPORARY
        except KeyboardInterrupt as error:
            print(
                f"{str(error) or 'interrupted'}: run the same command again to go on",
                file=sys.stderr,
            )
            return 130
        except Exception as error:
            if _is_lack_of_room(error):
                text = _explain_lack(error)
            elif isinstance(error, OSError) and error.errno in _NO_ACCESS:
                # A file is written under a temporary name at first, see `files.replacing`.
                name = re.sub(r"\.tmp-.*", "", f"{error.filename}") + ": " if error.filename else ""
                text = f"{name}{error.strerror}: the disk or its rights do not allow it"
            elif isinstance(error, OSError) and error.errno in _TOO_MANY_OPEN:
                text = f"{error.strerror}: allow more (ulimit -n 4096), then run the command again"
            else:
                raise
            print(_shortened(f"error: {text}"), file=sys.stderr)
            return UserError.exit_code

    app.run(reported, argv=sys.argv, flags_parser=parse_flags)


def _is_lack_of_room(error: Exception) -> bool:
    """Whether disk or memory are too small. TensorFlow's error is known by its name, because most
    commands do not import it."""
    is_device = type(error).__name__ == "ResourceExhaustedError"
    return is_device or isinstance(error, MemoryError) or getattr(error, "errno", 0) in _NO_ROOM


def _explain_lack(error: Exception) -> str:
    """One sentence that says what to make smaller, or where to make room."""
    # TensorFlow raises the same type for a full disk.
    if isinstance(error, OSError) or "no space left" in str(error).lower():
        name = getattr(error, "filename", None)
        reason = getattr(error, "strerror", None) or first_line(error, 160)
        return (
            f"cannot write{f' {name}' if name else ''}: {reason}: make room, then run the same "
            "command again"
        )
    remedy = "use a machine or an accelerator with more memory"
    if type(error).__name__ == "ResourceExhaustedError":
        remedy += ", or CUDA_VISIBLE_DEVICES=-1 for the CPU"
    if "batch_size" in flags.FLAGS:  # other commands take the batches of the run
        remedy = "use a smaller --batch_size"
    return f"out of memory ({first_line(error, 160)}): {remedy}"
