"""Flagfiles, whose nested paths are relative to the file that names them."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from tf_mwnet.errors import UserError

# Other flags whose value is a flagfile.
NAMING = ("transfer",)
DEEPEST = 50  # flagfiles within each other


class _Line(str):
    """A flag that comes from a file."""

    file: str


def file_of(argument: str) -> str:
    """Returns the flagfile that an argument of `expand` comes from; "" without one."""
    return argument.file if isinstance(argument, _Line) else ""


def expand(arguments: Sequence[str]) -> list[str]:
    """Replaces each ``--flagfile=path`` by the flags in that file, in place, so that later ones win.

    The format is that of absl's flagfiles (a flag per line; ``#`` and ``//`` start comments), but the
    path of a nested flagfile is relative to the file that names it, not to the working folder. The same
    holds for the flags in `NAMING`. ``@name`` is a flagfile that comes with the project.

    Args:
        arguments: the command line after the program's name.

    Raises:
        UserError: a file does not exist, is not text, or includes itself; or a line is not a flag.
    """
    return _expand(list(arguments), pathlib.Path(), (), "")


def _expand(
    arguments: list[str], folder: pathlib.Path, within: tuple[pathlib.Path, ...], shown: str
) -> list[str]:
    out: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.lstrip("-").partition("=")
        if name in NAMING and value.startswith("@"):
            argument = f"--{name}={_path(value)}"
            value = _path(value)
        if value.startswith("~"):  # a shell leaves it as it is behind an equals sign
            value = os.path.expanduser(value)
            argument = f"--{name}={value}"
        if within and name in NAMING and value:
            argument = f"--{name}={(folder / value).resolve()}"
        if not argument.startswith("-") or name != "flagfile":
            out.append(_of(shown, argument) if shown else argument)
            continue
        if not equals:
            value = next(rest, "")
        if not value:
            raise UserError("flagfile is empty; allowed: --flagfile=<path>")
        for path in map(_path, filter(None, value.split(","))):
            out += _lines((folder / path).resolve(), path, within)
    return out


def _of(file: str, argument: str) -> str:
    line = _Line(argument)
    line.file = file
    return line


def _path(text: str) -> str:
    from tf_mwnet.files import (  # brings NumPy, which the list of commands does without
        FLAGFILES,
        shipped,
    )

    return os.path.expanduser(shipped(FLAGFILES, text))


def _lines(path: pathlib.Path, shown: str, within: tuple[pathlib.Path, ...]) -> list[str]:
    if not path.is_file():
        raise UserError(f"flagfile '{shown}' is not there; allowed: a file with one flag per line")
    if len(within) > DEEPEST:
        raise UserError(f"flagfile '{shown}' is {len(within)} files deep; allowed: {DEEPEST}")
    if path in within:
        raise UserError(f"flagfile '{shown}' includes itself; allowed: files that do not")
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"flagfile '{shown}' is no text; allowed: one flag per line") from error
    lines = [line for line in lines if line and not line.startswith(("#", "//"))]
    for line in lines:
        if not line.startswith("-"):
            raise UserError(f"flagfile '{shown}' has the line '{line}'; allowed: --name=value")
    return _expand(lines, path.parent, (*within, path), shown)
