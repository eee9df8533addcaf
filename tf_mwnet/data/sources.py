"""Loads data: the digits, TensorFlow Datasets, folders of images, records, arrays."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from tf_mwnet.data import checks
from tf_mwnet.data.cache import CACHES
from tf_mwnet.data.folders import load_folder
from tf_mwnet.data.images import RESIZE_SIDES
from tf_mwnet.data.records import load_records
from tf_mwnet.data.tfds_source import load_tfds
from tf_mwnet.errors import UserError, choose, quoted
from tf_mwnet.types import LabelledSet, Source

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
    return checks.source(source, blank_images)


def load_digits() -> Source:
    """Loads scikit-learn's handwritten digits: 1,797 images of 8x8 pixels, 0 to 16, without test set."""
    from sklearn import datasets

    digits = datasets.load_digits()
    source = from_arrays(digits.images.astype(np.uint8), digits.target, name="digits")
    return dataclasses.replace(source, trusted=True, in_memory=False)


def load_npz(path: str, blank_images: str = "refuse") -> Source:
    """Reads arrays from a ``.npz`` file without pickles, see `from_arrays`.

    Args:
        path: a file with the arrays ``x_train, y_train`` and optional ``x_test, y_test, x_meta, y_meta,
            true_y_train, class_names, superclass``.
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
        raise UserError(f"data file '{path}' can not be read as .npz: {error}") from error
    known = ("x_train", "y_train", "x_test", "y_test", "x_meta", "y_meta", "true_y_train",
             "class_names", "superclass")  # fmt: skip
    if missing := [k for k in known[:2] if k not in data]:
        raise UserError(f"'{path}' lacks {quoted(missing)}; it has: {quoted(data)}")
    if extra := [k for k in data if k not in known]:
        raise UserError(f"'{path}' has the array '{extra[0]}'; allowed: {quoted(known)}")
    source = from_arrays(**data, name=file.stem, blank_images=blank_images)
    return dataclasses.replace(source, in_memory=False)


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
) -> Source:
    """Loads a source by name.

    Examples:
        >>> digits = load("digits")
        >>> len(digits.train), digits.train.x.shape[1:], len(digits.class_names)
        (1797, (8, 8, 1), 10)

    Args:
        name: "digits"; "folder", see `load_folder`; "npz" or a path that ends in ``.npz``, see
            `load_npz`; "records", see `load_records`; or a TensorFlow Datasets name, see `load_tfds`.
        data_dir: the folder of images or records, the ``.npz`` file, or TFDS's folder.
        label_key, clean_label_key: columns of a TFDS set with several labels.
        resize, center_crop, resize_sides: for folders, see `images.Reading`.
        cache, cache_dir: for folders, records and TFDS: where decoded images are kept, see `cache.keep`.
        blank_images: see `checks.source`.

    Raises:
        UserError: the data does not exist or does not fit, see `checks`; or an option does not apply.
    """
    for option, value in (("resize", resize), ("center_crop", center_crop)):
        if value and name != "folder":
            raise UserError(f"{option} is {value} with dataset '{name}'; allowed: with dataset 'folder'")
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
    if name == "folder":
        if not data_dir:
            raise UserError("dataset 'folder' needs --data_dir; allowed: a folder with train/<class>/")
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
