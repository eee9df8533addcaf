"""A folder of images: ``train/<class>/*.png|jpg``, optional ``meta/`` and ``test/`` alike."""

from __future__ import annotations

import dataclasses
import math
import pathlib

import numpy as np
from absl import logging
from tqdm import tqdm

from tf_mwnet.data import checks, images
from tf_mwnet.data.images import ImageFiles, Reading
from tf_mwnet.errors import UserError, quoted
from tf_mwnet.types import LabelledSet, Source

SUFFIXES = (".png", ".jpg", ".jpeg")


def _split(root: pathlib.Path, split: str, classes: list[str], reading: Reading) -> LabelledSet:
    paths, labels, ids = [], [], []
    for label, name in enumerate(classes):
        files = (p for p in (root / split / name).glob("*") if p.suffix.lower() in SUFFIXES)
        for path in sorted(files):
            paths.append(str(path))
            labels.append(label)
            ids.append(f"{split}/{name}/{path.name}")
    if not paths:
        raise UserError(f"folder '{root / split}' has no images; allowed: {quoted(SUFFIXES)} files")
    first = reading(paths[0])
    mode = "L" if first.shape[-1] == 1 else "RGB"
    files = ImageFiles(np.array(paths), dataclasses.replace(reading, mode=mode), first.shape)
    y = np.array(labels, np.int64)
    return LabelledSet(_in_memory(files, split), y, y, np.array(ids))


def _in_memory(files: ImageFiles, split: str) -> np.ndarray | ImageFiles:
    size = math.prod(files.shape)
    if size > images.IN_MEMORY:
        logging.info(
            "%s: %d images of %.0f GB in all are read from their files as they are needed",
            split,
            len(files),
            size / 2**30,
        )
        return files
    x = np.empty(files.shape, np.uint8)
    parts = np.array_split(np.arange(len(files)), max(1, len(files) // 500))
    for rows in tqdm(parts, desc=f"reading {split}", disable=len(parts) < 10):
        x[rows] = files.read(rows)
    return x


def load_folder(path: str, resize: int = 0, center_crop: int = 0) -> Source:
    """Reads a folder of images, all of one size; grey if the first image is grey.

    They are decoded once into memory; a split that would take more than 4 GB there is read from its
    files batch by batch.

    Args:
        path: holds ``train/<class>/`` and may hold ``meta/<class>/`` and ``test/<class>/``; the
            class names are those of the folders in ``train``, in sorted order.
        resize, center_crop: see `images.Reading`.

    Raises:
        UserError: there is no such folder, no class, an empty class, an image that can not be
            read or differs in size (named), or a class in meta or test that train has not.
    """
    root = pathlib.Path(path)
    train = root / "train"
    if not train.is_dir():
        raise UserError(f"folder '{train}' is not there; allowed: a folder with train/<class>/")
    classes = sorted(p.name for p in train.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise UserError(f"folder '{train}' has no classes; allowed: one folder per class in it")
    reading = Reading("", resize, center_crop)
    parts: dict[str, LabelledSet | None] = {"train": _split(root, "train", classes, reading)}
    reading = dataclasses.replace(reading, mode="L" if parts["train"].x.shape[-1] == 1 else "RGB")
    for split in ("test", "meta"):
        parts[split] = None
        if (root / split).is_dir():
            names = [p.name for p in (root / split).iterdir() if p.is_dir()]
            if unknown := sorted(set(names) - set(classes)):
                raise UserError(
                    f"folder '{root / split}' has the class '{unknown[0]}'; allowed: {quoted(classes)}"
                )
            parts[split] = _split(root, split, classes, reading)
    return checks.source(Source(root.name, parts["train"], parts["test"], parts["meta"], tuple(classes)))
