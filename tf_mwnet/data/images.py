"""Reads image files, now or on demand."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_mwnet.data.known import Known
from tf_mwnet.errors import UserError, quoted
from tf_mwnet.types import Images

if TYPE_CHECKING:
    from PIL import Image

RESIZE_SIDES = ("shorter", "both")
LARGEST_SIDE = 16_384  # pixels to resize to; an image of this size takes 0.8 GB
# What Pillow's modes are read as: "L" is grey and "RGB" colour of 8 bits, "F" is grey of more bits.
KINDS = {
    **dict.fromkeys(("1", "L", "LA", "La"), "L"),
    **dict.fromkeys(("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"), "RGB"),
    **dict.fromkeys(("I", "F", "I;16", "I;16L", "I;16B", "I;16N"), "F"),
}
NAMES = {"L": "grey of 8 bits", "RGB": "in colour", "F": "grey of more than 8 bits"}


class Unreadable(UserError):
    """Some images cannot be read.

    Attributes:
        reasons: path -> why.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        shown = [f"'{path}'{why and f' ({why})'}" for path, why in list(self.reasons.items())[:5]]
        more = len(self.reasons) - len(shown)
        text = f"{quoted(shown)} and {more} more" if more else quoted(shown)
        what = f"{len(self.reasons)} images" if len(self.reasons) > 1 else "image"
        super().__init__(f"{what} {text} cannot be read; allowed: whole image files")


def kind_of(path: str | pathlib.Path) -> tuple[str, bool]:
    """Looks at the header of an image file.

    Returns:
        A value of `KINDS`, and whether the file has several images.

    Raises:
        Unreadable: the file is no image, or one of a mode that is not in `KINDS`.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            mode, several = file.mode, bool(getattr(file, "is_animated", False))
            size = file.width * file.height
    except Image.DecompressionBombError as error:
        raise Unreadable({str(path): str(error)}) from error
    except Exception as error:  # Pillow raises many types for broken files
        raise Unreadable({str(path): ""}) from error
    if (limit := Image.MAX_IMAGE_PIXELS or size) < size:  # above it, Pillow warns of a bomb
        raise Unreadable({str(path): f"{size:,} pixels, allowed are {limit:,}"})
    if mode not in KINDS:
        raise Unreadable({str(path): f"Pillow mode {mode}"})
    return KINDS[mode], several


@dataclasses.dataclass(frozen=True)
class Reading:
    """Turns an image file into pixels.

    The image is turned upright by its EXIF orientation, and transparent pixels are put on white. The
    values of grey images with more than 8 bits (16-bit PNG and TIFF, 32-bit TIFF) are kept as they are.

    Examples:
        ``Reading("RGB", resize=256, center_crop=224)("cat.jpg")`` is uint8 ``[224, 224, 3]``.

    Attributes:
        mode: "L" for grey, "RGB" for colour, "F" for grey of more than 8 bits, or "" for what the file
            has.
        resize: length in pixels of a side after bilinear resizing; 0 to keep the size.
        center_crop: side in pixels of the square cut from the centre afterwards; 0 for no crop.
        sides: "shorter": the shorter side gets that length, and the shape stays; "both" sides get it.
    """

    mode: str = ""
    resize: int = 0
    center_crop: int = 0
    sides: str = "shorter"

    def __call__(self, path: str | pathlib.Path) -> np.ndarray:
        """Reads a file; returns ``[H, W, C]``, uint8, or float32 for "F".

        Raises:
            UserError: the file is damaged or not an image, is smaller than ``center_crop``, or cannot
                be read as ``mode`` without a loss.
        """
        from PIL import Image, ImageOps

        kind, _ = kind_of(path)
        mode = self.mode or kind
        if mode != kind and (mode, kind) != ("RGB", "L"):
            raise UserError(
                f"image '{path}' is {NAMES[kind]}, others are {NAMES[mode]}; allowed: one kind"
            )
        try:
            with Image.open(path) as file:
                image = _converted(ImageOps.exif_transpose(file), mode)
        except Exception as error:  # Pillow raises many types for broken files
            raise Unreadable({str(path): ""}) from error
        size = self._resized(image.size)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        return self._cropped(pixels, path)

    @property
    def dtype(self) -> type[np.generic]:
        """The type of the pixels."""
        return np.float32 if self.mode == "F" else np.uint8

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


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """Converts a Pillow image to "L", "RGB" or "F", transparent pixels to white."""
    from PIL import Image

    if mode == "F":
        return Image.fromarray(np.asarray(image).astype(np.float32))
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert(mode)


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
        file: the file that keys are rows of; "" where they are paths.
        known: what is known of them, or None.
    """

    def __init__(
        self,
        keys: np.ndarray,
        read_one: Callable[[Any], np.ndarray],
        image_shape: tuple[int, ...],
        dtype: Any = np.uint8,
        file: str = "",
        known: Known | None = None,
    ):
        self.keys, self.read_one, self.file, self.known = np.asarray(keys), read_one, file, known
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
        return self._of(self.keys[rows], None if self.known is None else self.known[rows])

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
        known = None if self.known is None or other.known is None else self.known.joined(other.known)
        return self._of(np.concatenate([self.keys, other.keys]), known)

    def with_known(self, known: Known) -> LazyImages:
        """Returns these images with what is known of them."""
        return self._of(self.keys, known)

    def _of(self, keys: np.ndarray, known: Known | None) -> LazyImages:
        return LazyImages(keys, self.read_one, self.image_shape, self.dtype, self.file, known)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Reads the pixels ``[n, H, W, C]`` of the images at ``rows``, int ``[n]``.

        Raises:
            UserError: an image cannot be read, or has another size.
        """
        images = np.empty((len(rows), *self.image_shape), self.dtype)
        reasons: dict[str, str] = {}
        for place, key in enumerate(self.keys[rows]):
            try:
                images[place] = checked_shape(self.read_one(key), self.image_shape, key)
            except Unreadable as error:
                reasons |= error.reasons
        if reasons:
            raise Unreadable(reasons)
        return images

    def fingerprint(self) -> str:
        """Returns a text that changes with the files' paths, sizes and times of change."""
        found = [(str(path), os.stat(path)) for path in ([self.file] if self.file else self.keys)]
        facts = [(os.path.abspath(path), s.st_size, s.st_mtime_ns, s.st_ctime_ns) for path, s in found]
        rows = (self.keys.tolist(),) if self.file else ()
        return repr((self.read_one, self.image_shape, facts, *rows))


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


def rows_of(x: np.ndarray | Images, rows: np.ndarray) -> np.ndarray:
    """Returns the rows of an array, or reads those of `LazyImages`."""
    return x[rows] if isinstance(x, np.ndarray) else x.read(rows)


def pixels(x: np.ndarray | Images, limit: int = 5000) -> np.ndarray:
    """Returns an array unchanged; of `LazyImages`, reads up to ``limit`` evenly spread images."""
    if isinstance(x, np.ndarray):
        return x
    return x.read(np.unique(np.linspace(0, len(x) - 1, min(limit, len(x))).astype(np.int64)))
