"""What the commands write on the terminal."""

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
from collections.abc import Callable, Sequence

from absl import flags, logging

from tf_mwnet.cli import flagfiles
from tf_mwnet.errors import Interrupted, NotANumber, UserError, WorkerLost

# Exit code that launchers take for "try again" (128 + SIGUSR1, as Kubeflow's TFJob has it).
RETRY = 138


# Lines that TensorFlow's C++ parts write about themselves, whatever the level is.
NOTES = re.compile(
    rb"[IWE]\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d .*: [IWE] |To enable the following instructions"
    rb"|WARNING: All log messages before absl"
)


def start() -> None:
    """Imports TensorFlow, as a command does first.

    Hides its notes unless the user has set their level. Turns the garbage collector off, which would
    take half of the import's time; `start_logging` turns it on.
    """
    quiet = "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    gc.disable()
    with _without_notes() if quiet else contextlib.nullcontext():
        import tensorflow as tf

        tf.config.list_physical_devices()  # this writes some, too


@contextlib.contextmanager
def _without_notes():
    """Holds what is written to stderr back, and passes on what is none of `NOTES`."""
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
    """Notes of this project's packages; from elsewhere only errors."""

    def __init__(self) -> None:
        super().__init__()
        root = pathlib.Path(__file__).parents[2]
        self.folders = tuple(f"{root / name}{os.sep}" for name in ("tf_mwnet", "pipelines"))

    def filter(self, record: python_logging.LogRecord) -> bool:
        return record.pathname.startswith(self.folders) or record.levelno >= python_logging.ERROR


def start_logging() -> None:
    """Sends log messages to stderr as ``tf_mwnet: message``; ends what `start` began."""
    if not gc.isenabled():
        gc.freeze()  # modules stay: there is nothing to be found in them
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


def read_flags(values: flags.FlagValues, arguments: Sequence[str], more: bool = False) -> list[str]:
    """Sets the flags from a command line (without the program's name); returns what is left.

    Args:
        values: the command's flags.
        arguments: the command line.
        more: whether there may be other flags, which are left then.

    Raises:
        UserError: a flag is unknown, a value has another type, or there is more than flags.
    """
    try:
        left = values(["command", *arguments], known_only=more)[1:]
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from error
    for argument in left:
        if not (more and argument.startswith("-")):
            raise UserError(f"unknown argument '{argument}'; allowed: flags, as --name=value")
    return left


def new_flags() -> flags.FlagValues:
    """Flags of a command, apart from absl's global ones, with --help."""
    values = flags.FlagValues()
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    return values


def command(
    about: str,
    values: flags.FlagValues,
    run: Callable[..., str | None],
    arguments: Sequence[str] | None = None,
    show_help: Callable[[], str] | None = None,
    more: bool = False,
) -> int:
    """Reads a command line, prints what ``run`` returns, and returns the exit code.

    0: done. 2: bad input, or a loss that is no longer finite; one line on stderr says what. 128 + n:
    ended by signal n. 138: another worker was lost, start all again.

    Args:
        about: what --help shows above the flags.
        values: the command's flags, see `new_flags`.
        run: does what the flags ask for; may return nothing to print.
        arguments: after the program's name; those of the process by default.
        show_help: gives what --help shows, in place of ``about`` and the flags.
        more: whether there may be other flags, which ``run`` then gets as a second argument.
    """
    start_logging()
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        given = flagfiles.expand(sys.argv[1:] if arguments is None else arguments)
        left = read_flags(values, given, more)
        if values.help:
            print(show_help() if show_help else f"{about}\n{values.get_help()}")
        elif text := run(values, left) if more else run(values):
            print(text)
    except WorkerLost as error:
        return fail(error, RETRY)
    except (UserError, NotANumber, OSError) as error:  # OSError: no permission, no space
        return fail(error, 2)
    except Interrupted as error:
        return fail(error, 128 + error.signal)
    except KeyboardInterrupt:
        return fail("stopped by SIGINT", 128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _terminated(number, frame):
    raise Interrupted(number, "stopped by SIGTERM")


def fail(message: object, code: int) -> int:
    """Writes one line to stderr and returns the exit code."""
    print(f"tf_mwnet: {' '.join(str(message).split())}", file=sys.stderr)
    return code
