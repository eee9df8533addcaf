"""A folder of images: ``train/<class>/*.png|jpg``, optional ``meta/`` and ``test/`` alike."""

from __future__ import annotations

import pathlib

import numpy as np

from tf_mwnet.data import checks
from tf_mwnet.errors import UserError, quoted
from tf_mwnet.types import LabelledSet, Source

SUFFIXES = (".png", ".jpg", ".jpeg")


def _read(path: pathlib.Path, mode: str | None) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image = image.convert(mode or ("L" if image.mode in ("1", "L", "I", "F") else "RGB"))
            return np.asarray(image)
    except Exception as error:  # Pillow raises many types for broken files
        raise UserError(f"image '{path}' can not be read; allowed: whole PNG or JPEG files") from error


def _split(root: pathlib.Path, split: str, classes: list[str], mode: str | None) -> LabelledSet:
    images, labels, ids = [], [], []
    for label, name in enumerate(classes):
        files = (p for p in (root / split / name).glob("*") if p.suffix.lower() in SUFFIXES)
        for path in sorted(files):
            image = _read(path, mode)
            mode = mode or ("L" if image.ndim == 2 else "RGB")
            if images and image.shape != images[0].shape:
                raise UserError(
                    f"image '{path}' is {image.shape[:2]}, the first {images[0].shape[:2]}; allowed:"
                    " one size"
                )
            images.append(image)
            labels.append(label)
            ids.append(f"{split}/{name}/{path.name}")
    if not images:
        raise UserError(f"folder '{root / split}' has no images; allowed: {quoted(SUFFIXES)} files")
    x = np.stack(images)
    x = x[..., None] if x.ndim == 3 else x
    y = np.array(labels, np.int64)
    return LabelledSet(x, y, y, np.array(ids))


def load_folder(path: str) -> Source:
    """Reads a folder of images, decoded once, all of one size; grey if the first image is grey.

    Args:
        path: holds ``train/<class>/`` and may hold ``meta/<class>/`` and ``test/<class>/``; the
            class names are those of the folders in ``train``, in sorted order.

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
    parts: dict[str, LabelledSet | None] = {"train": _split(root, "train", classes, None)}
    mode = "L" if parts["train"].x.shape[-1] == 1 else "RGB"
    for split in ("test", "meta"):
        parts[split] = None
        if (root / split).is_dir():
            names = [p.name for p in (root / split).iterdir() if p.is_dir()]
            if unknown := sorted(set(names) - set(classes)):
                raise UserError(
                    f"folder '{root / split}' has the class '{unknown[0]}'; allowed: {quoted(classes)}"
                )
            parts[split] = _split(root, split, classes, mode)
    return checks.source(Source(root.name, parts["train"], parts["test"], parts["meta"], tuple(classes)))
