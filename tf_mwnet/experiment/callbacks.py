"""Callbacks of a run: progress, metrics, records of examples, checkpoints, TensorBoard."""

from __future__ import annotations

import csv
import pathlib
from typing import IO, Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_mwnet.data.progress import Bar
from tf_mwnet.errors import NotANumber, check_signals
from tf_mwnet.files import load_arrays, write_atomically
from tf_mwnet.model import classifier_head
from tf_mwnet.model.reweighted import ReweightedModel
from tf_mwnet.runs.saved_run import read_metrics


class StepCounter(keras.callbacks.Callback):
    """Counts steps where several are taken at once: Keras gives the number that the last one would
    have, also at the end of an epoch that is no multiple of them."""

    of_epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.of_epoch = 0

    def taken(self, batch: int) -> int:
        """Returns the steps since the last call, given Keras's number of the last one, from 0."""
        end = min(batch + 1, (self.params or {}).get("steps") or batch + 1)
        new, self.of_epoch = end - self.of_epoch, end
        return new


class Progress(StepCounter):
    """Shows one bar for the whole training of a method, see `data.progress.Bar`."""

    def __init__(self, name: str, total_steps: int, done_steps: int = 0) -> None:
        super().__init__()
        self.name, self.total, self.done = name, total_steps, done_steps
        self.bar: Bar | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.bar = Bar(self.total, self.name, "steps", self.done, keep=True)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        new = self.taken(batch)
        if self.bar is not None:
            self.bar.advance(new)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        shown = f"epoch {epoch + 1}"
        if logs and "val_accuracy" in logs:
            shown += f", test {100 * logs['val_accuracy']:.1f} %"
        if self.bar is not None:
            self.bar.text = shown

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the bar, also after an interrupted training."""
        if self.bar is not None:
            self.bar.close()


class StopOnNaN(StepCounter):
    """Stops the run when the loss is NaN or infinite, before anything of that epoch is saved."""

    def __init__(self, first_step: int = 0) -> None:
        super().__init__()
        self.step = first_step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.step += self.taken(batch)
        loss = float((logs or {})["weighted_loss"])
        if not np.isfinite(loss):
            raise NotANumber(
                f"the loss is {loss} at step {self.step} (epoch step {self.of_epoch}); allowed: finite;"
                " try a lower --lr"
            )


class LearningRate(keras.callbacks.Callback):
    """Adds the learning rate of the epoch's first step to the logs."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Through a tensor, since it may be a variable on several replicas.
        self.rate = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = self.rate


# Keras's names -> ours: the validation data of a run is the test set.
METRIC_NAMES = {"val_accuracy": "test_accuracy", "val_loss": "test_loss", "accuracy": "train_accuracy"}


class MetricsFile(keras.callbacks.Callback):
    """Writes ``metrics.csv``, a row per epoch; the whole file is rewritten each time.

    Args:
        path: of the file; rows of epochs from ``first_epoch`` on are dropped when training starts.
        first_epoch: 0-based epoch that training starts with.
    """

    def __init__(self, path: pathlib.Path, first_epoch: int = 0) -> None:
        super().__init__()
        self.path = path
        self.rows = [r for r in read_metrics(path) if r["epoch"] <= first_epoch] if first_epoch else []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row: dict[str, float] = {"epoch": epoch + 1}
        row |= {METRIC_NAMES.get(k, k): float(v) for k, v in (logs or {}).items()}
        self.rows.append(row)

        def write(file: IO[str]) -> None:
            columns = list(dict.fromkeys(k for r in self.rows for k in r))
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

        write_atomically(self.path, write, mode="w")


