"""Loads image classification sets from TensorFlow Datasets."""

from __future__ import annotations

import contextlib
import io
import math
import pathlib
import re
import shutil
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from tf_mwnet.data import cache as caches
from tf_mwnet.data import checks
from tf_mwnet.data.images import LazyImages
from tf_mwnet.errors import UserError, quoted
from tf_mwnet.types import LabelledSet, Source

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

RETRIES = 5  # of a download
COARSE = "coarse_label"
TEST_SPLITS = ("test", "validation")  # the first that there is


def _reason(error: Exception) -> str:
    if host := re.search(r"host='([^']+)'.*Max retries", str(error)):
        return f"no answer from {host[1]}"
    return " ".join(str(error).split())[:200]


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(
            f"unknown data set '{name}'; allowed: digits, folder, csv, npz, records, or a name of"
            " TensorFlow Datasets"
        ) from error
    except Exception as error:  # unknown versions, configurations and damaged files: many types
        raise UserError(
            f"data set '{name}' cannot be opened ({_reason(error)}); allowed: a name, and a version"
            " and configuration, that TensorFlow Datasets has"
        ) from error
    root = pathlib.Path(builder._data_dir_root)
    if not builder.data_path.exists():
        logging.info("downloading data set '%s' to '%s'", name, root)
    try:  # TFDS prints; what a command prints is its result alone
        with _few_retries(), _tidy(root, builder.name), contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except Exception as error:  # no network, no space, a broken archive: many types, one meaning
        where = data_dir or "TFDS's default folder"
        raise UserError(
            f"data set '{name}' is not in {where} and cannot be downloaded ({_reason(error)}); allowed:"
            " --data_dir with the prepared set, or a network"
        ) from error
    return builder


@contextlib.contextmanager
def _tidy(root: pathlib.Path, name: str) -> Iterator[None]:
    """Removes, after an error, what TFDS has begun: empty folders, and files that are not complete.

    Args:
        root: TFDS's folder.
        name: of the set.
    """
    places = (root / "downloads", root / name, root)

    def there() -> set[pathlib.Path]:
        return {p for place in places if place.is_dir() for p in (place, *place.iterdir())}

    before = there()
    try:
        yield
    except BaseException:
        for path in sorted(there() - before, reverse=True):
            partial = re.search(r"\.(tmp|incomplete)", path.name)
            if path.is_dir() and (partial or not any(p.is_file() for p in path.rglob("*"))):
                shutil.rmtree(path)
            elif partial:
                path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """Lets a download fail in seconds: TFDS's ten retries wait for 200 where there is no network."""
    from tensorflow_datasets.core.download import downloader

    before = getattr(downloader, "MAX_RETRIES", None)
    if before is None:  # another version of TFDS
        yield
        return
    downloader.MAX_RETRIES = min(before, RETRIES)
    try:
        yield
    finally:
        downloader.MAX_RETRIES = before


def _check_columns(name: str, info: tfds.core.DatasetInfo, label_key: str, clean_label_key: str) -> None:
    for key in filter(None, ("image", label_key, clean_label_key)):
        if key not in info.features:
            raise UserError(f"data set '{name}' has no column '{key}'; allowed: {quoted(info.features)}")
    for key in filter(None, (label_key, clean_label_key)):
        feature = info.features[key]
        kind = np.dtype(getattr(feature, "np_dtype", None) or object).kind
        if getattr(feature, "shape", None) != () or kind not in "biuOSU":
            raise UserError(
                f"column '{key}' of '{name}' is no class label ({feature!r}); allowed: a class label, an"
                " integer or a text for each example"
            )
    if "train" not in info.splits:
        raise UserError(
            f"data set '{name}' has no split 'train'; it has: {quoted(info.splits)}; allowed: with one"
        )
    if None in info.features["image"].shape:
        raise UserError(
            f"data set '{name}' has images of several sizes; allowed: one size (write them to a"
            " folder, resized)"
        )


