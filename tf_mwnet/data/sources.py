"""Loads data: the digits, TensorFlow Datasets, folders of images or texts, tables, records, arrays."""

from __future__ import annotations

import dataclasses
import pathlib
import zipfile
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from tf_mwnet.data import checks, texts
from tf_mwnet.data.cache import CACHES, KNOWN
from tf_mwnet.data.folders import load_folder
from tf_mwnet.data.images import RESIZE_SIDES
from tf_mwnet.data.records import load_records
from tf_mwnet.data.tfds_source import load_tfds
from tf_mwnet.errors import UserError, choose, quoted
from tf_mwnet.types import LabelledSet, Source

FEATURES = "features_"  # begins the names of arrays of features in a file
MEMORY = "memory:"  # begins the name of data that the user made of arrays, in a configuration


def numbered(split: str, size: int) -> np.ndarray:
    """Returns the ids ``split/00000``, ``split/00001`` … of examples without names."""
    return np.array([f"{split}/{i:05d}" for i in range(size)])


def labelled(
    split: str,
    x: ArrayLike,
    y: ArrayLike,
    true_y: ArrayLike | None = None,
    num_classes: int | None = None,
) -> LabelledSet:
    """Checks arrays, see `checks`, and returns them as a `LabelledSet`.

    Args:
        split: name of the set, for messages and ids.
        x: inputs, ``[N, ...]``.
        y: labels, ``[N]``.
        true_y: true labels, ``[N]``; ``y`` by default.
        num_classes: K, or None if it is not known.
    """
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
    blank_images: str = "refuse",
    features: Mapping[str, ArrayLike] | None = None,
) -> Source:
    """Makes a source from arrays in memory.

    Examples:
        >>> x, y = np.random.default_rng(0).random((60, 4, 4, 1)), np.arange(60) % 3
        >>> source = from_arrays(x, y, class_names=["cat", "dog", "cow"], name="pets")
        >>> len(source.train), source.class_names, str(source.train.ids[0])
        (60, ('cat', 'dog', 'cow'), 'pets train/00000')

    Args:
        x_train, x_test, x_meta: images ``[N, H, W, C]`` or ``[N, H, W]``, or other inputs ``[N, ...]``;
            uint8 is kept, other numbers become float32.
        y_train, y_test, y_meta: labels ``[N]``, integers from 0. Those of the meta set are trusted.
        true_y_train: true labels of the training set ``[N]``, if they are known. Noise is then measured,
            and a clean meta set can be drawn.
        class_names: K names; "0".."K-1" by default.
        superclass: int ``[K]``, the coarse class of each class, for hierarchical noise.
        name: name of the data, for messages and run folders.
        ids: N different ids of the training examples; numbered by default.
        blank_images: see `checks.source`.
        features: "train", "test", "meta" -> features of these inputs, ``[N, D]``, or ``[N, V, D]`` for V
            views: what is trained on in their place. See `with_features`.

    Raises:
        UserError: an array does not fit, see `checks`.
    """
    names = None if class_names is None else checks.class_names(name, class_names)
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
        in_memory=True,
    )
    source = checks.source(source, blank_images)
    return source if features is None else with_features(source, features)


