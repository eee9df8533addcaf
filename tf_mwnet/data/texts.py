"""Reads texts: a table with a column of texts, or a folder of text files."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tf_mwnet.data import checks
from tf_mwnet.data.folders import class_folders, files_in, tell_left_out, test_name
from tf_mwnet.errors import UserError, quoted
from tf_mwnet.types import LabelledSet, Source

TABLES = {".csv": ",", ".tsv": "\t"}  # endings, and what is between the columns
SETS = ("train", "test", "meta")
SPLIT, ID = "split", "id"  # columns that a table may have
TEXT = "text"  # the column of texts, by default
ENDING = ".txt"  # of text files in a folder


class Texts:
    """N texts in memory, in place of an array of inputs, see `types.Images`.

    Args:
        values: str ``[N]``.
    """

    ndim = 1
    dtype = np.dtype(object)

    def __init__(self, values: Sequence[str] | np.ndarray) -> None:
        self.values = np.array(values, object)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: np.ndarray) -> Texts:
        return Texts(self.values[rows])

    def joined(self, other: object) -> Texts:
        """Appends other texts."""
        assert isinstance(other, Texts)
        return Texts(np.concatenate([self.values, other.values]))

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the texts at ``rows``, an object array of str."""
        return self.values[rows]

    def fingerprint(self) -> str:
        """Returns a digest of all texts."""
        digest = hashlib.sha256()
        for text in self.values:
            data = text.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


def load_table(
    path: str, text_column: str = TEXT, label_key: str = "", clean_label_key: str = ""
) -> Source:
    """Reads texts from a table in UTF-8, whose first row names the columns.

    Args:
        path: a ``.csv`` or ``.tsv`` file, whose column ``split`` (train, test or meta), if it has one,
            tells the sets apart; or a folder with ``train.csv`` and optional ``test.csv`` and
            ``meta.csv``. A column ``id`` names the examples.
        text_column: the column of texts.
        label_key: the column of labels, any texts; ``label`` by default.
        clean_label_key: the column of true labels, if there is one. They are used for testing and for a
            clean meta set.

    Raises:
        UserError: the file or a column is not there, or a text or a label is empty.
    """
    root = pathlib.Path(path).expanduser()
    label_key = label_key or "label"
    tables = _tables(root)
    columns = [text_column, label_key, *filter(None, [clean_label_key])]
    for name, table in tables.items():
        for column in columns:
            if column not in table:
                flag = "text_column" if column == text_column else "label_key"
                raise UserError(
                    f"{root.name} {name} has no column '{column}'; allowed: --{flag}=<one of"
                    f" {quoted(table.columns)}>"
                )
            empty = np.flatnonzero(table[column].str.strip() == "")
            if len(empty):
                raise UserError(
                    f"{root.name} {name}: {column} of row {empty[0] + 1} is empty ({len(empty)} are);"
                    " allowed: a text and a label in each row"
                )
    keys = columns[1:]
    classes = _sorted({label for key in keys for label in tables["train"][key]})
    numbers = {name: k for k, name in enumerate(classes)}
    parts: dict[str, LabelledSet] = {}
    for name, table in tables.items():
        given, true = (
            _numbers(f"{root.name} {name}", table[key], numbers) for key in (keys[0], keys[-1])
        )
        if name != "train":
            given = true
        ids = np.array([f"{name}/{i:05d}" for i in range(len(table))])
        if ID in table:
            ids = checks.ids(f"{root.name} {name}", table[ID].to_numpy(), len(table))
        parts[name] = LabelledSet(Texts(table[text_column].to_numpy()), given, true, ids)
    known = bool(clean_label_key)
    return checks.source(
        Source(root.stem, parts["train"], parts.get("test"), parts.get("meta"), classes,
               truth_known=known, trusted=known)
    )  # fmt: skip


