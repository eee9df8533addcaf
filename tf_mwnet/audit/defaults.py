"""Chooses the settings of an audit's training that the user has not set."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from tf_mwnet.config import Experiment
from tf_mwnet.experiment import resolve
from tf_mwnet.methods import METHODS
from tf_mwnet.types import Source

TEST_FRACTION = 0.1
METHOD = "gce"
FEATURES: dict[str, Any] = {
    "epochs": 40,
    "lr_drops": (20, 30),
}  # a head on features is trained in seconds
FEW, PIXELS = 5000, 64 * 64  # below these a small network is better and faster
CROPPED = 16  # grey images of at least so many pixels are cropped at random: less is memorised
BATCHES, SMALLEST, LARGEST = 20, 16, 100  # batches per epoch if possible; bounds of their size
ON_FEATURES, MANY_BATCHES = 250, 200  # largest batch there, if an epoch still has so many


def fill(config: Experiment, fields: Collection[str]) -> tuple[Experiment, Source]:
    """Sets the fields that ``fields`` does not name for data of unknown quality; loads the data.

    The method is `METHOD`, which trusts no label and is more robust to noise than a weight net that
    learns from noisy labels (docs/results.md). Blank images are kept, with a warning. A tenth
    of the data is held out for testing. The meta set of a method that has one takes a tenth of the
    smallest class, at most ten examples, from each class. Small data gets small batches, about twenty
    steps per epoch, and small images the small network. Large data on features gets large batches and a
    learning rate in proportion, which takes half the time, unless one of the settings that this was
    measured with is another.

    Args:
        config: the settings.
        fields: names of those that the user has set.
    """
    first: dict[str, Any] = {
        "test_fraction": TEST_FRACTION,
        "method": METHOD,
        "meta_labels": "noisy",
        "blank_images": "keep",
    }
    unset = {k: v for k, v in first.items() if k not in fields or getattr(config, k) == "auto"}
    config = dataclasses.replace(config, **unset)
    _, source, splits = resolve.load(dataclasses.replace(config, meta_size=0, method="erm"))
    counts = np.bincount(splits.train.y, minlength=splits.spec.num_classes)
    each = int(np.clip(counts.min() // 10, 1, 10)) if METHODS[config.method].needs_meta else 0
    chosen: dict[str, Any] = {
        "meta_size": each * len(counts),
        "batch_size": int(np.clip(len(splits.train) // BATCHES, SMALLEST, LARGEST)),
    }
    large = min(len(splits.train) // MANY_BATCHES, ON_FEATURES)
    own = {"batch_size", "lr", "steps_per_epoch", "optimizer", "then_unfreeze", "then_fine_tune"}
    measured = config.method == METHOD and not own & set(fields)
    if large > LARGEST and splits.train.raw is not None and measured:
        chosen |= {"batch_size": large, "lr": config.lr * large / LARGEST}
    shape = splits.spec.shape
    if len(splits.train) < FEW and len(shape) == 3 and shape[0] * shape[1] <= PIXELS:
        chosen["network"] = "small_cnn"
    if len(shape) == 3 and shape[-1] == 1 and min(shape[:2]) >= CROPPED:
        chosen["augment"] = "crop"
    chosen = {name: value for name, value in chosen.items() if name not in fields}
    return dataclasses.replace(config, **chosen), source