def with_features(source: Source, arrays: Mapping[str, ArrayLike]) -> Source:
    """Returns a source that is trained on features; its inputs stay as what people look at.

    Args:
        source: the data.
        arrays: name of each of its sets -> ``[N, D]``, or ``[N, V, D]`` for V views of each example.

    Raises:
        UserError: a set has none, or the numbers do not fit.
    """
    sets: dict[str, LabelledSet] = {}
    made = {name: np.asarray(x) for name, x in arrays.items() if x is not None}
    shape = made["train"].shape[1:] if "train" in made else ()
    for name, part in source.sets.items():
        what = f"{source.name}: features_{name}"
        if name not in made:
            raise UserError(f"{what} is missing; allowed: features of each set, or of none")
        x = made.pop(name)
        if x.dtype.kind not in "fiu" or x.ndim not in (2, 3) or len(x) != len(part) or 0 in x.shape:
            raise UserError(
                f"{what} has shape {x.shape} of {x.dtype} for {len(part)} examples; allowed: numbers"
                " (N, D), or (N, V, D) for several views"
            )
        if x.shape[1:] != shape:
            raise UserError(f"{what} has shape {x.shape}; allowed: (N, {', '.join(map(str, shape))})")
        x = x.astype(np.float32)
        if not (finite := np.isfinite(x.reshape(len(x), -1)).all(axis=1)).all():
            raise UserError(f"{what} of '{part.ids[~finite][0]}' is not finite; allowed: numbers")
        if (x == x[:1]).all() and len(x) > 1:
            raise UserError(f"{what} are all equal; allowed: features that differ")
        sets[name] = dataclasses.replace(part, x=x, raw=part.x)
    if made:
        raise UserError(
            f"{source.name}: features_{next(iter(made))} without such a set; allowed: {quoted(sets)}"
        )
    return dataclasses.replace(source, train=sets["train"], test=sets.get("test"), meta=sets.get("meta"))


def load_digits() -> Source:
    """Loads scikit-learn's handwritten digits: 1,797 images of 8x8 pixels, 0 to 16, without test set."""
    from sklearn import datasets

    digits = datasets.load_digits()
    source = from_arrays(digits.images.astype(np.uint8), digits.target, name="digits")
    return dataclasses.replace(source, trusted=True, built_in=True, in_memory=False)


def has_features(dataset: str, data_dir: str | None) -> bool:
    """Tells whether a data set's name stands for a ``.npz`` file with features, without reading them."""
    path = data_dir if dataset == "npz" else dataset
    if not path or not (dataset == "npz" or path.endswith(".npz")):
        return False
    try:
        with zipfile.ZipFile(pathlib.Path(path).expanduser()) as file:
            return any(name.startswith(FEATURES) for name in file.namelist())
    except (OSError, zipfile.BadZipFile):
        return False  # `load_npz` says what is wrong


def load_npz(path: str, blank_images: str = "refuse") -> Source:
    """Reads arrays from a ``.npz`` file without pickles, see `from_arrays`.

    Args:
        path: a file with the arrays ``x_train, y_train`` and optional ``x_test, y_test, x_meta, y_meta,
            true_y_train, class_names, superclass``; and ``features_train, features_test,
            features_meta``, with which the ``x_`` may be left out.
        blank_images: see `checks.source`.

    Raises:
        UserError: the file does not exist, is not such a file, or lacks an array.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"data file '{path}' is not there; allowed: a .npz file")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            data = {key: arrays[key] for key in arrays.files}
    except Exception as error:  # zip, header and pickle errors all mean: not such a file
        raise UserError(f"data file '{path}' cannot be read ({error}); allowed: a .npz file") from error
    own = {name: data.pop(f"{FEATURES}{name}", None) for name in ("train", "test", "meta")}
    own = {name: x for name, x in own.items() if x is not None}
    for name, x in own.items():  # without images the features are what there is
        data.setdefault(f"x_{name}", x[:, 0] if x.ndim == 3 else x)
    known = ("x_train", "y_train", "x_test", "y_test", "x_meta", "y_meta", "true_y_train",
             "class_names", "superclass")  # fmt: skip
    if missing := [k for k in known[:2] if k not in data]:
        raise UserError(
            f"'{path}' lacks {quoted(missing)} and has {quoted(data)}; allowed: with x_train, y_train"
        )
    if extra := [k for k in data if k not in known]:
        allowed = quoted([*known, "features_train", "features_test", "features_meta"])
        raise UserError(f"'{path}' has the array '{extra[0]}'; allowed: {allowed}")
    try:
        source = from_arrays(
            **data, name=file.stem, blank_images=blank_images, features=own if own else None
        )
    except UserError as error:
        raise UserError(f"data file '{path}', {error}") from None
    return dataclasses.replace(source, in_memory=False)


def is_table(dataset: str) -> bool:
    """Tells whether a data set's name stands for a table of texts."""
    return dataset == "csv" or pathlib.Path(dataset).suffix in texts.TABLES


