"""The meta set of a method that chooses it among the training examples before each epoch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tf_mwnet.data import orders
from tf_mwnet.errors import UserError
from tf_mwnet.methods.base import Method


class EpochNumber(keras.callbacks.Callback):
    """Knows the epoch, 0-based, for streams that are read anew for each one."""

    def __init__(self, first_epoch: int = 0) -> None:
        super().__init__()
        self.epoch = first_epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch


class MetaDraws(EpochNumber):
    """Asks a method for its meta set before each epoch, and keeps it for the epoch's stream.

    A stream has to be read anew for each epoch, see `streams.epochs`: one that goes on has read ahead.

    Args:
        method: it ``draws_meta``.
        labels: given labels of the training set, int ``[N]`` or class probabilities ``[N, K]``.
        first_epoch: 0-based, that training starts with.
    """

    def __init__(self, method: Method, labels: np.ndarray, first_epoch: int = 0) -> None:
        super().__init__(first_epoch)
        self.method, self.labels = method, orders.classes(labels)
        self.rows = self._drawn()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self.rows = self._drawn()

    def _drawn(self) -> np.ndarray:
        rows, size = np.asarray(self.method.draw_meta(self.labels), np.int64), len(self.labels)
        if rows.ndim != 1 or not rows.size or rows.min() < 0 or rows.max() >= size:
            raise UserError(
                f"{type(self.method).__name__} drew a meta set of the rows {rows}; allowed: one or more"
                f" of 0 to {size - 1}"
            )
        return rows
