"""Files and folders that are complete or not there at all, and reading them."""

from __future__ import annotations

import contextlib
import csv
import difflib
import fcntl
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tf_mwnet.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SOFTWARE = "tf_mwnet"  # names us in files that are shared: pictures and pages


def holds_files(folder: pathlib.Path, started: str = "") -> bool:
    """Tells whether a folder holds anything, apart from a lock and an unfinished `write_atomically`.

    Args:
        folder: a folder or nothing.
        started: name of the file whose writing may have been killed.
    """
    unfinished = re.compile(rf"\.lock|\.{re.escape(started)}\.[a-z0-9_]{{8}}")
    return folder.is_dir() and any(not unfinished.fullmatch(path.name) for path in folder.iterdir())


def check_folder(name: str, path: pathlib.Path, allowed: str = "a new folder") -> None:
    """Raises ``UserError`` where a path that is to be a folder is a file, or below one.

    Args:
        name: of the flag, for the message.
        path: the path.
        allowed: what is, for the message.
    """
    file = next((p for p in (path, *path.parents) if p.exists() and not p.is_dir()), None)
    if file == path:
        raise UserError(f"{name} '{path}' is a file; allowed: {allowed}")
    if file is not None:
        raise UserError(f"{name} '{path}' is below '{file}', a file; allowed: {allowed}")


def write_atomically(path: pathlib.Path, write: Callable[[IO[Any]], object], mode: str = "wb") -> None:
    """Writes a temporary file and renames it, so that a killed process leaves no partial file.

    Args:
        path: the file to write or replace, in an existing folder.
        write: writes the content to the open file; what it returns is ignored.
        mode: "w", of UTF-8, or "wb".
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            write(file)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def new_folder(path: pathlib.Path, prefix: str = "") -> Iterator[pathlib.Path]:
    """Yields a temporary folder next to ``path``; renames it at the end, or removes it on an error.

    Args:
        path: its final place: nothing, or an empty folder.
        prefix: of its temporary name, which a killed process leaves behind; by default from ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix or f".{path.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        os.replace(temporary, path)  # an empty folder may be in its place
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def locked(folder: pathlib.Path, wait: bool) -> Iterator[None]:
    """Locks a folder against other processes that lock it; creates it if needed.

    Args:
        folder: it gets the file ``.lock``.
        wait: whether to wait until the lock is free.

    Raises:
        BlockingIOError: the lock is taken, and ``wait`` is False.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as file:  # a look leaves no trace
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


# What makes a spreadsheet take a cell for a formula, behind any apostrophes.
FORMULA = re.compile(r"'*[=+\-@\t\r]..*", re.DOTALL)


def cell_text(text: str) -> str:
    """Writes a text so that no spreadsheet runs it: with an apostrophe before what looks like a formula.

    File names and class names come from other people. Numbers and a lone sign are left as they are.

    Examples:
        >>> cell_text("=1+1"), cell_text("-2.5"), cell_text("cat"), as_written("'=1+1")
        ("'=1+1", '-2.5', 'cat', '=1+1')
    """
    if not FORMULA.fullmatch(text):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def as_written(cell: str) -> str:
    """Gives back the text that `cell_text` has written as a cell."""
    return cell[1:] if cell.startswith("'") and FORMULA.fullmatch(cell[1:]) else cell


def write_csv(
    path: pathlib.Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str], digits: int = 6
) -> None:
    """Writes rows as CSV, atomically; creates the folder if needed.

    Args:
        path: the file.
        rows: column -> value; other keys are left out. Texts are written by `cell_text`.
        columns: in this order.
        digits: significant digits of floats.
    """

    def shown(value: Any) -> Any:
        if isinstance(value, float):
            return f"{value:.{digits}g}"
        return cell_text(value) if isinstance(value, str) else value

    def write(file: IO[str]) -> None:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: shown(v) for k, v in row.items()})

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write, mode="w")


def write_frame(path: pathlib.Path, frame: pd.DataFrame) -> None:
    """Writes a pandas frame without its index as CSV, see `write_csv`."""
    shown = frame.map(lambda value: cell_text(value) if isinstance(value, str) else value)
    text = shown.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(text), mode="w")


@contextlib.contextmanager
def reading(what: str | pathlib.Path) -> Iterator[None]:
    """Turns what a file of another shape causes into a `UserError`: a missing key, a list for a number.

    Args:
        what: the file or folder, for the message.
    """
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise UserError(f"'{what}' cannot be used ({text}); allowed: as it was written") from error


def load_arrays(path: pathlib.Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Reads arrays from a ``.npz`` file that a run wrote.

    Args:
        path: the file.
        names: of the arrays to read, if they are there; by default all.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with np.load(path) as arrays:
            return {k: arrays[k] for k in arrays.files if names is None or k in names}
    except Exception as error:  # zip and header errors of a damaged file
        raise UserError(f"'{path}' cannot be read; allowed: as the run wrote it") from error


def read_json(path: pathlib.Path, kind: type = dict) -> Any:
    """Reads a JSON object, or another ``kind`` of value, from a file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, kind):
            raise ValueError(f"a {type(content).__name__} in place of a {kind.__name__}")
        return content
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read: {error}; allowed: the file a run wrote") from error


# -------------------------------------------------------------------- what comes with the project


_PACKAGE = pathlib.Path(__file__).resolve().parent
# The folder that ``configs`` and ``saved_models`` lie in.
ROOT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
FLAGFILES, WEIGHT_NETS = "configs", "saved_models"


def _shipped_names(kind: str) -> dict[str, pathlib.Path]:
    folder = ROOT / kind
    if kind == FLAGFILES:
        paths = sorted(folder.rglob("*.cfg"))
        return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}
    return {path.parents[1].name: path.parents[1] for path in sorted(folder.glob("*/*/saved_model.pb"))}


def shipped_path(kind: str, name: str) -> pathlib.Path:
    """Returns the path of a file or folder that comes with the project.

    Examples:
        >>> shipped_path(FLAGFILES, "cifar10_flip").name, shipped_path(WEIGHT_NETS, "mnist_uniform").name
        ('cifar10_flip.cfg', 'mnist_uniform')

    Args:
        kind: `FLAGFILES` or `WEIGHT_NETS`.
        name: of a flagfile without its ending, "sweeps/digits_all_methods"; or of a weight net.

    Raises:
        UserError: there is none of this name.
    """
    names = _shipped_names(kind)
    if name in names:
        return names[name]
    close = difflib.get_close_matches(name, names, n=3)
    names_of_close = ", ".join(f"'@{n}'" for n in close)
    hint = f" (did you mean {names_of_close}?)" if close else ""
    what = "flagfile" if kind == FLAGFILES else "weight net"
    raise UserError(
        f"no {what} '@{name}' comes with the project{hint}; allowed: those in '{ROOT / kind}'"
    )


def shipped(kind: str, text: str) -> str:
    """Returns the path of ``@name``, see `shipped_path`; any other text as it is."""
    return str(shipped_path(kind, text[1:])) if text.startswith("@") else text