def _tables(root: pathlib.Path) -> dict[str, pd.DataFrame]:
    """Reads the table of each set."""
    if root.is_dir():
        files = {name: path for name in SETS for path in root.glob(f"{name}.*") if path.suffix in TABLES}
        if "train" not in files:
            raise UserError(f"folder '{root}' has no train.csv; allowed: a folder with it, or a file")
        return {name: _table(path) for name, path in files.items()}
    whole = _table(root)
    if SPLIT not in whole:
        return {"train": whole}
    if unknown := sorted(set(whole[SPLIT]) - set(SETS)):
        raise UserError(f"'{root}' has the split '{unknown[0]}'; allowed: {quoted(SETS)}")
    if "train" not in set(whole[SPLIT]):
        raise UserError(f"'{root}' has no split 'train'; allowed: with one")
    return {name: whole[whole[SPLIT] == name] for name in SETS if (whole[SPLIT] == name).any()}


def _table(path: pathlib.Path) -> pd.DataFrame:
    if not path.is_file() or path.suffix not in TABLES:
        raise UserError(f"data file '{path}' is not there; allowed: a {' or '.join(TABLES)} file")
    try:
        table = pd.read_csv(path, sep=TABLES[path.suffix], dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:  # encoding, quotes, rows of other lengths, nothing at all
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"data file '{path}' cannot be read ({reason}); allowed: a table in UTF-8 with a header"
        ) from error
    if not len(table):
        raise UserError(f"data file '{path}' has no rows; allowed: one for each example")
    return table


def _sorted(names: set[str]) -> tuple[str, ...]:
    """Sorts class names, numbers as numbers."""
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _numbers(name: str, labels: pd.Series, numbers: Mapping[str, int]) -> np.ndarray:
    if unknown := sorted(set(labels) - set(numbers)):
        raise UserError(f"{name} has the class '{unknown[0]}'; allowed: {quoted(numbers)}")
    return labels.map(numbers).to_numpy(np.int64)


def is_folder(path: str) -> bool:
    """Tells whether the first file in a folder's ``train/`` is a text file."""
    train = pathlib.Path(path).expanduser() / "train"
    if not train.is_dir():
        return False
    files = (file for name in class_folders(train) for file in files_in(train / name))
    first = next(files, None)
    return first is not None and first.suffix.lower() == ENDING


def load_folder(path: str) -> Source:
    """Reads a folder of text files, ``train/<class>/*.txt`` in UTF-8.

    Args:
        path: a folder as in `folders.load_folder`, with text files in place of images.

    Raises:
        UserError: a file cannot be read or is empty, or a set has a class that ``train`` has not.
    """
    root = pathlib.Path(path).expanduser()
    classes = class_folders(root / "train")
    parts: dict[str, LabelledSet] = {}
    for split, folder in (("train", "train"), ("test", test_name(root)), ("meta", "meta")):
        if not folder or not (root / folder).is_dir():
            continue
        if unknown := sorted(set(class_folders(root / folder)) - set(classes)):
            raise UserError(
                f"folder '{root / folder}' has the class '{unknown[0]}'; allowed: {quoted(classes)}"
            )
        pairs = [
            (file, k)
            for k, name in enumerate(classes)
            if (root / folder / name).is_dir()
            for file in files_in(root / folder / name)
        ]
        others = [file for file, _ in pairs if file.suffix.lower() != ENDING or not file.is_file()]
        tell_left_out(root / folder, others, "which are no texts")
        pairs = [pair for pair in pairs if pair[0] not in set(others)]
        if not pairs:
            raise UserError(f"folder '{root / folder}' has no texts; allowed: <class>/<text>{ENDING}")
        y = np.array([k for _, k in pairs], np.int64)
        ids = np.array([file.relative_to(root).as_posix() for file, _ in pairs])
        parts[split] = LabelledSet(Texts([_text(file) for file, _ in pairs]), y, y, ids)
    return checks.source(
        Source(root.name, parts["train"], parts.get("test"), parts.get("meta"), tuple(classes))
    )


def _text(path: pathlib.Path) -> str:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"text '{path}' cannot be read ({error}); allowed: UTF-8") from error
    if not text.strip():
        raise UserError(f"text '{path}' is empty; allowed: files with a text")
    return text
