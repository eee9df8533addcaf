"""Runs commands and writes to the terminal: flags, logging, exit codes."""

from __future__ import annotations

import contextlib
import gc
import logging as python_logging
import os
import pathlib
import re
import signal
import sys
import tempfile
import traceback
import types
from collections.abc import Callable, Iterator, Sequence

from absl import flags, logging

from tf_mwnet.cli import command_flags, flagfiles, help_pages
from tf_mwnet.errors import Interrupted, NotANumber, UserError, WorkerLost

# The exit code that launchers read as "try again" (128 + SIGUSR1, as in Kubeflow's TFJob).
RETRY = 138

# Notes that TensorFlow's C++ code writes at any level.
NOTES = re.compile(
    rb"[IWE]\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d .*: [IWE] |To enable the following instructions"
    rb"|WARNING: All log messages before absl|INFO: Created TensorFlow Lite"
)


def start() -> None:
    """Imports TensorFlow, the first thing that a command does.

    Where the command was asked for --help alone, shows a page that was made before (`help_pages`) and
    ends. On a terminal there is a sign of life while TensorFlow is imported. Hides TensorFlow's notes
    unless the user has set their level. Turns off the garbage collector, which would take half of the
    import's time, until `start_logging`.
    """
    _open_streams()
    module = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "")
    if page := help_pages.page(module, sys.argv[1:]):
        sys.exit(show(page))
    # "3" may come from the process that started this one.
    quiet = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3"
    gc.disable()
    with _sign_of_life(), without_notes() if quiet else contextlib.nullcontext():
        import tensorflow as tf

        tf.config.list_physical_devices()  # this writes notes, too


@contextlib.contextmanager
def _sign_of_life() -> Iterator[None]:
    """Shows a line on a terminal that goes away again."""
    shown = "tf_mwnet: importing TensorFlow ..."
    if not sys.stderr.isatty() or "tensorflow" in sys.modules:
        yield
        return
    stream = os.fdopen(os.dup(2), "w")  # the notes' place is taken
    with stream:
        stream.write(shown)
        stream.flush()
        yield
        stream.write(f"\r{' ' * len(shown)}\r")


def _open_streams() -> None:
    """Opens stdout and stderr on the null device where the caller has closed them."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Holds back what is written to stderr, then passes on everything but `NOTES`."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            for line in file:
                if not NOTES.match(line):
                    os.write(2, line)


class _Ours(python_logging.Filter):
    """Passes this project's messages; from elsewhere only errors."""

    def __init__(self) -> None:
        super().__init__()
        root = pathlib.Path(__file__).parents[2]
        self.folders = tuple(f"{root / name}{os.sep}" for name in ("tf_mwnet", "pipelines"))

    def filter(self, record: python_logging.LogRecord) -> bool:
        if record.pathname.endswith(os.path.join("saved_model", "load.py")):
            return False  # a damaged fingerprint.pb, which changes nothing, with a traceback
        return record.pathname.startswith(self.folders) or record.levelno >= python_logging.ERROR


def start_logging() -> None:
    """Sends log messages to stderr as ``tf_mwnet: message``; turns the garbage collector on again."""
    if not gc.isenabled():
        gc.freeze()  # modules are never collected
        gc.enable()
    if not flags.FLAGS.is_parsed():  # absl's own flags are not used; unparsed, its logging complains
        flags.FLAGS.mark_as_parsed()
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.python_handler.setStream(sys.stderr)  # as it is now, not when absl was imported
    handler.setFormatter(python_logging.Formatter("tf_mwnet: %(message)s"))
    handler.addFilter(_Ours())
    python_logging.getLogger("tensorflow").setLevel(python_logging.ERROR)


def show(text: str) -> int:
    """Prints a text; returns the exit code, see `command`."""
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        return _unread()
    return 0


def _unread() -> int:
    """Returns the exit code where nobody reads what is printed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at its end
    return 128 + signal.SIGPIPE


def command(
    about: str,
    values: flags.FlagValues,
    run: Callable[..., str | tuple[str, int] | None],
    arguments: Sequence[str] | None = None,
    show_help: Callable[[bool], str] | None = None,
    more: bool = False,
) -> int:
    """Reads a command line, prints what ``run`` returns, and returns the exit code.

    0: done. 2: bad input, or a loss that is no longer finite; one line on stderr names it. 128 + n:
    ended by signal n, 141 also where nobody reads what it prints. 138: another worker was lost, start
    all of them again. 70: a fault of this library, see `unforeseen`.

    Args:
        about: text above the flags in --help.
        values: the command's flags, see `command_flags.new_flags`.
        run: does the work; returns what to print, if anything, or that and an exit code.
        arguments: after the program's name; by default those of the process.
        show_help: returns the text of --help, or of --helpfull, instead of ``about`` and the flags.
        more: whether other flags are allowed; ``run`` gets them as a second argument.
    """
    start_logging()
    code, before = 0, signal.signal(signal.SIGTERM, _terminated)
    try:
        line = flagfiles.expand(sys.argv[1:] if arguments is None else arguments)
        left = command_flags.read_flags(values, line, more)
        if values.help or values.helpfull:
            print(
                show_help(values.helpfull)
                if show_help
                else f"{about}\n{command_flags.flags_text(values)}"
            )
        elif printed := run(values, left) if more else run(values):
            text, code = printed if isinstance(printed, tuple) else (printed, 0)
            print(text)
        sys.stdout.flush()
    except WorkerLost as error:
        return fail(error, RETRY)
    except BrokenPipeError:
        return _unread()
    except (UserError, NotANumber) as error:
        return fail(error, 2)
    except OSError as error:  # no permission, no space
        return fail(_about_file(error), 2)
    except Interrupted as error:
        return fail(error, 128 + error.signal)
    except Exception as error:
        return unforeseen(error)
    except KeyboardInterrupt:
        return fail("stopped by SIGINT", 128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
    return code


def _about_file(error: OSError) -> str:
    if not (error.filename and error.strerror):
        return str(error)
    file = error.filename if error.filename2 is None else error.filename2
    return (
        f"'{file}': {error.strerror[0].lower()}{error.strerror[1:]}; allowed: a place that can be used"
    )


def _terminated(number: int, frame: types.FrameType | None) -> None:
    raise Interrupted(number, "stopped by SIGTERM")


def unforeseen(error: Exception) -> int:
    """Writes one line about an unforeseen error, and its traceback to a file; returns 70.

    A full disk or a missing permission that TensorFlow reports is none: the exit code is 2. With
    ``TF_MWNET_DEBUG=1`` the traceback goes to the terminal.
    """
    text = " ".join(str(error).split())
    if type(error).__name__ in ("ResourceExhaustedError", "PermissionDeniedError"):
        return fail(f"{text[:300]}; allowed: a place with space and permission", 2)
    if os.environ.get("TF_MWNET_DEBUG") == "1":
        traceback.print_exception(error)
        return 70
    folder = getattr(error, "run_dir", None)
    if folder is None:
        handle, name = tempfile.mkstemp(".log", "tf_mwnet-error-")
        os.close(handle)
    else:
        name = os.path.join(folder, "error.log")
    with open(name, "w", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    what = f"{type(error).__name__}: {text[:300]}"
    return fail(f"a fault of tf_mwnet, please report it with '{name}' ({what})", 70)


def fail(message: object, code: int) -> int:
    """Writes one line to stderr and returns the exit code."""
    print(f"tf_mwnet: {' '.join(str(message).split())}", file=sys.stderr)
    return code
