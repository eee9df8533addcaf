"""Checks of what users bring. All are here; each message names the bad value and what is allowed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tf_mwnet.errors import UserError, quoted
from tf_mwnet.types import Source


def inputs(name: str, x: ArrayLike) -> np.ndarray:
    """Returns ``x`` as uint8 or float32 ``[N, ...]`` with at least one axis beside N.

    Raises:
        UserError: another type, no examples, NaN or infinite values, or all values equal.
    """
    x = np.asarray(x)
    if x.dtype != np.uint8:
        if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
            raise UserError(f"{name}: images are of type {x.dtype}; allowed: numbers")
        x = x.astype(np.float32)
    if x.ndim < 2 or len(x) == 0:
        raise UserError(f"{name}: images have the shape {x.shape}; allowed: (N, H, W, C), N > 0")
    if x.ndim == 3:  # grey images without a channel axis
        x = x[..., None]
    if x.dtype == np.float32:
        finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise UserError(f"{name}: image {row} has NaN or infinite values; allowed: finite")
    if x.min() == x.max():
        raise UserError(f"{name}: all pixels are {x.min()}; allowed: images that differ")
    return x


def constant_images(name: str, x: np.ndarray, ids: np.ndarray) -> None:
    """Raises ``UserError`` where an image has one value everywhere: a sign of a broken file."""
    flat = x.reshape(len(x), -1)
    same = np.flatnonzero(flat.min(axis=1) == flat.max(axis=1))
    if len(same):
        raise UserError(
            f"{name}: image '{ids[same[0]]}' is constant (and {len(same) - 1} more); allowed: images"
            " with more than one value"
        )


def labels(name: str, y: ArrayLike, size: int, num_classes: int | None = None) -> np.ndarray:
    """Returns ``y`` as int64 ``[size]``.

    Raises:
        UserError: another shape, values that are no whole numbers, or outside 0..K-1.
    """
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (size,):
        raise UserError(f"{name}: labels have the shape {y.shape}; allowed: ({size},)")
    if not np.issubdtype(y.dtype, np.integer):
        whole = np.issubdtype(y.dtype, np.floating) and np.all(y == np.floor(y))
        if not whole:
            shown = y[y != np.floor(y)][0] if np.issubdtype(y.dtype, np.floating) else y[0]
            raise UserError(f"{name}: label {shown!s} is no integer; allowed: integers from 0")
    y = y.astype(np.int64)
    top = num_classes - 1 if num_classes else np.iinfo(np.int64).max
    outside = y[(y < 0) | (y > top)]
    if len(outside):
        allowed = f"0 to {top}" if num_classes else "0 and above"
        raise UserError(f"{name}: label {outside[0]} is out of range; allowed: {allowed}")
    return y


def ids(name: str, names: ArrayLike, size: int) -> np.ndarray:
    """Returns ids as strings ``[size]``.

    Raises:
        UserError: another number of them, or two are alike.
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
    """Raises ``UserError`` where a class has no example."""
    counts = np.bincount(y, minlength=len(class_names))
    empty = [class_names[k] for k in np.flatnonzero(counts == 0)]
    if empty:
        raise UserError(
            f"{name}: no example of class {quoted(empty[:5])}; allowed: one or more of each class"
        )


def source(source: Source) -> Source:
    """Checks that the parts of a source fit together, and returns it.

    Raises:
        UserError: fewer than two classes, an empty class, shapes that differ, a constant image.
    """
    if len(source.class_names) < 2:
        raise UserError(f"{source.name}: {len(source.class_names)} class; allowed: two or more classes")
    no_empty_class(f"{source.name} train", source.train.y, source.class_names)
    parts = {"train": source.train, "test": source.test, "meta": source.meta}
    for name, part in parts.items():
        if part is None:
            continue
        if part.x.shape[1:] != source.train.x.shape[1:]:
            raise UserError(
                f"{source.name}: {name} images are {part.x.shape[1:]}, train images"
                f" {source.train.x.shape[1:]}; allowed: one shape"
            )
        if part.x.ndim == 4 and isinstance(part.x, np.ndarray):
            constant_images(f"{source.name} {name}", part.x, part.ids)
    return source
