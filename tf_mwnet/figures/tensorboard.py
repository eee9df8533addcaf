"""Writes a run for TensorBoard."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from tf_mwnet.config import Experiment
from tf_mwnet.figures import plots
from tf_mwnet.figures.tables import ACCURACY, SCORES
from tf_mwnet.methods.base import weight_curve
from tf_mwnet.model import example_record

SCALARS = {
    "loss": "loss/train",
    "weighted_loss": "loss/train_weighted",
    "meta_loss": "loss/meta",
    "val_loss": "loss/test",
    "accuracy": "accuracy/train_on_given_labels",
    "val_accuracy": "accuracy/test",
    "learning_rate": "learning_rate",
    "auc_weight": "auc_of_wrong_labels/by_weight",
    "auc_mean_weight": "auc_of_wrong_labels/by_mean_weight_of_up_to_5_epochs",
    "auc_loss": "auc_of_wrong_labels/by_loss",
}
IMAGES = 5


# What TensorBoard's page of hyperparameters shows of a run.
SETTINGS = ("dataset", "noise", "noise_rate", "imbalance_factor", "meta_size", "meta_labels", "network",
            "batch_size", "lr", "momentum", "l2", "meta_lr", "meta_loss", "speed", "seed")  # fmt: skip
# Its results, which come first: in a summary -> as they are called.
RESULTS = {
    "last": "last epoch", "mean_last_5": "mean of last 5", "best": "best epoch",
    **{f"auc_{score}": f"AUC of wrong labels by {shown}" for score, shown in SCORES.items()},
}  # fmt: skip


class TensorBoard(keras.callbacks.Callback):
    """Scalars and weight histograms each epoch; the weight function as an image five times a run.

    Args:
        folder: of the event files.
        epochs: of the whole run.
        labels: given labels, int ``[N]``.
        corrupted: bool ``[N]``, splits the histograms into clean and noisy; None where unknown.
    """

    def __init__(
        self, folder: pathlib.Path, epochs: int, labels: np.ndarray, corrupted: np.ndarray | None
    ) -> None:
        super().__init__()
        self.writer = tf.summary.create_file_writer(str(folder))
        self.every = max(1, epochs // IMAGES)
        self.epochs, self.labels, self.corrupted = epochs, labels, corrupted
        self.curves: dict[int, np.ndarray] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        columns = example_record.columns(self.model.record)
        step = epoch + 1
        with self.writer.as_default(step=step):
            for key, name in SCALARS.items():
                if logs and key in logs:
                    tf.summary.scalar(name, logs[key])
            self._histograms(columns["weight"])
            if epoch % self.every == 0 or step == self.epochs:
                self._weight_function(step, columns["loss"])
        self.writer.flush()

    def _histograms(self, weights: np.ndarray) -> None:
        seen = np.isfinite(weights)
        groups = {"all": seen}
        if self.corrupted is not None:
            groups = {"clean": seen & ~self.corrupted, "noisy": seen & self.corrupted}
        for name, rows in groups.items():
            if rows.any():
                tf.summary.histogram(f"example_weights/{name}", weights[rows])

    def _weight_function(self, step: int, losses: np.ndarray) -> None:
        curve = weight_curve(self.model.method)
        if curve is None:
            return
        self.curves[step] = curve[1]
        group = self.model.method.group_of_class
        group = None if group is None else group[self.labels]
        figure = plots.weight_function(curve[0], self.curves, losses, self.corrupted, group)
        tf.summary.image("weight_function", tf.io.decode_png(plots.png(figure, 80))[None])

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.writer.close()


def write_end(
    folder: pathlib.Path,
    config: Experiment,
    summaries: Mapping[str, Mapping[str, float]],
    images: Mapping[str, bytes],
    what: str = ACCURACY,
) -> None:
    """Writes a finished run's pictures, and each method's settings and results for the hparams page.

    Args:
        folder: of the run's event files.
        config: the run's.
        summaries: method -> see `tables.summary`.
        images: name -> PNG file.
        what: the results of the test set are, `tables.ACCURACY` or `tables.AGREEMENT`.
    """
    writer = tf.summary.create_file_writer(str(folder / "pictures"))
    with writer.as_default(step=0):
        for name, content in images.items():
            tf.summary.image(name, tf.io.decode_png(content, channels=3)[None])
    writer.close()
    _write_table(folder, config, summaries, what)
    for method, summary in summaries.items():
        writer = tf.summary.create_file_writer(str(folder / method))
        with writer.as_default(step=0):
            settings = {name: getattr(config, name) for name in SETTINGS}
            hparams.hparams(settings | {"method": method}, trial_id=f"{folder.parent.name}-{method}")
            for name in RESULTS:
                if name in summary:
                    tf.summary.scalar(f"result/{name}", summary[name])
        writer.close()


def _write_table(
    folder: pathlib.Path, config: Experiment, summaries: Mapping[str, Mapping[str, float]], what: str
) -> None:
    """Writes which columns the page of hyperparameters has: the results that there are, in order."""
    measured = [name for name in RESULTS if any(name in summary for summary in summaries.values())]
    metrics = []
    for name in measured:
        shown = RESULTS[name] if name.startswith("auc_") else f"{what}, {RESULTS[name]}"
        metrics.append(hparams.Metric(f"result/{name}", display_name=shown))
    columns = [hparams.HParam("method")]
    columns += [hparams.HParam(name) for name in SETTINGS]
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=0):
        hparams.hparams_config(hparams=columns, metrics=metrics)
    writer.close()
