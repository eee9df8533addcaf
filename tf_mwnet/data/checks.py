"""Checks the data that users bring. Each message names the bad value and the allowed ones."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import numpy as np
from absl import logging
from numpy.typing import ArrayLike

from tf_mwnet.data.known import blank_of
from tf_mwnet.errors import UserError, choose, quoted
from tf_mwnet.types import Images, Source

BLANK = ("refuse", "keep")
FEW_CLASSES = 10_000  # labels up to here are plausible for any number of examples


def inputs(name: str, x: ArrayLike) -> np.ndarray:
    """Converts inputs to uint8 or float32.

    Args:
        name: name of the set, for messages.
        x: numbers ``[N, ...]`` with at least one more axis. ``[N, H, W]`` is taken for grey images and
            gets a channel axis.

    Returns:
        uint8 if ``x`` is uint8, else float32.

    Raises:
        UserError: there are no examples, the values are not numbers, are NaN or infinite, or are all
            equal.
    """
    x = np.asarray(x)
    one, many = ("row", "values") if x.ndim == 2 else ("image", "pixels")
    if x.dtype == bool:
        x = x.astype(np.uint8)
    if x.dtype != np.uint8:
        if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
            raise UserError(f"{name}: {one}s are of type {x.dtype}; allowed: numbers")
        x = x.astype(np.float32)
    if x.ndim < 2 or len(x) == 0:
        raise UserError(
            f"{name}: inputs have the shape {x.shape}; allowed: (N, H, W, C) or (N, D), N > 0"
        )
    if x.ndim == 3:  # grey images without a channel axis
        x = x[..., None]
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] > 4 and x.shape[1] < x.shape[2]:
        logging.warning(
            "%s: images have the shape %s; the last axis is that of the channels here (with the second"
            " one, as in PyTorch: numpy.moveaxis(x, 1, -1))", name, x.shape,
        )  # fmt: skip
    if x.dtype == np.float32:
        finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise UserError(f"{name}: {one} {row} has NaN or infinite values; allowed: finite")
    if x.min() == x.max():
        raise UserError(f"{name}: all {many} are {x.min()}; allowed: {one}s that differ")
    return x


def no_blank_images(name: str, x: np.ndarray | Images, ids: np.ndarray, blank_images: str) -> None:
    """Refuses images whose pixels are all equal, which a broken file can cause, or warns of them.

    Args:
        name: name of the set, for messages.
        x: ``[N, ...]``; of images on disk it must be known, see `known.Known`.
        ids: N ids, for messages.
        blank_images: "refuse", or "keep" with a warning.

    Raises:
        UserError: there are such images, and ``blank_images`` is "refuse".
    """
    if isinstance(x, np.ndarray):
        blank = blank_of(x)
    else:
        blank = getattr(getattr(x, "known", None), "blank", np.zeros(0, bool))
    same = np.flatnonzero(blank)
    if not len(same):
        return
    shown = quoted(f"'{ids[row]}'" for row in same[:5]) + f" and {len(same) - 5} more" * (len(same) > 5)
    what = "image is" if len(same) == 1 else f"{len(same)} images are"
    text = f"{name}: {what} constant, {shown}"
    if blank_images == "refuse":
        raise UserError(f"{text}; allowed: images with more than one value, or --blank_images=keep")
    logging.warning("%s", text)


def labels(name: str, y: ArrayLike, size: int, num_classes: int | None = None) -> np.ndarray:
    """Converts labels to int64 ``[size]``.

    Args:
        name: name of the set, for messages.
        y: whole numbers or truth values, ``[size]`` or ``[size, 1]``.
        size: N.
        num_classes: K, or None if it is not known.

    Raises:
        UserError: the shape differs, or a label is not an integer in 0..K-1.
    """
    y = _array(name, y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (size,):
        raise UserError(f"{name}: labels have the shape {y.shape}; allowed: ({size},)")
    # Each class needs an example; some may be left out later.
    top = num_classes - 1 if num_classes else max(size, FEW_CLASSES) - 1
    allowed = f"0 to {top}"
    if y.dtype.kind in "SUO":
        shown = repr(y[0].decode(errors="replace") if isinstance(y[0], bytes) else str(y[0]))
        hint = "numpy.unique(labels, return_inverse=True) makes them"
        raise UserError(f"{name}: label {shown} is no integer; allowed: integers, {allowed} ({hint})")
    if y.dtype.kind not in "biuf":
        raise UserError(f"{name}: labels are of type {y.dtype}; allowed: integers, {allowed}")
    if y.dtype.kind == "f" and len(wrong := y[~(np.isfinite(y) & (y == np.floor(y)))]):
        shares = f", or shares of each class ({size}, K)" if np.isfinite(wrong[0]) else ""
        raise UserError(
            f"{name}: label {wrong[0]!s} is no integer ({len(wrong)} are none); allowed: integers,"
            f" {allowed}{shares}"
        )
    outside = y[(y < 0) | (y > top)]
    if len(outside):
        raise UserError(f"{name}: label {outside[0]} is out of range; allowed: {allowed}")
    return y.astype(np.int64)


def targets(name: str, y: ArrayLike, size: int, num_classes: int | None = None) -> np.ndarray:
    """Converts what a classifier is trained on to labels, int64 ``[size]``, or class probabilities.

    Args:
        name: name of the set, for messages.
        y: labels, see `labels`, or class probabilities ``[size, K]``, which sum to 1 in each row.
        size: N.
        num_classes: K, or None if it is not known.

    Raises:
        UserError: they are neither.
    """
    y = _array(name, y)
    if y.ndim != 2 or y.shape[1] == 1:
        return labels(name, y, size, num_classes)
    if len(y) != size or (num_classes and y.shape[1] != num_classes):
        raise UserError(
            f"{name}: labels have the shape {y.shape}; allowed: ({size},), or class probabilities"
            f" ({size}, {num_classes or 'K'})"
        )
    if y.dtype.kind not in "biuf":
        raise UserError(f"{name}: labels are of type {y.dtype}; allowed: numbers")
    y = y if y.dtype.kind == "f" else y.astype(np.float32)
    sums = y.sum(axis=1, dtype=np.float64)
    good = (np.abs(sums - 1) < 1e-2) & (y >= 0).all(axis=1)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise UserError(
            f"{name}: the labels of row {row} sum to {sums[row]:g}; allowed: class probabilities, which"
            " sum to 1 (one class per example: several are not supported)"
        )
    return y


def _array(name: str, y: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(y)
    except (TypeError, ValueError) as error:  # rows of different lengths
        raise UserError(
            f"{name}: labels are no array ({error}); allowed: one label per example"
        ) from None


def ids(name: str, names: ArrayLike, size: int) -> np.ndarray:
    """Converts ids to strings ``[size]``.

    Raises:
        UserError: there are more or fewer than ``size``, or an id occurs twice.
    """
    names = np.asarray(names).astype(str)
    if names.shape != (size,):
        raise UserError(f"{name}: ids have the shape {names.shape}; allowed: ({size},)")
    unique, counts = np.unique(names, return_counts=True)
    if len(unique) < size:
        twice = unique[counts.argmax()]
        raise UserError(f"{name}: the id '{twice}' is there {counts.max()} times; allowed: once")
    return names


def no_empty_class(name: str, y: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Raises ``UserError`` if a class has no example.

    Args:
        name: name of the set, for messages.
        y: int ``[N]`` in 0..K-1.
        class_names: K names.
    """
    counts = np.bincount(y, minlength=len(class_names))
    empty = [class_names[k] for k in np.flatnonzero(counts == 0)]
    if empty:
        raise UserError(
            f"{name}: no example of class {quoted(empty[:5])}; allowed: one or more of each class"
        )


