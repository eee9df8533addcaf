"""Keeps decoded images in memory, in one file on disk, or nowhere."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
from absl import logging

from tf_mwnet.data.images import LazyImages, Unreadable
from tf_mwnet.data.known import Known
from tf_mwnet.data.progress import progress
from tf_mwnet.errors import UserError, choose
from tf_mwnet.files import load_arrays, write_atomically

CACHES = ("auto", "memory", "disk", "none")
KNOWN = "known"  # as "auto"; images that a run has decoded before are then left on disk
# "auto" keeps a split of up to this many bytes in memory.
IN_MEMORY = 4 * 2**30
FOLDER = "~/.cache/tf_mwnet"
VALUES, BYTES, ENDS = "values", "bytes", "ends"  # begin the names of arrays in a file of columns


@functools.lru_cache(maxsize=16)
def _opened(path: str) -> int:
    return os.open(path, os.O_RDONLY)


@dataclasses.dataclass(frozen=True)
class RowReader:
    """Reads single images from a ``.npy`` file, without loading or mapping the file.

    Attributes:
        path: the file.
        shape: shape of an image.
        dtype: numpy dtype name of the pixels.
        start: byte where the first image begins.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    start: int

    def __call__(self, row: int) -> np.ndarray:
        """Returns the image at a row.

        Raises:
            UserError: the file has become shorter than it was.
        """
        dtype = np.dtype(self.dtype)
        size = dtype.itemsize * int(np.prod(self.shape))
        content = os.pread(_opened(self.path), size, self.start + int(row) * size)
        if len(content) < size:
            raise UserError(f"image {row} of '{self.path}' cannot be read; allowed: a whole cache file")
        return np.frombuffer(content, dtype).reshape(self.shape)


def read_rows(path: pathlib.Path) -> LazyImages:
    """Opens the images ``[N, ...]`` of a ``.npy`` file; they are read on demand.

    Raises:
        UserError: the file is damaged.
    """
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if mapped.ndim < 2 or not mapped.flags.c_contiguous:
            raise ValueError(f"an array of shape {mapped.shape}")
    except Exception as error:  # header and length errors of a damaged file
        raise UserError(f"cache file '{path}' cannot be read ({error}); delete it") from error
    shape = mapped.shape[1:]
    reader = RowReader(str(path), shape, mapped.dtype.name, mapped.offset)
    return LazyImages(np.arange(len(mapped)), reader, shape, mapped.dtype, str(path))


def write_rows(
    path: pathlib.Path, parts: Iterable[np.ndarray], shape: tuple[int, ...], dtype: str, what: str
) -> None:
    """Writes images to a ``.npy`` file in parts, atomically.

    Args:
        path: the file; its folder is created.
        parts: arrays ``[n, ...]`` that together have ``shape``.
        shape: ``(N, ...)``.
        dtype: numpy dtype name of the file.
        what: name of the images, for the progress bar.
    """

    def write(file: IO[bytes]) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, header | {"shape": tuple(map(int, shape))})
        with progress(shape[0], f"writing {what}", "images", least=5000) as advance:
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype).data)
                advance(len(part))

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def columns(path: pathlib.Path, read: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Reads labels, ids and the like from a ``.npz`` file, which is written if it is not there.

    Args:
        path: the file.
        read: reads them from their source: arrays ``[N]`` by name; arrays of objects hold bytes.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        found = read()
        parts: dict[str, Any] = {}
        for name, values in found.items():
            if values.dtype == object:
                parts[f"{BYTES} {name}"] = np.frombuffer(b"".join(values), np.uint8)
                parts[f"{ENDS} {name}"] = np.cumsum([len(value) for value in values], dtype=np.int64)
            else:
                parts[f"{VALUES} {name}"] = values
        with contextlib.suppress(OSError):  # the next run reads them again
            _write(path, parts)
        return found
    try:
        stored, made = load_arrays(path), {}
        for key, array in stored.items():
            kind, _, name = key.partition(" ")
            if kind == VALUES:
                made[name] = array
            elif kind == ENDS:
                made[name] = _split(stored[f"{BYTES} {name}"].tobytes(), array)
        return made
    except (UserError, KeyError, ValueError) as error:
        raise UserError(f"cache file '{path}' cannot be read; delete it") from error


def _split(joined: bytes, ends: np.ndarray) -> np.ndarray:
    out = np.empty(len(ends), object)
    out[:] = [joined[start:end] for start, end in zip([0, *ends][: len(ends)], ends, strict=True)]
    return out


def keep(images: LazyImages, cache: str, folder: str, what: str) -> np.ndarray | LazyImages:
    """Decodes images into memory or into a file, or leaves them to be read on demand.

    Args:
        images: the images, still on disk.
        cache: "memory" decodes them now. "disk" decodes them once into a file in ``folder``, which
            later runs use again. "none" returns them unchanged. `KNOWN` leaves those on disk that it has
            decoded before, and tells what is known of them. "auto" is "memory" up to `IN_MEMORY`
            bytes and "none" above.
        folder: the folder of cache files; "" for `FOLDER`.
        what: name of the images, for messages and the name of the file.

    Returns:
        An array, or images that are read on demand.

    Raises:
        UserError: ``cache`` is unknown, or an image or the cache file is damaged.
    """
    if cache == KNOWN:
        return _remembered(images, folder, what)
    choose("cache", cache, dict.fromkeys(CACHES))
    if cache == "none" or (cache == "auto" and images.nbytes > IN_MEMORY):
        if cache == "auto":
            size = images.nbytes / 2**30
            logging.info("%s: %d images, %.0f GB in total, are read on demand", what, len(images), size)
        return images
    parts = np.array_split(np.arange(len(images)), max(1, len(images) // 500))
    if cache == "disk":
        path = file_of(folder, what, images.fingerprint())
        if not path.is_file():
            write_rows(path, _decoded(images, parts), images.shape, images.dtype.name, what)
        return read_rows(path)
    x = np.empty(images.shape, images.dtype)
    with progress(len(images), f"reading {what}", "images", least=5000) as advance:
        for rows, part in zip(parts, _decoded(images, parts), strict=True):
            x[rows] = part
            advance(len(rows))
    return x


def _remembered(images: LazyImages, folder: str, what: str) -> np.ndarray | LazyImages:
    path = file_of(folder, f"{what} known", images.fingerprint()).with_suffix(".npz")
    with contextlib.suppress(UserError, KeyError):  # a damaged file is replaced
        if path.is_file():
            found = load_arrays(path)
            return images.with_known(Known(found["keys"], found["blank"]))
    x = keep(images, "auto", folder, what)
    if isinstance(x, np.ndarray):
        known = Known.of(x)
        with contextlib.suppress(OSError):  # the next run decodes again
            _write(path, {"keys": known.keys, "blank": known.blank})
    return x


def _write(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: np.savez(file, **arrays))


def _decoded(images: LazyImages, parts: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Reads the images at each of ``parts``; raises `Unreadable` for all broken ones at the end."""
    reasons: dict[str, str] = {}
    for rows in parts:
        try:
            part = images.read(rows)
        except Unreadable as error:
            reasons |= error.reasons
            part = np.zeros((len(rows), *images.image_shape), images.dtype)
        if reasons and rows is parts[-1]:
            raise Unreadable(reasons)
        yield part


def file_of(folder: str, what: str, fingerprint: str) -> pathlib.Path:
    """Returns the path of the cache file for images with this fingerprint."""
    name = "".join(c if c.isalnum() else "-" for c in what)
    short = hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
    return pathlib.Path(folder or FOLDER).expanduser() / f"{name}-{short}.npy"
