"""Files that are whole or not there at all."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import IO

import numpy as np

from tf_mwnet.errors import UserError


def write_atomically(path: pathlib.Path, write: Callable[[IO], None], mode: str = "wb") -> None:
    """Writes a file beside ``path`` and renames it, so that a killed process leaves no half file.

    Args:
        path: the file to write or replace; its folder exists.
        write: writes the content to the open file.
        mode: "w" or "wb".
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode) as file:
            write(file)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def load_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file that a run wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except Exception as error:  # zip and header errors of a damaged file
        raise UserError(f"'{path}' can not be read; allowed: as the run wrote it") from error
