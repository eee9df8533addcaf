"""Files that come with the project: flagfiles and weight nets, by name.

In a clone they lie in ``configs`` and ``saved_models`` beside the package, in a wheel inside of it.
"""

from __future__ import annotations

import difflib
import pathlib

from tf_mwnet.errors import UserError

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# The folder that ``configs`` and ``saved_models`` lie in.
ROOT = PACKAGE if (PACKAGE / "configs").is_dir() else PACKAGE.parent
FLAGFILES, WEIGHT_NETS = "configs", "saved_models"


def _names(kind: str) -> dict[str, pathlib.Path]:
    folder = ROOT / kind
    if kind == FLAGFILES:
        paths = sorted(folder.rglob("*.cfg"))
        return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}
    return {path.parents[1].name: path.parents[1] for path in sorted(folder.glob("*/*/saved_model.pb"))}


def path_of(kind: str, name: str) -> pathlib.Path:
    """Returns the path of a file or folder that comes with the project.

    Examples:
        >>> path_of(FLAGFILES, "cifar10_flip").name, path_of(WEIGHT_NETS, "mnist_uniform").name
        ('cifar10_flip.cfg', 'mnist_uniform')

    Args:
        kind: `FLAGFILES` or `WEIGHT_NETS`.
        name: of a flagfile without its ending, "sweeps/digits_all_methods"; or of a weight net.

    Raises:
        UserError: there is none of this name.
    """
    names = _names(kind)
    if name in names:
        return names[name]
    close = difflib.get_close_matches(name, names, n=3)
    hint = ", ".join(f"'@{n}'" for n in close) or f"the {len(names)} in '{ROOT / kind}'"
    what = "flagfile" if kind == FLAGFILES else "weight net"
    raise UserError(f"no {what} '@{name}' comes with the project; allowed: {hint}")


def resolved(kind: str, text: str) -> str:
    """Returns the path of ``@name``, see `path_of`; any other text as it is."""
    return str(path_of(kind, text[1:])) if text.startswith("@") else text
