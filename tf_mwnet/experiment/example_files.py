"""Writes the files ``examples/epoch_0001.npz`` of a run: each training example, epoch by epoch."""

from __future__ import annotations

import collections
import pathlib
from typing import Any

import keras
import numpy as np

from tf_mwnet.experiment import scores
from tf_mwnet.files import load_arrays, write_atomically
from tf_mwnet.methods.base import weight_curve
from tf_mwnet.model import example_record


class ExampleRecord(keras.callbacks.Callback):
    """Writes the model's record of each training example once an epoch.

    ``examples/epoch_0001.npz`` holds float16 ``[N]`` arrays ``loss, weight, probability`` and int32
    ``predicted`` from when the example was last trained on, and the weight function at the end of the
    epoch as float32 ``function_loss, function_weight`` (``[P]``, or ``[P, G]`` with int
    ``function_group [K]`` for G groups of classes). The last file of a method with class-level weights
    also has their last change, ``class_change [N, K]``. If the truth is known, the logs get
    the AUC of separating clean from corrupted labels by weight and by mean weight of the last five
    epochs (high is clean) and by loss (low is clean).

    Args:
        folder: where the files go.
        corrupted: bool ``[N]``, or None if the truth is unknown.
        first_epoch: 0-based epoch that training starts with; the files of earlier epochs are read.
    """

    EPOCHS = 5

    def __init__(self, folder: pathlib.Path, corrupted: np.ndarray | None, first_epoch: int = 0) -> None:
        super().__init__()
        self.folder, self.corrupted = folder, corrupted
        folder.mkdir(parents=True, exist_ok=True)
        self.weights: collections.deque[np.ndarray] = collections.deque(maxlen=self.EPOCHS)
        for epoch in range(max(0, first_epoch - self.EPOCHS), first_epoch):
            self.weights.append(load_arrays(self._path(epoch))["weight"])

    def _path(self, epoch: int) -> pathlib.Path:
        return self.folder / f"epoch_{epoch + 1:04d}.npz"

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        columns = example_record.columns(self.model.record)
        limit = np.finfo(np.float16).max
        names = ("loss", "weight", "probability")
        arrays: dict[str, Any] = {k: columns[k].clip(-limit, limit).astype(np.float16) for k in names}
        arrays["predicted"] = np.nan_to_num(columns["predicted"], nan=-1).astype(np.int32)
        curve = weight_curve(self.model.method)
        if curve is not None:
            arrays["function_loss"], arrays["function_weight"] = curve
            if self.model.method.group_of_class is not None:
                arrays["function_group"] = self.model.method.group_of_class
        changes = example_record.class_changes(self.model.record)
        if changes is not None and epoch + 1 == self.params["epochs"]:  # they are large
            arrays["class_change"] = changes.astype(np.float16)
        write_atomically(self._path(epoch), lambda file: np.savez_compressed(file, **arrays))
        self.weights.append(arrays["weight"])
        if self.corrupted is not None and logs is not None:
            values = {
                "weight": columns["weight"],
                "mean_weight": scores.mean_of_known(self.weights),
                "loss": -columns["loss"],
            }
            logs |= {f"auc_{k}": scores.clean_auc(self.corrupted, v) for k, v in values.items()}