def _read(
    builder: tfds.core.DatasetBuilder, split: str, keys: set[str], batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    import tensorflow_datasets as tfds

    chosen = builder.as_dataset(split=split, decoders=tfds.decode.PartialDecoding(keys))
    return chosen.batch(batch_size).as_numpy_iterator()


def _state(builder: tfds.core.DatasetBuilder) -> tuple[int, float]:
    """Returns what changes if a data set is prepared anew."""
    found = (builder.data_path / "dataset_info.json").stat()
    return int(found.length), float(found.mtime)


def _columns(
    builder: tfds.core.DatasetBuilder, split: str, keys: set[str], cache: str, cache_dir: str
) -> dict[str, Any]:
    """Returns the columns of a split; the images are in memory or in a cache file, see `load_tfds`."""
    size = builder.info.splits[split].num_examples
    image = builder.info.features["image"]
    shape, dtype = (size, *image.shape), np.dtype(image.np_dtype)
    large = math.prod(shape) * dtype.itemsize > caches.IN_MEMORY
    if cache == "memory" or (cache == "auto" and not large):
        return next(_read(builder, split, keys, size))
    facts = (builder.info.full_name, str(builder.data_path), split, shape, dtype.name, _state(builder))
    path = caches.file_of(cache_dir, f"{builder.name} {split}", repr(facts))
    if not path.is_file():
        logging.info("%s: decoding images into %s, once for all runs", split, path)
        decoded = (part["image"] for part in _read(builder, split, {"image"}, 500))
        caches.write_rows(path, decoded, shape, dtype.name, split)
    others = caches.file_of(cache_dir, f"{builder.name} {split}", repr((*facts, sorted(keys))))
    return caches.columns(
        others.with_suffix(".npz"), lambda: next(_read(builder, split, keys - {"image"}, size))
    ) | {"image": caches.read_rows(path)}


def _classes(
    name: str, key: str, feature: Any, values: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray | None]:
    """Returns the names of a column's classes, and the values that stand for them, in order.

    The second is None for class labels, whose values are indices. Else every value of the training
    set, an integer, a truth value or a text, is a class.
    """
    if count := getattr(feature, "num_classes", None):
        return tuple(feature.names or map(str, range(count))), None
    known = np.unique(values)
    if len(known) > len(values) // 2:
        raise UserError(
            f"column '{key}' of '{name}' is no class label: its {len(values)} examples have"
            f" {len(known)} values; allowed: at most one value for two examples"
        )
    return checks.class_names("labels", known), known


def _numbered(name: str, values: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    if known is None:
        return values
    place = np.searchsorted(known, values).clip(max=len(known) - 1)
    if len(wrong := values[known[place] != values]):
        raise UserError(f"{name}: no training example has the label {wrong[0]!r}; allowed: those it has")
    return place


def _labelled(
    name: str, columns: dict[str, Any], given: str, true: str, num_classes: int
) -> LabelledSet:
    x = columns["image"]
    x = x if isinstance(x, LazyImages) else checks.inputs(name, x)
    split = name.rsplit(" ", 1)[1]
    if "id" in columns and "id" not in (given, true):
        ids = [f"{split}/{i.decode()}" for i in columns["id"]]
    else:
        ids = [f"{split}/{i:05d}" for i in range(len(x))]
    y = checks.labels(name, columns[given], len(x), num_classes)
    true_y = checks.labels(name, columns[true], len(x), num_classes)
    return LabelledSet(x, y, true_y, np.array(ids))


def _test_split(name: str, splits: Collection[str]) -> str:
    """Returns the split to test on, "" if there is none; says so if it is not called test."""
    there = [split for split in TEST_SPLITS if split in splits]
    if there and there[0] != TEST_SPLITS[0]:
        logging.warning("data set '%s' has no split 'test': '%s' is the test set", name, there[0])
    return there[0] if there else ""


def load_tfds(
    name: str,
    data_dir: str | None = None,
    label_key: str = "",
    clean_label_key: str = "",
    cache: str = "auto",
    cache_dir: str = "",
    blank_images: str = "refuse",
) -> Source:
    """Loads an image classification set: its split "train", and "test" or else "validation" to test on.

    Args:
        name: the name, as for `tfds.load`, with optional configuration and version.
        data_dir: TFDS's folder; by default ``TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.
        label_key: the column to train on, class labels, integers or texts; "label" by default.
        clean_label_key: the column of true labels, if the set has several. They are used for testing
            and for a clean meta set. ``label_key`` by default.
        cache: "memory"; "disk", see `cache.keep`; "auto" is "memory" up to `cache.IN_MEMORY` bytes a
            split and "disk" above. "none" is not possible: TFDS's files can only be read in order.
        cache_dir: the folder of cache files, see `cache.keep`.
        blank_images: see `checks.source`.

    Raises:
        UserError: there is no such set, split or column; the set is neither on disk nor can it be
            downloaded; or its images differ in size.
    """
    if cache == "none":
        raise UserError(f"cache is none with data set '{name}'; allowed: auto, memory, disk")
    builder = _builder(name, data_dir)
    label_key = label_key or "label"
    _check_columns(name, builder.info, label_key, clean_label_key)
    features = builder.info.features
    true_key = clean_label_key or label_key
    keys = {"image", "id", COARSE, label_key, true_key} & set(features)
    columns = _columns(builder, "train", keys, cache, cache_dir)
    class_names, known = _classes(name, true_key, features[true_key], columns[true_key])
    for key in {label_key, true_key}:
        columns[key] = _numbered(f"{name} train", columns[key], known)
    train = _labelled(f"{name} train", columns, label_key, true_key, len(class_names))
    test, superclass = None, None
    if split := _test_split(name, builder.info.splits):
        held = _columns(builder, split, keys, cache, cache_dir)
        held[true_key] = _numbered(f"{name} {split}", held[true_key], known)
        test = _labelled(f"{name} test", held, true_key, true_key, len(class_names))
    if COARSE in columns and true_key == "label":
        superclass = np.zeros(len(class_names), np.int64)
        superclass[train.true_y] = columns[COARSE]
    return checks.source(
        Source(name, train, test, None, class_names, superclass, bool(clean_label_key), trusted=True),
        blank_images,
    )
