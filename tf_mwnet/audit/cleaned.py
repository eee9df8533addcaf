"""Writes data sets without their label issues."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from tf_mwnet.audit.examine import Audit
from tf_mwnet.config import Experiment
from tf_mwnet.data import sources, texts
from tf_mwnet.data.images import rows_of
from tf_mwnet.data.splits import select_classes
from tf_mwnet.errors import UserError, choose, quoted
from tf_mwnet.files import new_folder, write_atomically
from tf_mwnet.types import LabelledSet, Source

MODES = ("drop", "relabel")


def check(path: pathlib.Path, mode: str, config: Experiment | None = None) -> None:
    """Raises ``UserError`` if a cleaned data set cannot be written to ``path``.

    Args:
        path: a new folder, for a folder of images or texts; a new ``.csv`` or ``.tsv`` file, for a table
            of texts; or a new ``.npz`` file.
        mode: "drop" leaves the flagged examples out, "relabel" gives them the suggested labels.
        config: of the run; None if it is not known yet.
    """
    choose("cleaned", mode, dict.fromkeys(MODES))
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UserError(f"write_cleaned '{path}' is there already; allowed: a new folder or file")
    if config is None:
        return
    table = sources.is_table(config.dataset)
    if table:
        _check_table(path)
    folder = config.dataset == "folder"
    if folder and path.suffix == ".npz" and texts.is_folder(config.data_dir or ""):
        raise UserError(f"write_cleaned is '{path}' for a folder of texts; allowed: a new folder")
    endings = (".npz", *texts.TABLES) if config.dataset == "records" else (".npz",)
    if not table and not folder and path.suffix not in endings:
        raise UserError(
            f"write_cleaned is '{path}' for data that is no folder of images; allowed: a path that"
            " ends in .npz"
        )


def _check_table(path: pathlib.Path) -> None:
    if path.suffix not in texts.TABLES:
        raise UserError(
            f"write_cleaned is '{path}' for a table of texts; allowed: a path that ends in"
            f" {' or '.join(texts.TABLES)}"
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
        raise UserError("write_cleaned is set, and the run's data cannot be loaded; allowed: with data")
    source = select_classes(audit.source, tuple(audit.config.classes))
    root = pathlib.Path(audit.config.data_dir or "") if audit.config.dataset == "folder" else None
    check(path, mode, audit.config)
    table = audit.table.sort_index()  # back to the order of the data
    names = np.array(source.class_names)
    kept, labels = _cleaned(table, mode)
    if isinstance(audit.examples.originals, texts.Texts) and root is None:
        _check_table(path)
        _write_table(source, path, audit.examples.take(kept.index.to_numpy()), labels)
    elif path.suffix in texts.TABLES:
        raise UserError(f"write_cleaned is '{path}' for images; allowed: a path that ends in .npz")
    elif root is None or path.suffix == ".npz":
        numbers = {name: k for k, name in enumerate(names)}
        y = labels.map(numbers).to_numpy(np.int64)
        rows = kept.index.to_numpy()
        own = not (audit.config.backbone or audit.config.features)
        _write_arrays(source, path, audit.examples.take(rows), y, own)
    else:
        _write_folder(source, root, path, list(zip(kept.id, labels, strict=True)))
    return len(kept)


def _cleaned(table: pd.DataFrame, mode: str) -> tuple[pd.DataFrame, pd.Series]:
    """Returns the rows that stay, and their labels; a class that would be lost stays as it is."""
    issue = table.is_label_issue
    while True:
        kept = table[~issue] if mode == "drop" else table
        labels = table.given_label.where(~issue, table.predicted_label)[kept.index]
        lost = sorted(set(table.given_label) - set(labels))
        if not lost:
            return kept, labels
        logging.warning(
            "all %d labels of class %s look wrong; they are kept, for the class not to be lost",
            table.given_label.isin(lost).sum(), quoted(lost[:5]),
        )  # fmt: skip
        issue = issue & ~table.given_label.isin(lost)


def _further_sets(source: Source) -> dict[str, LabelledSet]:
    """Returns the sets that the data comes with, apart from the training set."""
    return {name: part for name, part in source.sets.items() if name != "train"}


def _write_arrays(
    source: Source, path: pathlib.Path, train: LabelledSet, y: np.ndarray, own: bool
) -> None:
    """Writes a .npz file; ``own`` tells whether features are part of the user's data."""
    arrays: dict[str, Any] = {}
    for name, part in {"train": train.with_labels(y), **_further_sets(source)}.items():
        every = np.arange(len(part))
        arrays |= {f"x_{name}": rows_of(part.originals, every), f"y_{name}": part.y}
        if own and part.raw is not None:
            arrays[f"features_{name}"] = rows_of(part.x, every)
    arrays["class_names"] = np.array(source.class_names)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def _write_table(source: Source, path: pathlib.Path, train: LabelledSet, labels: pd.Series) -> None:
    names, frames = np.array(source.class_names), []
    for name, part in {"train": train, **_further_sets(source)}.items():
        words = rows_of(part.originals, np.arange(len(part)))
        given = labels.to_numpy() if name == "train" else names[part.y]
        frames.append(pd.DataFrame({texts.TEXT: words, "label": given, "split": name, "id": part.ids}))
    path.parent.mkdir(parents=True, exist_ok=True)
    between = texts.TABLES[path.suffix]
    table = pd.concat(frames)
    write_atomically(path, lambda file: table.to_csv(file, sep=between, index=False), mode="w")


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
