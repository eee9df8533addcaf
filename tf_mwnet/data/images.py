"""Image files: read one by one, all at once into memory, or when they are needed."""

from __future__ import annotations

import dataclasses
import pathlib
import re

import numpy as np
import tensorflow as tf

from tf_mwnet.errors import UserError

# Decoded images above this many bytes are read from their files batch by batch.
IN_MEMORY = 4 * 2**30


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
            with Image.open(path) as image:
                image = image.convert(
                    self.mode or ("L" if image.mode in ("1", "L", "I", "F") else "RGB")
                )
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
        return tuple(max(self.resize, round(side * scale)) for side in size)

    def _cropped(self, pixels: np.ndarray, path) -> np.ndarray:
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


class ImageFiles:
    """Images on disk that look like an array ``[N, H, W, C]`` uint8 and are read when they are needed.

    Rows are taken as from an array, which gives another `ImageFiles`; `read` gives pixels.

    Args:
        paths: N files.
        reading: how to read one.
        image_shape: ``(H, W, C)`` that all have.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: np.ndarray, reading: Reading, image_shape: tuple[int, ...]):
        self.paths, self.reading, self.image_shape = np.asarray(paths), reading, tuple(image_shape)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.image_shape)

    @property
    def ndim(self) -> int:
        return 1 + len(self.image_shape)

    def __getitem__(self, rows) -> ImageFiles:
        return ImageFiles(self.paths[rows], self.reading, self.image_shape)

    def joined(self, other) -> ImageFiles:
        """These files and behind them others.

        Raises:
            UserError: the others are in memory.
        """
        if not isinstance(other, ImageFiles):
            raise UserError(
                "of training and meta images only one part is read from its files; allowed for a"
                " method that trains on both: both in memory"
            )
        return ImageFiles(np.concatenate([self.paths, other.paths]), self.reading, self.image_shape)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Pixels uint8 ``[n, H, W, C]`` of the images at ``rows``.

        Raises:
            UserError: a file can not be read, or has another size.
        """
        images = np.empty((len(rows), *self.image_shape), np.uint8)
        for place, path in enumerate(self.paths[rows]):
            images[place] = checked_shape(self.reading(path), self.image_shape, path)
        return images


def checked_shape(image: np.ndarray, shape: tuple[int, ...], path) -> np.ndarray:
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


def pixels(x, limit: int = 5000) -> np.ndarray:
    """An array as it is; of `ImageFiles` the pixels of up to ``limit`` of them, evenly spread."""
    if not isinstance(x, ImageFiles):
        return x
    return x.read(np.unique(np.linspace(0, len(x) - 1, min(limit, len(x))).astype(np.int64)))
