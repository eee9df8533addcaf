"""Draws meta sets out of training sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from numpy.typing import ArrayLike

from tf_mwnet.data import bias
from tf_mwnet.errors import UserError

OR_ELSE = ", or --meta_balance=none"
BALANCES = ("given", "true", "none")


def rows(
    label: np.ndarray, size: int, num_classes: int, balance: str, rng: np.random.Generator
) -> np.ndarray:
    """Draws the rows of a meta set.

    Args:
        label: of each example, int ``[N]``: what is balanced.
        size: rows to draw.
        num_classes: K.
        balance: see `BiasConfig.meta_balance`; "none" draws at random, else each label equally often.
        rng: source of the draws.

    Returns:
        Sorted, int64 ``[size]``.

    Raises:
        UserError: there are too few examples, or fewer than K are drawn of balanced ones.
    """
    if balance != "none":
        return bias.balanced_rows(label, size, num_classes, rng, "meta_size", OR_ELSE)
    if size >= len(label):
        raise UserError(f"meta_size is {size}; allowed: below {len(label)}, all training examples")
    return np.sort(rng.choice(len(label), size, replace=False))


def hold_out_meta(
    x: Any, y: ArrayLike, seed: int
) -> tuple[tuple[Any, np.ndarray], tuple[Any, np.ndarray]]:
    """Takes a class-balanced meta set out of a training set, with the given labels.

    The meta set has 1 to 10 examples of each class: a tenth of the smallest class.

    Args:
        x: array ``[N, ...]``, or a structure of arrays.
        y: labels, int ``[N]`` or class probabilities ``[N, K]``.
        seed: seed of the draw.

    Returns:
        ``(x, y)`` of the remaining training set, and ``(x, y)`` of the meta set.

    Raises:
        UserError: a class has fewer than two examples.
    """
    y = np.asarray(y)
    label = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1).astype(np.int64)
    _, label, counts = np.unique(label, return_inverse=True, return_counts=True)
    each = int(np.clip(counts.min() // 10, 1, 10))
    rows = bias.balanced_rows(
        label, each * len(counts), len(counts), np.random.default_rng(seed), "meta set"
    )
    # A warning, because absl hides lower levels outside of a command.
    logging.warning("no meta set: taking %d examples of each class from the training set", each)
    left = np.setdiff1d(np.arange(len(y)), rows)

    def take(which: np.ndarray) -> tuple[Any, np.ndarray]:
        return tf.nest.map_structure(lambda part: np.asarray(part)[which], x), y[which]

    return take(left), take(rows)
