"""Files that a command writes where the user says: those of other programs are not replaced."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import flags

from tf_mwnet.errors import UserError
from tf_mwnet.files import SOFTWARE, check_folder

HEAD = 4096  # bytes in which the mark is looked for
PNG = f"Software\0{SOFTWARE}".encode()  # a text chunk of pictures that `plots.save` writes


def define_overwrite(values: flags.FlagValues) -> None:
    """Defines --overwrite, which `check` obeys."""
    text = "replace the files that are named, also if this command has not written them"
    flags.DEFINE_boolean("overwrite", False, text, flag_values=values)


def check(values: flags.FlagValues, **ours: Sequence[str] | bytes) -> None:
    """Checks, before the work begins, that no file of another program would be replaced.

    Args:
        values: flags, with those that `ours` names; an empty one is no file.
        ours: flag -> what marks a file that the command has written: names of columns in a CSV file or
            a Markdown table, all in its first line; or bytes near the beginning.

    Raises:
        UserError: a file is there that lacks the mark, without --overwrite; or a folder, or the place
            is below a file.
    """
    for name, mark in ours.items():
        path = pathlib.Path(getattr(values, name))
        if not getattr(values, name):
            continue
        if path.is_dir():
            raise UserError(f"{name} is '{path}', a folder; allowed: a file")
        check_folder(name, path.parent, "a file in a folder")
        if path.exists() and not values.overwrite and not _marked(path, mark):
            raise UserError(
                f"{name} is '{path}', which this command has not written; allowed: a new file, or"
                " --overwrite"
            )


def _marked(path: pathlib.Path, mark: Sequence[str] | bytes) -> bool:
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return path.is_file()  # nothing is lost
    if isinstance(mark, bytes):
        return mark in head
    line = head.splitlines()[0].decode("utf-8", "replace").strip("| ")
    return set(mark) <= {cell.strip() for cell in line.replace("|", ",").split(",")}
