"""Features on disk: a folder with the features of each set, which several processes can write together.

Each process computes chunks of examples that no other is at. What one that is killed has left, the
others or a later one do.

manifest.json            the backbone and its preprocessing, the sets and their sizes
<set>/features.npy       float16 or float32 ``[N, D]``, or ``[N, V, D]`` for V views
<set>/ids.npy            the ids of the examples, in order
<set>/.features.npy.part, .done    while it is written; a byte for each chunk, 1 if it is there
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tf_mwnet.data import cache
from tf_mwnet.data.images import LazyImages
from tf_mwnet.errors import UserError
from tf_mwnet.files import locked, read_json, reading, write_atomically

MANIFEST, FEATURES, IDS = "manifest.json", "features.npy", "ids.npy"
PART, DONE = ".features.npy.part", ".done"
CHUNK = 512  # examples that a process computes before it looks what is left


def manifest(folder: str | pathlib.Path) -> dict[str, Any]:
    """Reads what a folder of features says about itself.

    Raises:
        UserError: it is no such folder.
    """
    folder = pathlib.Path(folder).expanduser()
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"features '{folder}' have no {MANIFEST}; allowed: a folder that"
            " python -m tf_mwnet.features has written"
        )
    return read_json(folder / MANIFEST)


def begin(folder: pathlib.Path, about: dict[str, Any]) -> None:
    """Writes the manifest, or compares it with what is there.

    Raises:
        UserError: the folder has features of another backbone or other data, or other files.
    """
    with locked(folder, wait=True):
        _begin(folder, about)


def _begin(folder: pathlib.Path, about: dict[str, Any]) -> None:
    if (folder / MANIFEST).is_file():
        before = manifest(folder)
        now = json.loads(json.dumps(about))
        if changed := [k for k in now if before.get(k) != now[k]]:
            name = changed[0]
            raise UserError(
                f"features '{folder}' have {name} {before.get(name)!r}, not {now[name]!r}; allowed: the"
                " same, or another folder"
            )
        return
    if any(p.name != ".lock" for p in folder.iterdir()):
        raise UserError(f"features '{folder}' holds other files; allowed: a new folder")
    text = json.dumps(about, indent=2) + "\n"
    write_atomically(folder / MANIFEST, lambda file: file.write(text), mode="w")


class _Chunks:
    """The chunks of a set, of which each is computed by one process: a byte of a file and its lock."""

    def __init__(self, file: int, count: int) -> None:
        self.file, self.count = file, count
        self.left = set(range(count))  # not known to be there

    def claimed(self) -> Iterator[int]:
        """Yields chunks to compute, each locked until the next one; at the end all are there."""
        for wait in (False, True):  # first what nobody is at, then what others have not finished
            for chunk in sorted(self.left):
                try:
                    fcntl.lockf(self.file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, chunk)
                except OSError:
                    continue
                try:
                    if os.pread(self.file, 1, chunk) != b"\1":
                        yield chunk
                        os.pwrite(self.file, b"\1", chunk)
                    self.left.discard(chunk)
                finally:
                    fcntl.lockf(self.file, fcntl.LOCK_UN, 1, chunk)


def write(
    folder: pathlib.Path,
    ids: np.ndarray,
    shape: tuple[int, ...],
    dtype: str,
    compute: Callable[[np.ndarray], np.ndarray],
    advance: Callable[[int], None],
) -> None:
    """Computes the features of a set and writes them, together with other processes that do the same.

    Args:
        folder: of the set.
        ids: N ids.
        shape: of the features of one example.
        dtype: "float16" or "float32".
        compute: from rows, int ``[n]``, to their features.
        advance: called with the number of examples that were added, also of those that were there.
    """
    size, told = len(ids), 0
    with locked(folder, wait=True):
        if (folder / FEATURES).is_file():
            return advance(size)
        rows = _part(folder, (size, *shape), dtype)
        file = os.open(folder / DONE, os.O_RDWR)
    try:
        chunks = _Chunks(file, -(-size // CHUNK))
        for chunk in chunks.claimed():
            some = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, size))
            rows[some[0] : some[-1] + 1] = compute(some)
            rows.flush()
            there = min(size, (os.pread(file, chunks.count, 0).count(b"\1") + 1) * CHUNK)
            advance(there - told)
            told = there
    finally:
        os.close(file)
    advance(size - told)
    del rows
    with locked(folder, wait=True):
        if not (folder / FEATURES).is_file():
            write_atomically(folder / IDS, lambda stream: np.save(stream, ids))
            (folder / PART).rename(folder / FEATURES)
            (folder / DONE).unlink()


def _part(folder: pathlib.Path, size: tuple[int, ...], dtype: str) -> np.memmap:
    """Opens the file that is being written; makes it anew unless it fits."""
    part, note, chunks = folder / PART, folder / DONE, -(-size[0] // CHUNK)
    with contextlib.suppress(OSError, ValueError):
        before = np.lib.format.open_memmap(part, "r+")
        if (before.shape, before.dtype, note.stat().st_size) == (size, np.dtype(dtype), chunks):
            return before
    rows = np.lib.format.open_memmap(part, "w+", dtype, size)
    note.write_bytes(bytes(chunks))
    return rows


def read(folder: pathlib.Path, ids: np.ndarray) -> np.ndarray | LazyImages:
    """Reads the features of a set in the order of ``ids``; above 4 GB they are read as needed.

    Raises:
        UserError: the features of an example are missing, or the files are damaged.
    """
    if not (folder / FEATURES).is_file():
        raise UserError(f"'{folder}' has no {FEATURES}; allowed: features of the sets of the data")
    with reading(folder):
        known = np.load(folder / IDS, allow_pickle=False)
        features = cache.read_rows(folder / FEATURES)
        if len(features) != len(known):
            raise ValueError(f"{len(features)} rows for {len(known)} ids")
    if not np.array_equal(known, ids):
        order = np.argsort(known, kind="stable")
        place = np.searchsorted(known[order], ids).clip(0, max(len(known) - 1, 0))
        found = order[place] if len(known) else place
        if not len(known) or (missing := known[found] != ids).any():
            name = ids[0] if not len(known) else ids[missing][0]
            raise UserError(f"'{folder}' has no features of '{name}'; allowed: features of these data")
        features = features[found]
    if features.nbytes > cache.IN_MEMORY:
        return features
    return features.read(np.arange(len(features)))
