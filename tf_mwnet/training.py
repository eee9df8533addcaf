"""Training of one method into its folder, from where an earlier run was cut off."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from tf_mwnet import callbacks, example_files, methods, parts
from tf_mwnet.config import Experiment
from tf_mwnet.data import images
from tf_mwnet.data.streams import evaluation_stream, training_stream
from tf_mwnet.files import load_arrays
from tf_mwnet.model import ReweightedModel
from tf_mwnet.reports.tensorboard import TensorBoard
from tf_mwnet.types import Outputs, Splits

BEST = "best_epoch.npz"


def train(
    config: Experiment,
    splits: Splits,
    name: str,
    folder: pathlib.Path,
    make: parts.Maker,
    estimated: Mapping[str, Any] = parts.EMPTY,
) -> ReweightedModel:
    """Trains one method into ``folder``, from its last whole epoch if there is one.

    Args:
        config: the run's.
        splits: the data.
        name: the method.
        folder: of its files.
        make, estimated: see `parts.make_method`.

    Raises:
        callbacks.NotANumber: the loss is no longer finite.
        callbacks.Interrupted: SIGINT or SIGTERM came.
        UserError: an image that is read when it is needed can not be read.
    """
    model = parts.build_model(config, splits, name, make, estimated)
    splits = splits.seen_by(model.method.trains_on)
    saved = callbacks.Checkpoints(folder / "checkpoints", model)
    first = saved.restore() if config.resume else 0
    if first:
        logging.info("%s: continuing after epoch %d of %d", name, first, config.epochs)
    steps = config.steps_per_epoch
    corrupted = splits.corrupted if splits.truth_known else None
    board = folder.parent / "tensorboard" / name
    stop = callbacks.StopOnSignal()
    progress = callbacks.Progress(name, config.epochs * steps, first * steps)
    if first == config.epochs:
        return model
    extra = []
    if splits.validation is not None:
        held_out = evaluation_stream(splits.validation, splits.spec)
        extra.append(callbacks.KeepBest(folder / BEST, held_out))
    try:
        model.fit(
            training_stream(
                splits.train,
                splits.meta if model.method.takes_meta_batches else None,
                splits.spec,
                config.batch_size,
                config.meta_batch_size,
                config.seed,
                parts.make_augmentation(config),
                start_step=first * steps,
                sampling=model.method.sampling,
            ),
            epochs=config.epochs,
            initial_epoch=first,
            steps_per_epoch=steps,
            validation_data=evaluation_stream(splits.test, splits.spec),
            verbose=0,
            callbacks=[
                callbacks.StopOnNaN(first * steps),
                callbacks.LearningRate(),
                example_files.ExampleRecord(folder / "examples", corrupted, first),
                progress,
                *extra,
                callbacks.MetricsFile(folder / "metrics.csv", first),
                TensorBoard(board, config.epochs, splits.train.y, corrupted),
                saved,
                stop,
            ],
        )
    except tf.errors.OpError as error:
        raise images.found_in(error) or error from None
    finally:
        progress.close()
        stop.restore()
    return model


def train_method(
    config: Experiment, splits: Splits, name: str, folder: pathlib.Path, make: parts.Maker
) -> ReweightedModel:
    """Trains one method, with the stage before it where it has one; see `train`."""
    before = parts.first_stage(config, name)
    if not before:
        return train(config, splits, name, folder, make)
    halves = parts.halves(config)
    first = train(halves[0], splits, before, folder / "first_stage", make)
    estimated = methods.METHODS[name].estimate(_outputs(first, splits))
    return train(halves[1], splits, name, folder, make, estimated)


def best_classifier(classifier: keras.Model, folder: pathlib.Path) -> tuple[keras.Model, int]:
    """A copy of a classifier as it was at the best epoch on the validation set, and that epoch."""
    found = load_arrays(folder / BEST)
    copy = _copy(classifier)
    for i, variable in enumerate(copy.variables):
        variable.assign(found[f"variable_{i:05d}"])
    return copy, int(found["epoch"])


def fine_tune(
    config: Experiment, splits: Splits, folder: pathlib.Path, classifier: keras.Model
) -> ReweightedModel:
    """Trains a copy of a classifier plainly on the meta set, see ``then_fine_tune``."""
    epochs = -(-config.then_fine_tune // 100)
    config = dataclasses.replace(
        config,
        epochs=epochs,
        steps_per_epoch=-(-config.then_fine_tune // epochs),
        lr=config.fine_tune_lr,
        schedule="step",
        lr_drops=(),
    )
    splits = dataclasses.replace(splits, validation=None)
    return train(config, splits, "meta_only", folder, lambda spec: _copy(classifier))


def _copy(classifier: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(classifier)
    copy.set_weights(classifier.get_weights())
    return copy


def _outputs(model: ReweightedModel, splits: Splits) -> Outputs:
    def probabilities(examples):
        if examples is None:
            return None
        logits = model.classifier.predict(evaluation_stream(examples, splits.spec), verbose=0)
        return tf.nn.softmax(tf.cast(logits, tf.float64)).numpy()

    meta_labels = None if splits.meta is None else splits.meta.y
    train, meta = probabilities(splits.train), probabilities(splits.meta)
    return Outputs(train, splits.train.y, meta, meta_labels, model.method)