class KeepBest(keras.callbacks.Callback):
    """Keeps the classifier of the best epoch on held-out data, and logs the accuracy there.

    Args:
        path: ``.npz`` file with the classifier's variables and the epoch, from 1.
        batches: dataset of ``(x, y)``.
        labels: all y, ``[N]``.
        first_epoch: 0-based epoch that training starts with; at 0 a file of an earlier attempt is not
            taken into account.
    """

    def __init__(
        self, path: pathlib.Path, batches: tf.data.Dataset, labels: np.ndarray, first_epoch: int = 0
    ) -> None:
        super().__init__()
        self.path, self.batches, self.labels = path, batches, labels
        self.best = -1.0
        if first_epoch and path.is_file():
            self.best = float(load_arrays(path)["accuracy"])

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.classifier = self.model.final_classifier()
        self.outputs = classifier_head.inference(self.classifier)  # traced once

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.model.evaluates_average:
            self.model.averages.copy_to(self.classifier)
        predicted = np.argmax(self.outputs(self.batches), axis=1)
        accuracy = float((predicted == self.labels).mean())
        if logs is not None:
            logs["validation_accuracy"] = accuracy
        if accuracy <= self.best:
            return
        self.best = accuracy
        arrays: dict[str, Any] = {
            f"variable_{i:05d}": v.numpy() for i, v in enumerate(self.classifier.variables)
        }
        arrays |= {"epoch": np.int64(epoch + 1), "accuracy": np.float64(accuracy)}
        write_atomically(self.path, lambda file: np.savez(file, **arrays))


class Checkpoints(keras.callbacks.Callback):
    """Saves the whole state after each epoch, and restores the newest intact one.

    The state consists of classifier, method, both optimizers, random generators, and the record of
    examples. The order of the data has no state: it is a function of seed and step.

    Args:
        folder: of the checkpoints.
        model: a compiled `ReweightedModel`.
        keep: the number of checkpoints that are kept.
    """

    def __init__(self, folder: pathlib.Path, model: ReweightedModel, keep: int = 2) -> None:
        super().__init__()
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        parts = {f"variable_{i:05d}": v for i, v in enumerate(self._state(model))}
        self.state = {"epoch": self.epoch} | parts
        self.checkpoint = tf.train.Checkpoint(**self.state)
        self.folder = folder
        try:
            tf.train.get_checkpoint_state(str(folder))
        except Exception as error:  # of a list that is no text: `restore` finds the files without it
            logging.warning("'%s' is damaged (%s)", folder / "checkpoint", error)
            (folder / "checkpoint").unlink()
        self.manager = tf.train.CheckpointManager(
            self.checkpoint, str(folder), max_to_keep=keep, checkpoint_name="epoch"
        )

    @staticmethod
    def _state(model: ReweightedModel) -> list[tf.Variable]:
        variables = [*model.classifier.variables, *model.method.variables, *model.optimizer.variables]
        for average in (model.averages, model.meta_average):
            variables += [] if average is None else average.variables
        if model.meta_optimizer is not None:
            variables += model.meta_optimizer.variables
        seen = {id(v.value): v.value for v in variables}
        return [*seen.values(), *([] if model.record is None else [model.record])]

    def restore(self) -> int:
        """Restores the newest intact checkpoint; returns the number of epochs it holds, or 0."""
        paths = {int(p.stem.partition("-")[2]): p for p in self.folder.glob("epoch-[0-9]*.index")}
        for path in (str(paths[n].with_suffix("")) for n in sorted(paths, reverse=True)):
            try:
                self._compare(path)
                self.checkpoint.restore(path).assert_consumed()
            except Exception as error:  # truncated, corrupt or missing parts: TF raises many types
                reason = str(error).strip().splitlines()[0][:120]
                logging.warning("checkpoint %s is damaged (%s); trying the one before", path, reason)
                continue
            return int(self.epoch)
        if paths:
            logging.warning("no intact checkpoint; starting from the beginning")
        return 0

    def _compare(self, path: str) -> None:
        """Raises ``ValueError`` if a checkpoint has other variables; TensorFlow would take some."""
        reader, suffix = tf.train.load_checkpoint(path), "/.ATTRIBUTES/VARIABLE_VALUE"
        dtypes = reader.get_variable_to_dtype_map()
        found = {
            name.removesuffix(suffix): f"{shape} {dtypes[name].name}"
            for name, shape in reader.get_variable_to_shape_map().items()
            if name.endswith(suffix)
        }
        own = {name: f"{v.shape.as_list()} {v.dtype.name}" for name, v in self.state.items()}
        found.pop("save_counter", None)
        for name in sorted(own.keys() | found.keys()):
            if own.get(name) != found.get(name):
                raise ValueError(f"{name} is {found.get(name)} instead of {own.get(name)}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch.assign(epoch + 1)
        self.manager.save(checkpoint_number=epoch + 1)


class StopOnSignal(keras.callbacks.Callback):
    """Ends the run after the current step on Ctrl-C or SIGTERM; finished epochs are on disk."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        check_signals()
