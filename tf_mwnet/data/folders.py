"""Reads a folder of images: ``train/<class>/*``, and optional ``meta/`` and ``test/``."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from absl import logging

from tf_mwnet.data import checks
from tf_mwnet.data.cache import keep
from tf_mwnet.data.images import NAMES, LazyImages, Reading, Unreadable, kind_of
from tf_mwnet.data.progress import progress
from tf_mwnet.errors import UserError, quoted
from tf_mwnet.types import LabelledSet, Source

Keep = Callable[[LazyImages, str], np.ndarray | LazyImages]
# Formats that Pillow names but cannot decode by itself.
NOT_ALONE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# What file managers, archives and notebooks leave behind, beside names that begin with a dot.
LEFT_BEHIND = {"__macosx", "@eadir", "thumbs.db", "desktop.ini", "__pycache__"}
# So many headers are looked at before training; other images are checked when they are read.
HEADERS = 20_000
# The first of these that is there is the test set.
TEST_NAMES = ("test", "val", "valid", "validation")


@functools.cache
def suffixes() -> frozenset[str]:
    """Returns the endings of the image files that Pillow reads."""
    from PIL import Image

    known = Image.registered_extensions()
    return frozenset(s for s, name in known.items() if name in Image.OPEN and name not in NOT_ALONE)


def _junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def class_folders(path: pathlib.Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted."""
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not _junk(p.name))