def load(
    name: str,
    data_dir: str | None = None,
    label_key: str = "",
    clean_label_key: str = "",
    resize: int = 0,
    center_crop: int = 0,
    cache: str = "auto",
    cache_dir: str = "",
    resize_sides: str = "shorter",
    blank_images: str = "refuse",
    text_column: str = texts.TEXT,
) -> Source:
    """Loads a source by name.

    Examples:
        >>> digits = load("digits")
        >>> len(digits.train), digits.train.x.shape[1:], len(digits.class_names)
        (1797, (8, 8, 1), 10)

    Args:
        name: "digits"; "folder", see `load_folder`; "npz" or a path that ends in ``.npz``, see
            `load_npz`; "csv" or a path that ends in ``.csv`` or ``.tsv``, see `texts.load_table`;
            "records", see `load_records`; or a TensorFlow Datasets name, see `load_tfds`. The folder may
            be one of texts, see `texts.load_folder`.
        data_dir: the folder of images, texts or records, the table, the ``.npz`` file, or TFDS's folder.
        label_key, clean_label_key: columns of a table, or of a TFDS set with several labels.
        resize, center_crop, resize_sides: for folders, see `images.Reading`.
        cache, cache_dir: for folders, records and TFDS: where decoded images are kept, see `cache.keep`.
        blank_images: see `checks.source`.
        text_column: of a table.

    Raises:
        UserError: the data does not exist or does not fit, see `checks`; or an option does not apply.
    """
    for option, value in (("resize", resize), ("center_crop", center_crop)):
        if value and name != "folder":
            raise UserError(f"{option} is {value} with dataset '{name}'; allowed: with dataset 'folder'")
    if cache != KNOWN:
        choose("cache", cache, dict.fromkeys(CACHES))
    choose("resize_sides", resize_sides, dict.fromkeys(RESIZE_SIDES))
    if resize_sides == "both" and not resize:
        raise UserError("resize_sides is both without resize; allowed: with it")
    if cache in ("disk", "none") and (name in ("digits", "npz") or name.endswith(".npz")):
        raise UserError(f"cache is {cache} with dataset '{name}'; allowed: auto, memory")
    if name.startswith(MEMORY):
        raise UserError(
            f"dataset '{name}' was in memory; allowed: the same arrays, as source in Python, or a .npz"
            " file of them"
        )
    if name == "digits":
        return load_digits()
    if text_column != texts.TEXT and not is_table(name):
        raise UserError(f"text_column is '{text_column}' with dataset '{name}'; allowed: with a table")
    if is_table(name):
        path = data_dir if name == "csv" else name
        if not path:
            raise UserError("dataset 'csv' needs --data_dir; allowed: a .csv file, or a folder of them")
        return texts.load_table(path, text_column, label_key, clean_label_key)
    if name == "folder":
        if not data_dir:
            raise UserError("dataset 'folder' needs --data_dir; allowed: a folder with train/<class>/")
        if texts.is_folder(data_dir):
            if resize or center_crop:
                raise UserError(f"resize or center_crop with texts in '{data_dir}'; allowed: images")
            return texts.load_folder(data_dir)
        return load_folder(data_dir, resize, center_crop, cache, cache_dir, resize_sides, blank_images)
    if name == "records":
        if not data_dir:
            raise UserError("dataset 'records' needs --data_dir; allowed: a folder of TFRecord files")
        return load_records(data_dir, cache, cache_dir, blank_images)
    if name == "npz" or name.endswith(".npz"):
        path = data_dir if name == "npz" else name
        if not path:
            raise UserError("dataset 'npz' needs --data_dir; allowed: a .npz file")
        return load_npz(path, blank_images)
    return load_tfds(name, data_dir, label_key, clean_label_key, cache, cache_dir, blank_images)
