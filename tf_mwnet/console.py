"""What the commands write on the terminal."""

from __future__ import annotations

import logging as python_logging
import os
import pathlib
import sys

from absl import flags, logging


def quiet_start() -> None:
    """Hides TensorFlow's notes unless the user has set their level; call before importing it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class _Ours(python_logging.Filter):
    """Notes of this package; from elsewhere only errors."""

    folder = str(pathlib.Path(__file__).parent)

    def filter(self, record: python_logging.LogRecord) -> bool:
        return record.pathname.startswith(self.folder) or record.levelno >= python_logging.ERROR


def start_logging() -> None:
    """Sends log messages to stderr as ``tf_mwnet: message``."""
    if not flags.FLAGS.is_parsed():  # absl's own flags are not used; unparsed, its logging complains
        flags.FLAGS.mark_as_parsed()
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.python_handler.setStream(sys.stderr)  # as it is now, not when absl was imported
    handler.setFormatter(python_logging.Formatter("tf_mwnet: %(message)s"))
    handler.addFilter(_Ours())
    python_logging.getLogger("tensorflow").setLevel(python_logging.ERROR)
