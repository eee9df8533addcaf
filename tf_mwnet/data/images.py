"""Image files, and images that are read when they are needed."""

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


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a file becomes pixels.

    Attributes:
        mode: "L" for grey, "RGB", or "" for what the file has.
        resize: pixels of the shorter side after resizing (bilinear), 0 for as it is.
        center_crop: side of the square cut from the centre after that, 0 for none.
    """

    mode: str = ""
    resize: int = 0
    center_crop: int = 0

    def __call__(self, path: str | pathlib.Path) -> np.ndarray:
        """uint8 ``[H, W, C]``.

        Raises:
            UserError: the file is no whole image, or is smaller than ``center_crop``.
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
    """Images that look like an array ``[N, H, W, C]`` and are read when they are needed.

    Rows are taken as from an array, which gives others; `read` gives pixels.

    Args:
        keys: what tells ``read_one`` which image, ``[N]``: paths, or rows of a file.
        read_one: reads an image.
        image_shape: ``(H, W, C)`` that all have.
        dtype: of the pixels.
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
        """These images and behind them others.

        Raises:
            UserError: the others are in memory, or elsewhere.
        """
        if not isinstance(other, LazyImages) or other.read_one != self.read_one:
            raise UserError(
                "of training and meta images only one part is read as it is needed, or from another"
                " file; allowed for a method that trains on both: both in memory"
            )
        keys = np.concatenate([self.keys, other.keys])
        return LazyImages(keys, self.read_one, self.image_shape, self.dtype)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Pixels ``[n, H, W, C]`` of the images at ``rows``.

        Raises:
            UserError: an image can not be read, or has another size.
        """
        images = np.empty((len(rows), *self.image_shape), self.dtype)
        for place, key in enumerate(self.keys[rows]):
            images[place] = checked_shape(self.read_one(key), self.image_shape, key)
        return images

    def fingerprint(self) -> str:
        """Differs where the images do, of files by path, size and time of change."""
        facts = [(str(path), *os.stat(path)[6:9:2]) for path in self.keys]
        return repr((self.read_one, self.image_shape, facts))


def checked_shape(image: np.ndarray, shape: tuple[int, ...], path: object) -> np.ndarray:
    """Returns ``image``; raises ``UserError`` where it has another shape than the first one."""
    if image.shape != tuple(shape):
        raise UserError(
            f"image '{path}' is {image.shape[:2]}, the first {tuple(shape[:2])}; allowed: one size, or"
            " --resize and --center_crop"
        )
    return image


def found_in(error: tf.errors.OpError) -> UserError | None:
    """The `UserError` that a batch's `read` raised inside TensorFlow, or None for other errors."""
    match = re.search(r"UserError: (image .*)", str(error))
    return UserError(match.group(1)) if match else None


def rows_of(x: np.ndarray | Images, rows: np.ndarray) -> np.ndarray:
    """The rows of an array, or the pixels of `LazyImages` at them."""
    return x[rows] if isinstance(x, np.ndarray) else x.read(rows)


def pixels(x: np.ndarray | Images, limit: int = 5000) -> np.ndarray:
    """An array as it is; of `LazyImages` the pixels of up to ``limit`` of them, evenly spread."""
    if isinstance(x, np.ndarray):
        return x
    return x.read(np.unique(np.linspace(0, len(x) - 1, min(limit, len(x))).astype(np.int64)))