def files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files in a folder and its folders, without what is left behind by other programs."""
    found, seen = [], set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not _junk(name)]
        if real not in seen:
            found += [pathlib.Path(place, name) for name in files if not _junk(name)]
        seen.add(real)
    return sorted(found)


def tell_left_out(where: pathlib.Path, files: Sequence[pathlib.Path], why: str) -> None:
    """Warns of files that are not used."""
    if not files:
        return
    endings = collections.Counter(p.suffix.lower() or "no ending" for p in files)
    kinds = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
    logging.warning(
        "'%s': %d files are left out, %s (%s), as '%s'", where, len(files), why, kinds, files[0]
    )


def _look(paths: Sequence[str]) -> str:
    """Looks at the headers of images and returns the mode to read all of them in, see `Reading`."""
    rows = np.unique(np.linspace(0, len(paths) - 1, min(HEADERS, len(paths))).astype(np.int64))
    first: dict[str, str] = {}
    several: list[str] = []
    reasons: dict[str, str] = {}
    with progress(len(rows), "looking at images", "images", least=5000) as advance:
        for row in rows:
            advance()
            try:
                kind, animated = kind_of(paths[row])
            except Unreadable as error:
                reasons |= error.reasons
                continue
            first.setdefault(kind, paths[row])
            if animated:
                several.append(paths[row])
    if reasons:
        raise Unreadable(reasons)
    if several:
        logging.warning(
            "%d files have several images, of which the first is used, as '%s'", len(several), several[0]
        )
    if "F" in first and len(first) > 1:
        other = next(kind for kind in first if kind != "F")
        raise UserError(
            f"image '{first['F']}' is {NAMES['F']}, '{first[other]}' is {NAMES[other]}; allowed: one"
            " kind"
        )
    return "RGB" if "RGB" in first else next(iter(first))


def _split(
    root: pathlib.Path, split: str, classes: Iterable[str], reading: Reading, keep_images: Keep
) -> LabelledSet:
    """Reads a split; its images have ``reading.mode``, or what they have if that is ""."""
    paths, labels, ids, others = [], [], [], []
    folder = root / split
    for label, name in enumerate(classes):
        for path in files_in(folder / name) if (folder / name).is_dir() else ():
            if path.suffix.lower() not in suffixes() or (path.exists() and not path.is_file()):
                others.append(path)
                continue
            paths.append(str(path))
            labels.append(label)
            ids.append(path.relative_to(root).as_posix())
    tell_left_out(folder, others, "which are no images")
    loose = [p for p in sorted(folder.iterdir()) if p.is_file() and not _junk(p.name)]
    tell_left_out(folder, loose, "which are in no class folder")
    if not paths:
        raise UserError(
            f"folder '{folder}' has no images; allowed: <class>/<image>, in a format that Pillow reads"
        )
    reading = reading if reading.mode else dataclasses.replace(reading, mode=_look(paths))
    first = reading(paths[0])
    images = LazyImages(np.array(paths), reading, first.shape, reading.dtype)
    y = np.array(labels, np.int64)
    return LabelledSet(keep_images(images, f"{root.name} {split}"), y, y, np.array(ids))


def test_name(root: pathlib.Path) -> str:
    """Returns the folder of the test set, "" if there is none; says so if it has another name."""
    there = [name for name in TEST_NAMES if (root / name).is_dir()]
    if there and there[0] != TEST_NAMES[0]:
        logging.warning("'%s' has no test/: %s/ is the test set", root, there[0])
    for name in there[1:]:
        logging.warning("'%s' is not used: %s/ is the test set", root / name, there[0])
    return there[0] if there else ""


def load_folder(
    path: str,
    resize: int = 0,
    center_crop: int = 0,
    cache: str = "auto",
    cache_dir: str = "",
    resize_sides: str = "shorter",
    blank_images: str = "refuse",
) -> Source:
    """Reads a folder of images of one size, in all formats that Pillow reads, see `images.Reading`.

    All images are read in colour if one training image is, else as grey. Files that are no images, and
    images that are in no class folder, are left out with a warning; hidden files and what archives and
    file managers leave behind (``__MACOSX``, ``Thumbs.db``) without one.

    Args:
        path: a folder with ``train/<class>/`` and optional ``meta/<class>/`` and ``test/<class>/``. The
            folders in ``train``, sorted, are the class names; images may be in folders of their own in
            them. Without ``test``, ``val`` or ``validation`` is the test set.
        resize, center_crop, resize_sides: see `images.Reading`.
        cache, cache_dir: see `cache.keep`.
        blank_images: see `checks.source`.

    Raises:
        UserError: the folder does not exist, has no class or an empty one; images cannot be read,
            differ in size, or some are grey of more than 8 bits and others not; or ``meta`` or
            ``test`` has a class that ``train`` does not have.
    """
    root = pathlib.Path(path).expanduser()
    train = root / "train"
    if not train.is_dir():
        raise UserError(f"folder '{train}' is not there; allowed: a folder with train/<class>/")
    classes = class_folders(train)
    if not classes:
        raise UserError(f"folder '{train}' has no classes; allowed: one folder per class in it")

    def keep_images(images: LazyImages, what: str) -> np.ndarray | LazyImages:
        return keep(images, cache, cache_dir, what)

    reading = Reading("", resize, center_crop, resize_sides)
    examples = _split(root, "train", classes, reading, keep_images)
    colour = examples.x.shape[-1] == 3
    mode = "RGB" if colour else "F" if examples.x.dtype == np.float32 else "L"
    reading = dataclasses.replace(reading, mode=mode)
    parts: dict[str, LabelledSet] = {}
    for split, folder in (("test", test_name(root)), ("meta", "meta")):
        if folder and (root / folder).is_dir():
            if unknown := sorted(set(class_folders(root / folder)) - set(classes)):
                raise UserError(
                    f"folder '{root / folder}' has the class '{unknown[0]}'; allowed: {quoted(classes)}"
                )
            parts[split] = _split(root, folder, classes, reading, keep_images)
    parts = {"train": examples, **parts}
    if len({isinstance(part.x, LazyImages) for part in parts.values()}) > 1:  # all in one way
        for split, part in parts.items():
            if isinstance(part.x, LazyImages) and part.x.known is not None:
                parts[split] = dataclasses.replace(part, x=keep(part.x, "auto", cache_dir, split))
    made = Source(root.name, parts["train"], parts.get("test"), parts.get("meta"), tuple(classes))
    return checks.source(made, blank_images)
