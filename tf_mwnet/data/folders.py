"""Reads a folder of images: ``train/<class>/*.png|jpg``, and optional ``meta/`` and ``test/``."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from tf_mwnet.data import checks
from tf_mwnet.data.cache import keep
from tf_mwnet.data.images import LazyImages, Reading
from tf_mwnet.errors import UserError, quoted
from tf_mwnet.types import LabelledSet, Source

SUFFIXES = (".png", ".jpg", ".jpeg")
Keep = Callable[[LazyImages, str], np.ndarray | LazyImages]


def _split(
    root: pathlib.Path, split: str, classes: list[str], reading: Reading, keep_images: Keep
) -> LabelledSet:
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
    images = LazyImages(np.array(paths), dataclasses.replace(reading, mode=mode), first.shape)
    y = np.array(labels, np.int64)
    return LabelledSet(keep_images(images, f"{root.name} {split}"), y, y, np.array(ids))


def load_folder(
    path: str,
    resize: int = 0,
    center_crop: int = 0,
    cache: str = "auto",
    cache_dir: str = "",
    resize_sides: str = "shorter",
) -> Source:
    """Reads a folder of images of one size.

    All images are read as grey if the first training image is grey, else as RGB.

    Args:
        path: a folder with ``train/<class>/`` and optional ``meta/<class>/`` and ``test/<class>/``. The
            folders in ``train``, sorted, are the class names.
        resize, center_crop, resize_sides: see `images.Reading`.
        cache, cache_dir: see `cache.keep`.

    Raises:
        UserError: the folder does not exist, has no class or an empty one; an image cannot be read or
            differs in size; or ``meta`` or ``test`` has a class that ``train`` does not have.
    """
    root = pathlib.Path(path)
    train = root / "train"
    if not train.is_dir():
        raise UserError(f"folder '{train}' is not there; allowed: a folder with train/<class>/")
    classes = sorted(p.name for p in train.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise UserError(f"folder '{train}' has no classes; allowed: one folder per class in it")

    def keep_images(images: LazyImages, what: str) -> np.ndarray | LazyImages:
        return keep(images, cache, cache_dir, what)

    reading = Reading("", resize, center_crop, resize_sides)
    examples = _split(root, "train", classes, reading, keep_images)
    reading = dataclasses.replace(reading, mode="L" if examples.x.shape[-1] == 1 else "RGB")
    parts: dict[str, LabelledSet] = {}
    for split in ("test", "meta"):
        if (root / split).is_dir():
            names = [p.name for p in (root / split).iterdir() if p.is_dir()]
            if unknown := sorted(set(names) - set(classes)):
                raise UserError(
                    f"folder '{root / split}' has the class '{unknown[0]}'; allowed: {quoted(classes)}"
                )
            parts[split] = _split(root, split, classes, reading, keep_images)
    return checks.source(
        Source(root.name, examples, parts.get("test"), parts.get("meta"), tuple(classes))
    )
