"""Where data comes from: the digits, TensorFlow Datasets, folders of images, arrays."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from tf_mwnet.data import checks
from tf_mwnet.data.cache import CACHES
from tf_mwnet.data.folders import load_folder
from tf_mwnet.data.records import load_records
from tf_mwnet.data.tfds_source import load_tfds
from tf_mwnet.errors import UserError, choose, quoted
from tf_mwnet.types import LabelledSet, Source


def numbered(split: str, size: int) -> np.ndarray:
    """Ids ``split/00000`` for examples that have no name of their own."""
    return np.array([f"{split}/{i:05d}" for i in range(size)])


def labelled(
    split: str,
    x: ArrayLike,
    y: ArrayLike,
    true_y: ArrayLike | None = None,
    num_classes: int | None = None,
) -> LabelledSet:
    """Checks arrays and makes a `LabelledSet` of them; see `checks` for what is refused."""
    inputs = checks.inputs(split, x)
    given = checks.labels(split, y, len(inputs), num_classes)
    true = given
    if true_y is not None:
        true = checks.labels(f"{split} true", true_y, len(inputs), num_classes)
    return LabelledSet(inputs, given, true, numbered(split, len(inputs)))


def from_arrays(
    x_train: ArrayLike,
    y_train: ArrayLike,
    x_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    x_meta: ArrayLike | None = None,
    y_meta: ArrayLike | None = None,
    true_y_train: ArrayLike | None = None,
    class_names: Iterable[object] | None = None,
    superclass: ArrayLike | None = None,
    name: str = "arrays",
    ids: ArrayLike | None = None,
) -> Source:
    """A source from arrays in memory.

    Args:
        x_train, x_test, x_meta: images ``[N, H, W, C]`` (or ``[N, H, W]``), uint8 or numbers.
        y_train, y_test, y_meta: integer labels ``[N]`` from 0.
        true_y_train: true labels of the training set, where they are known.
        class_names: K names; by default "0".."K-1".
        superclass: int ``[K]``, the coarse class of each class.
        name: for messages and run folders.
        ids: N different names of the training examples; numbers by default.

    Raises:
        UserError: see `checks`.
    """
    names = None if class_names is None else tuple(str(c) for c in class_names)
    count = None if names is None else len(names)
    train = labelled(f"{name} train", x_train, y_train, true_y_train, num_classes=count)
    if ids is not None:
        train = dataclasses.replace(train, ids=checks.ids(f"{name} train", ids, len(train)))
    if names is None:
        count = int(max(train.y.max(), train.true_y.max())) + 1
        names = tuple(str(k) for k in range(count))
    parts: dict[str, LabelledSet] = {}
    for split, x, y in (("test", x_test, y_test), ("meta", x_meta, y_meta)):
        if (x is None) != (y is None):
            raise UserError(f"{name}: {split} has only one of images and labels; allowed: both")
        if x is not None and y is not None:
            parts[split] = labelled(f"{name} {split}", x, y, num_classes=count)
    source = Source(
        name=name,
        train=train,
        test=parts.get("test"),
        meta=parts.get("meta"),
        class_names=names,
        superclass=None if superclass is None else np.asarray(superclass),
        truth_known=true_y_train is not None,
        trusted=true_y_train is not None,
    )
    return checks.source(source)


def load_digits() -> Source:
    """scikit-learn's handwritten digits: 1,797 images of 8x8, values 0 to 16; no test split."""
    from sklearn import datasets

    digits = datasets.load_digits()
    source = from_arrays(digits.images.astype(np.uint8), digits.target, name="digits")
    return dataclasses.replace(source, trusted=True)


def load_npz(path: str) -> Source:
    """Arrays from a ``.npz`` file, without pickles.

    Keys: ``x_train, y_train`` and optional ``x_test, y_test, x_meta, y_meta, true_y_train,
    class_names, superclass``.

    Raises:
        UserError: the file is not there, is no such file, or lacks a key.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(f"data file '{path}' is not there; allowed: a .npz file")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            data = {key: arrays[key] for key in arrays.files}
    except Exception as error:  # zip, header and pickle errors all mean: not such a file
        raise UserError(f"data file '{path}' can not be read as .npz: {error}") from error
    known = ("x_train", "y_train", "x_test", "y_test", "x_meta", "y_meta", "true_y_train",
             "class_names", "superclass")  # fmt: skip
    if missing := [k for k in known[:2] if k not in data]:
        raise UserError(f"'{path}' lacks {quoted(missing)}; it has: {quoted(data)}")
    if extra := [k for k in data if k not in known]:
        raise UserError(f"'{path}' has the array '{extra[0]}'; allowed: {quoted(known)}")
    return from_arrays(**data, name=file.stem)


def load(
    name: str,
    data_dir: str | None = None,
    label_key: str = "",
    clean_label_key: str = "",
    resize: int = 0,
    center_crop: int = 0,
    cache: str = "auto",
    cache_dir: str = "",
) -> Source:
    """Loads a source by name: "digits", "folder", "npz", "records", or a TensorFlow Datasets name.

    Args:
        name: see above; also a path that ends in ``.npz``.
        data_dir: the folder of images or records, the ``.npz`` file, or TFDS's folder.
        label_key, clean_label_key: columns, for TFDS sets with several.
        resize, center_crop: see `images.Reading`, for folders.
        cache, cache_dir: where decoded images are kept, see `cache.keep`, for folders and TFDS.

    Raises:
        UserError: there is no such data, or it is not usable; see `checks`.
    """
    for option, value in (("resize", resize), ("center_crop", center_crop)):
        if value and name != "folder":
            raise UserError(f"{option} is {value} with dataset '{name}'; allowed: with dataset 'folder'")
    choose("cache", cache, dict.fromkeys(CACHES))
    if cache in ("disk", "none") and (name in ("digits", "npz") or name.endswith(".npz")):
        raise UserError(f"cache is {cache} with dataset '{name}'; allowed: auto, memory")
    if name == "digits":
        return load_digits()
    if name == "folder":
        if not data_dir:
            raise UserError("dataset 'folder' needs --data_dir; allowed: a folder with train/<class>/")
        return load_folder(data_dir, resize, center_crop, cache, cache_dir)
    if name == "records":
        if not data_dir:
            raise UserError("dataset 'records' needs --data_dir; allowed: a folder of TFRecord files")
        return load_records(data_dir, cache, cache_dir)
    if name == "npz" or name.endswith(".npz"):
        path = data_dir if name == "npz" else name
        if not path:
            raise UserError("dataset 'npz' needs --data_dir; allowed: a .npz file")
        return load_npz(path)
    return load_tfds(name, data_dir, label_key, clean_label_key, cache, cache_dir)