def same_range(name: str, x: np.ndarray | Images, train: np.ndarray | Images) -> None:
    """Raises ``UserError`` if one set is from 0 to 1 and another from 0 to 255.

    Args:
        name: name of the set, for messages.
        x: its inputs.
        train: the training inputs; nothing is checked of images that are not in memory.
    """
    if not (isinstance(x, np.ndarray) and isinstance(train, np.ndarray)):
        return
    tops = float(np.abs(x).max()), float(np.abs(train).max())
    if min(tops) <= 1 and max(tops) > 50:
        raise UserError(
            f"{name}: values reach {tops[0]:g}, those of the training set {tops[1]:g}; allowed: one"
            " range"
        )


def class_names(name: str, names: Iterable[object]) -> tuple[str, ...]:
    """Converts class names to strings; bytes are decoded.

    Raises:
        UserError: a name is empty, or there twice.
    """
    texts = tuple(c.decode(errors="replace") if isinstance(c, bytes) else str(c) for c in names)
    counts = collections.Counter(texts)
    for text, count in counts.items():
        if not text.strip() or count > 1:
            raise UserError(
                f"{name}: class '{text}' is there {count} times; allowed: names that are not empty, once"
            )
    return texts


def source(source: Source, blank_images: str = "refuse") -> Source:
    """Checks that the parts of a source fit together, and returns the source.

    Args:
        source: the data.
        blank_images: "refuse" images whose pixels are all equal, or "keep" them, with a warning; on disk
            it has to be known of them.

    Raises:
        UserError: there are fewer than two classes, two of one name, a class without training or
            without meta examples, inputs of different shapes or ranges, or a blank image.
    """
    choose("blank_images", blank_images, dict.fromkeys(BLANK))
    class_names(source.name, source.class_names)
    if len(source.class_names) < 2:
        raise UserError(f"{source.name}: {len(source.class_names)} class; allowed: two or more classes")
    no_empty_class(f"{source.name} train", source.train.y, source.class_names)
    what = "rows" if source.train.x.ndim == 2 else "images"
    for name, part in source.sets.items():
        if part.x.shape[1:] != source.train.x.shape[1:]:
            raise UserError(
                f"{source.name}: {name} {what} are {part.x.shape[1:]}, train {what}"
                f" {source.train.x.shape[1:]}; allowed: one shape"
            )
        if name != "train":
            same_range(f"{source.name} {name}", part.x, source.train.x)
        if name == "meta":
            no_empty_class(f"{source.name} {name}", part.y, source.class_names)
        if part.x.ndim == 4:
            no_blank_images(f"{source.name} {name}", part.x, part.ids, blank_images)
    return source
