"""What the commands write on the terminal."""

from __future__ import annotations

import gc
import logging as python_logging
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from absl import flags, logging

from tf_mwnet.errors import UserError


def start() -> None:
    """What a command does before it imports TensorFlow.

    Hides TensorFlow's notes unless the user has set their level. Turns the garbage collector off, which
    would take half of the import's time; `start_logging` turns it on.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    gc.disable()


class _Ours(python_logging.Filter):
    """Notes of this package; from elsewhere only errors."""

    folder = str(pathlib.Path(__file__).parent)

    def filter(self, record: python_logging.LogRecord) -> bool:
        return record.pathname.startswith(self.folder) or record.levelno >= python_logging.ERROR


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


def read_flags(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Sets the flags from a command line (without the program's name).

    Raises:
        UserError: a flag is unknown, a value has another type, or there is more than flags.
    """
    try:
        left = values(["command", *arguments])[1:]
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from error
    if left:
        raise UserError(f"unknown argument '{left[0]}'; allowed: flags, as --name=value")


def new_flags() -> flags.FlagValues:
    """Flags of a command, apart from absl's global ones, with --help."""
    values = flags.FlagValues()
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    return values


def command(
    about: str,
    values: flags.FlagValues,
    run: Callable[[flags.FlagValues], str],
    arguments: Sequence[str] | None = None,
) -> int:
    """Reads a command line, prints what ``run`` returns, and returns the exit code.

    0: done. 2: bad input; one line on stderr says what.

    Args:
        about: what --help shows above the flags.
        values: the command's flags, see `new_flags`.
        run: does what the flags ask for; may raise ``UserError``; may return nothing to print.
        arguments: after the program's name; those of the process by default.
    """
    start_logging()
    try:
        read_flags(values, sys.argv[1:] if arguments is None else arguments)
        if text := f"{about}\n{values.get_help()}" if values.help else run(values):
            print(text)
    except (UserError, OSError) as error:
        return fail(error, 2)
    return 0


def fail(message: object, code: int) -> int:
    """Writes one line to stderr and returns the exit code."""
    print(f"tf_mwnet: {' '.join(str(message).split())}", file=sys.stderr)
    return code
