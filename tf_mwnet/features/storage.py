"""Features on disk: a folder with the features of each set, which an interrupted embedding goes on with.

manifest.json            the backbone and its preprocessing, the sets and their sizes
<set>/features.npy       float16 or float32 ``[N, D]``, or ``[N, V, D]`` for V views
<set>/ids.npy            the ids of the examples, in order
<set>/.features.npy.part, .done    while it is written
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging

from tf_mwnet.data import cache
from tf_mwnet.data.images import LazyImages
from tf_mwnet.errors import UserError
from tf_mwnet.files import locked, read_json, reading, write_atomically

MANIFEST, FEATURES, IDS = "manifest.json", "features.npy", "ids.npy"
PART, DONE = ".features.npy.part", ".done"
CHUNK = 512  # examples between two notes of how far it has come


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
    if folder.is_dir() and any(p.name != ".lock" for p in folder.iterdir()):
        raise UserError(f"features '{folder}' holds other files; allowed: a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(about, indent=2) + "\n"
    write_atomically(folder / MANIFEST, lambda file: file.write(text), mode="w")


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from embedding into a folder; waits for one that is at it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, wait=False))
        except BlockingIOError:
            logging.info("waiting for another process that embeds into %s", folder)
            stack.enter_context(locked(folder, wait=True))
        yield


def write(
    folder: pathlib.Path,
    ids: np.ndarray,
    shape: tuple[int, ...],
    dtype: str,
    compute: Callable[[np.ndarray], np.ndarray],
    advance: Callable[[int], None],
) -> None:
    """Computes the features of a set and writes them, from where it was cut off.

    Args:
        folder: of the set.
        ids: N ids.
        shape: of the features of one example.
        dtype: "float16" or "float32".
        compute: from rows, int ``[n]``, to their features.
        advance: called with the number of examples that were added, also of those that were there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part, note, size = folder / PART, folder / DONE, (len(ids), *shape)
    done = 0
    with contextlib.suppress(OSError, ValueError):
        done = min(int(note.read_text()), len(ids))
        if np.load(part, mmap_mode="r").shape != size:
            done = 0
    mode = "r+" if done else "w+"
    rows = np.lib.format.open_memmap(part, mode, None if done else dtype, None if done else size)
    advance(done)
    for start in range(done, len(ids), CHUNK):
        some = np.arange(start, min(start + CHUNK, len(ids)))
        rows[some[0] : some[-1] + 1] = compute(some)
        rows.flush()
        _note(note, int(some[-1]) + 1)
        advance(len(some))
    del rows
    write_atomically(folder / IDS, lambda file: np.save(file, ids))
    part.rename(folder / FEATURES)
    note.unlink(missing_ok=True)


def _note(path: pathlib.Path, done: int) -> None:
    write_atomically(path, lambda file: file.write(str(done)), mode="w")


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
