"""Reads image files, now or on demand."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_mwnet.errors import UserError
from tf_mwnet.types import Images

RESIZE_SIDES = ("shorter", "both")


@dataclasses.dataclass(frozen=True)
class Reading:
    """Turns an image file into pixels.

    Examples:
        ``Reading("RGB", resize=256, center_crop=224)("cat.jpg")`` is uint8 ``[224, 224, 3]``.

    Attributes:
        mode: "L" for grey, "RGB", or "" to keep the file's mode.
        resize: length in pixels of a side after bilinear resizing; 0 to keep the size.
        center_crop: side in pixels of the square cut from the centre afterwards; 0 for no crop.
        sides: "shorter": the shorter side gets that length, and the shape stays; "both" sides get it.
    """

    mode: str = ""
    resize: int = 0
    center_crop: int = 0
    sides: str = "shorter"

    def __call__(self, path: str | pathlib.Path) -> np.ndarray:
        """Reads a file; returns uint8 ``[H, W, C]``.

        Raises:
            UserError: the file is damaged or not an image, or is smaller than ``center_crop``.
        """
        from PIL import Image

        try:
            with Image.open(path) as file:
                image = file.convert(self.mode or ("L" if file.mode in ("1", "L", "I", "F") else "RGB"))
                size = self._resized(image.size)
                if size != image.size:
                    image = image.resize(size, Image.Resampling.BILINEAR)
        except Exception as error:  # Pillow raises many types for broken files
            raise UserError(
                f"image '{path}' can not be read; allowed: whole PNG or JPEG files"
            ) from error
        pixels = np.asarray(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        return self._cropped(pixels, path)

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        if not self.resize:
            return size
        if self.sides == "both":
            return self.resize, self.resize
        scale = self.resize / min(size)
        width, height = (max(self.resize, round(side * scale)) for side in size)
        return width, height

    def _cropped(self, pixels: np.ndarray, path: str | pathlib.Path) -> np.ndarray:
        side = self.center_crop
        if not side:
            return pixels
        if min(pixels.shape[:2]) < side:
            raise UserError(
                f"image '{path}' is {pixels.shape[:2]}; allowed: at least center_crop {side} (--resize"
                " enlarges)"
            )
        top, left = ((s - side) // 2 for s in pixels.shape[:2])
        return pixels[top : top + side, left : left + side]


class LazyImages:
    """Images on disk, with the interface of an array ``[N, H, W, C]``.

    Indexing returns another `LazyImages`; `read` returns pixels.

    Examples:
        >>> images = LazyImages(np.arange(100), lambda row: np.full((2, 2, 1), row), (2, 2, 1))
        >>> some = images[np.arange(10, 20)]  # reads nothing
        >>> some.shape, some.read(np.array([0, 5])).max(axis=(1, 2, 3)).tolist()
        ((10, 2, 2, 1), [10, 15])

    Args:
        keys: ``[N]``, paths of files or rows of one file.
        read_one: reads the image of a key.
        image_shape: ``(H, W, C)`` of every image.
        dtype: dtype of the pixels.
    """

    def __init__(
        self,
        keys: np.ndarray,
        read_one: Callable[[Any], np.ndarray],
        image_shape: tuple[int, ...],
        dtype: Any = np.uint8,
    ):
        self.keys, self.read_one = np.asarray(keys), read_one
        self.image_shape, self.dtype = tuple(image_shape), np.dtype(dtype)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.image_shape)

    @property
    def ndim(self) -> int:
        return 1 + len(self.image_shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, rows: np.ndarray) -> LazyImages:
        return LazyImages(self.keys[rows], self.read_one, self.image_shape, self.dtype)

    def joined(self, other: np.ndarray | Images) -> LazyImages:
        """Returns these images followed by others.

        Raises:
            UserError: the other images are in memory, or are read in another way.
        """
        if not isinstance(other, LazyImages) or other.read_one != self.read_one:
            raise UserError(
                "of training and meta images only one part is read as it is needed, or from another"
                " file; allowed for a method that trains on both: both in memory"
            )
        keys = np.concatenate([self.keys, other.keys])
        return LazyImages(keys, self.read_one, self.image_shape, self.dtype)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Reads the pixels ``[n, H, W, C]`` of the images at ``rows``, int ``[n]``.

        Raises:
            UserError: an image cannot be read, or has another size.
        """
        images = np.empty((len(rows), *self.image_shape), self.dtype)
        for place, key in enumerate(self.keys[rows]):
            images[place] = checked_shape(self.read_one(key), self.image_shape, key)
        return images

    def fingerprint(self) -> str:
        """Returns a text that changes with the files' paths, sizes and times of change."""
        facts = [(str(path), *os.stat(path)[6:9:2]) for path in self.keys]
        return repr((self.read_one, self.image_shape, facts))


def checked_shape(image: np.ndarray, shape: tuple[int, ...], path: object) -> np.ndarray:
    """Returns ``image``; raises ``UserError`` if its shape is not that of the first image.

    Args:
        image: the pixels.
        shape: shape of the first image.
        path: the image's file, for the message.
    """
    if image.shape != tuple(shape):
        raise UserError(
            f"image '{path}' is {image.shape[:2]}, the first {tuple(shape[:2])}; allowed: one size, or"
            " --resize and --center_crop"
        )
    return image


def found_in(error: tf.errors.OpError) -> UserError | None:
    """Returns the `UserError` that `LazyImages.read` raised inside TensorFlow; None for other errors."""
    match = re.search(r"UserError: (image .*)", str(error))
    return UserError(match.group(1)) if match else None


def rows_of(x: np.ndarray | Images, rows: np.ndarray) -> np.ndarray:
    """Returns the rows of an array, or reads those of `LazyImages`."""
    return x[rows] if isinstance(x, np.ndarray) else x.read(rows)


def pixels(x: np.ndarray | Images, limit: int = 5000) -> np.ndarray:
    """Returns an array unchanged; of `LazyImages`, reads up to ``limit`` evenly spread images."""
    if isinstance(x, np.ndarray):
        return x
    return x.read(np.unique(np.linspace(0, len(x) - 1, min(limit, len(x))).astype(np.int64)))
