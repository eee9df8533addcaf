"""Files and folders that are whole or not there at all."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

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


@contextlib.contextmanager
def new_folder(path: pathlib.Path, prefix: str = "") -> Iterator[pathlib.Path]:
    """A folder to write into, beside ``path``; renamed to it at the end, or removed if that fails.

    Args:
        path: what it will be: not there yet, or an empty folder.
        prefix: of its name until then; a killed process leaves it. By default of ``path``'s name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix or f".{path.name}."))
    try:
        yield beside
        os.chmod(beside, 0o755)
        os.replace(beside, path)  # an empty folder may be in its place
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


@contextlib.contextmanager
def locked(folder: pathlib.Path, wait: bool) -> Iterator[None]:
    """Keeps other processes that ask for it out of a folder, which is made.

    Args:
        folder: where the file ``.lock`` lies.
        wait: until it is free.

    Raises:
        BlockingIOError: it is not free, and ``wait`` is False.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def write_csv(
    path: pathlib.Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str], digits: int = 6
) -> None:
    """Writes rows as CSV, atomically; the folder is made.

    Args:
        path: the file.
        rows: column -> value; other keys are left out.
        columns: in this order.
        digits: significant digits of floats.
    """

    def write(file):
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            shown = {k: f"{v:.{digits}g}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow(shown)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write, mode="w")


def load_arrays(path: pathlib.Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file that a run wrote.

    Args:
        path: the file.
        names: of those to read, as far as they are there; by default all.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with np.load(path) as arrays:
            return {k: arrays[k] for k in arrays.files if names is None or k in names}
    except Exception as error:  # zip and header errors of a damaged file
        raise UserError(f"'{path}' can not be read; allowed: as the run wrote it") from error
