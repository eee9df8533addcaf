"""Writes data sets without their label issues."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import numpy as np

from tf_mwnet.audit.examine import Audit
from tf_mwnet.data.images import rows_of
from tf_mwnet.data.splits import select_classes
from tf_mwnet.errors import UserError, choose
from tf_mwnet.files import new_folder, write_atomically
from tf_mwnet.types import LabelledSet, Source

MODES = ("drop", "relabel")


def check(path: pathlib.Path, mode: str, folder: bool | None = None) -> None:
    """Raises ``UserError`` if a cleaned data set cannot be written to ``path``.

    Args:
        path: a new folder, for a folder of images; or a new ``.npz`` file.
        mode: "drop" leaves the flagged examples out, "relabel" gives them the suggested labels.
        folder: whether the data is a folder of images; None if not known yet.
    """
    choose("cleaned", mode, dict.fromkeys(MODES))
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UserError(f"write_cleaned '{path}' is there already; allowed: a new folder or .npz file")
    if folder is False and path.suffix != ".npz":
        raise UserError(
            f"write_cleaned is '{path}' for data that is no folder of images; allowed: a path that"
            " ends in .npz"
        )


def write(audit: Audit, path: pathlib.Path, mode: str = "drop") -> int:
    """Writes the audited data set without its issues; returns the number of examples in training.

    Examples that the run held out of the training set for testing or learning are part of it again. The
    data's own test and meta sets are written unchanged.

    Args:
        audit: with its data.
        path, mode: see `check`.

    Raises:
        UserError: see `check`; or the data of the run could not be loaded.
    """
    path = pathlib.Path(path)
    if audit.source is None or audit.examples is None:
        raise UserError("write_cleaned is set, and the run's data can not be loaded; allowed: with data")
    source = select_classes(audit.source, tuple(audit.config.classes))
    root = pathlib.Path(audit.config.data_dir or "") if audit.config.dataset == "folder" else None
    check(path, mode, root is not None)
    table = audit.table.sort_index()  # back to the order of the data
    names = np.array(source.class_names)
    if mode == "drop":
        kept = table[~table.is_label_issue]
        labels = kept.given_label
    else:
        kept = table
        labels = table.given_label.where(~table.is_label_issue, table.predicted_label)
    if root is None or path.suffix == ".npz":
        numbers = {name: k for k, name in enumerate(names)}
        y = labels.map(numbers).to_numpy(np.int64)
        rows = kept.index.to_numpy()
        _write_arrays(source, path, rows_of(audit.examples.originals, rows), y)
    else:
        _write_folder(source, root, path, list(zip(kept.id, labels, strict=True)))
    return len(kept)


def _further_sets(source: Source) -> dict[str, LabelledSet]:
    """Returns the sets that the data comes with, apart from the training set."""
    return {name: part for name, part in source.sets.items() if name != "train"}


def _write_arrays(source: Source, path: pathlib.Path, x: np.ndarray, y: np.ndarray) -> None:
    arrays: dict[str, Any] = {"x_train": x, "y_train": y}
    for name, part in _further_sets(source).items():
        arrays |= {f"x_{name}": rows_of(part.originals, np.arange(len(part))), f"y_{name}": part.y}
    arrays["class_names"] = np.array(source.class_names)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def _write_folder(
    source: Source, root: pathlib.Path, path: pathlib.Path, pairs: list[tuple[str, str]]
) -> None:
    names = source.class_names
    for part in _further_sets(source).values():
        pairs = [*pairs, *((i, names[k]) for i, k in zip(part.ids, part.y, strict=True))]
    with new_folder(path) as temporary:
        for name in names:
            (temporary / "train" / name).mkdir(parents=True)
        for place, label in pairs:
            split, before, name = place.split("/", 2)
            # Two classes may have files of one name.
            target = temporary / split / label / (name if label == before else f"{before}-{name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise UserError(f"'{place}' would replace '{target.name}'; allowed: names that differ")
            shutil.copy2(root / place, target)
