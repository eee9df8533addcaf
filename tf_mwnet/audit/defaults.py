"""What an audit trains with where the user has not said otherwise."""

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
FEW, PIXELS = 5000, 64 * 64  # below which a small network does better, and sooner
CROPPED = 16  # pixels from which on grey images are cropped at random: the less is learned by heart
BATCHES, SMALLEST, LARGEST = 20, 16, 100  # batches of an epoch where there is a choice; batch sizes


def fill(config: Experiment, fields: Collection[str]) -> tuple[Experiment, Source]:
    """Sets what ``fields`` does not name, for data of unknown quality; returns the source too.

    The method is `METHOD`, which takes no label to be right and stands more noise than a weight net
    that learns from noisy labels does (docs/results.md). A tenth of the data is held out for testing.
    The meta set, of a method that has one, is a tenth of the smallest class, at most ten examples, of
    each class. Small data gets small batches, so that an epoch has some twenty steps, and, of small
    images, the small network.
    """
    first = {"test_fraction": TEST_FRACTION, "method": METHOD, "meta_labels": "noisy"}
    left = {k: v for k, v in first.items() if k not in fields or getattr(config, k) == "auto"}
    config = dataclasses.replace(config, **left)
    _, source, splits = resolve.load(dataclasses.replace(config, meta_size=0, method="erm"))
    counts = np.bincount(splits.train.y, minlength=splits.spec.num_classes)
    each = int(np.clip(counts.min() // 10, 1, 10)) if METHODS[config.method].needs_meta else 0
    found: dict[str, Any] = {
        "meta_size": each * len(counts),
        "batch_size": int(np.clip(len(splits.train) // BATCHES, SMALLEST, LARGEST)),
    }
    shape = splits.spec.shape
    if len(splits.train) < FEW and len(shape) == 3 and shape[0] * shape[1] <= PIXELS:
        found["network"] = "small_cnn"
    if len(shape) == 3 and shape[-1] == 1 and min(shape[:2]) >= CROPPED:
        found["augment"] = "crop"
    found = {name: value for name, value in found.items() if name not in fields}
    return dataclasses.replace(config, **found), source
