"""How inputs are scaled before a classifier sees them."""

from __future__ import annotations

import numpy as np

from tf_mwnet.data import images
from tf_mwnet.data.texts import Texts
from tf_mwnet.errors import UserError, choose
from tf_mwnet.types import DataSpec, LabelledSet, Source

SCALINGS = ("standardised", "unit", "signed")


def describe(source: Source, train: LabelledSet, scale: str = "standardised") -> DataSpec:
    """Describes the inputs of a training set; every input is taken as ``(x - mean) / std``.

    Args:
        source: gives the names.
        train: the training set, inputs ``[N, ..., C]``.
        scale: "standardised": mean and deviation of each channel over the training set (1 for a channel
            that does not vary); "unit": 0 and 255, which brings 8-bit images to the range 0 to 1;
            "signed": 127.5 and 127.5, to the range -1 to 1.

    Raises:
        UserError: another scale, or "unit" or "signed" for inputs that are not uint8.
    """
    choose("scaling", scale, dict.fromkeys(SCALINGS))
    if train.raw is not None:
        return _of_features(source, train, scale)
    if isinstance(train.x, Texts):  # until they are embedded
        one = np.ones(1, np.float32)
        return DataSpec(source.name, (), "string", source.class_names, mean=0 * one, std=one)
    dtype = np.dtype(train.x.dtype)
    if scale == "standardised":
        mean, std = _moments(train)
    elif dtype != np.uint8:
        raise UserError(f"scaling is {scale} with {dtype} inputs; allowed: with uint8 images")
    else:
        channels = train.x.shape[-1]
        mean = np.full(channels, 0.0 if scale == "unit" else 127.5)
        std = 255 - mean
    return DataSpec(
        name=source.name,
        shape=tuple(train.x.shape[1:]),
        dtype=dtype.name,
        class_names=source.class_names,
        mean=mean.astype(np.float32),
        std=np.where(std > 0, std, 1).astype(np.float32),
    )


def _of_features(source: Source, train: LabelledSet, scale: str) -> DataSpec:
    """Describes features: each is standardised, and all are divided by the root of their number.

    The mean square of an input's length is then 1, whatever the backbone, so that one learning rate fits
    all. It is ``sqrt(K / 10)`` with more than ten classes, each of which has fewer examples in a batch
    (docs/features.md).
    """
    if scale != "standardised":
        raise UserError(f"scaling is {scale} with features; allowed: standardised")
    mean, std = _moments(train)
    longer = max(1.0, len(source.class_names) / 10) ** 0.25
    return DataSpec(
        name=source.name,
        shape=(train.x.shape[-1],),
        dtype="float32",
        class_names=source.class_names,
        mean=mean.astype(np.float32),
        std=(np.where(std > 0, std, 1) * np.sqrt(train.x.shape[-1]) / longer).astype(np.float32),
        encoder=source.encoder,
        raw_shape=tuple(train.originals.shape[1:]),
        raw_dtype=_dtype_name(train.originals.dtype),
    )


def _dtype_name(dtype: np.dtype) -> str:
    return "string" if dtype.kind == "O" else dtype.name


def _moments(train: LabelledSet) -> tuple[np.ndarray, np.ndarray]:
    # In float64, as a channel may have millions of values; in parts, to save memory.
    x = images.pixels(train.x)
    x = x.astype(np.float32) if x.dtype == np.float16 else x
    axes = tuple(range(x.ndim - 1))
    parts = np.array_split(x, max(1, len(x) // 5000))
    count = x.size // x.shape[-1]
    mean = sum(p.sum(axis=axes, dtype=np.float64) for p in parts) / count
    square = sum(((p - mean) ** 2).sum(axis=axes, dtype=np.float64) for p in parts) / count
    return np.asarray(mean), np.sqrt(square)
