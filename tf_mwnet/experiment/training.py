"""Trains one method into its folder, continuing where an earlier run was cut off."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_mwnet import methods, strategies
from tf_mwnet.config import Experiment
from tf_mwnet.data.streams import epochs, evaluation_stream, training_stream
from tf_mwnet.errors import UserError
from tf_mwnet.experiment import build, callbacks, example_files
from tf_mwnet.figures.tensorboard import TensorBoard
from tf_mwnet.files import load_arrays, write_atomically
from tf_mwnet.model import classifier_head
from tf_mwnet.model.copies import copied
from tf_mwnet.model.meta_draws import EpochNumber, MetaDraws
from tf_mwnet.model.reweighted import ReweightedModel
from tf_mwnet.types import DataSpec, LabelledSet, Outputs, Splits

BEST = "best_epoch.npz"


def train(
    config: Experiment,
    splits: Splits,
    name: str,
    folder: pathlib.Path,
    make: build.Maker,
    strategy: tf.distribute.Strategy,
    estimated: Mapping[str, Any] = build.EMPTY,
    method: Callable[[], methods.Method] | None = None,
) -> ReweightedModel:
    """Trains one method into ``folder``, continuing after its last whole epoch if there is one.

    Args:
        config: the run's.
        splits: the data.
        name: the method.
        folder: of its files. Of several workers only the chief writes there, and all read.
        make, estimated: see `build.make_method`.
        strategy: to train under.
        method: makes the method in place of the one that ``name`` stands for.

    Raises:
        NotANumber: the loss is no longer finite.
        Interrupted: SIGINT or SIGTERM came.
        WorkerLost: another worker ended.
        UserError: an image that is read on the fly cannot be read; or the workers do not see the same
            folder.
    """
    with strategies.watched(strategy), strategy.scope():
        model = build.build_model(config, splits, name, make, estimated, method)
    splits = splits.seen_by(model.method.trains_on)
    saved = callbacks.Checkpoints(folder / "checkpoints", model)
    first = saved.restore() if config.resume else 0
    with strategies.watched(strategy):
        strategies.agree(strategy, "finished epochs", first)
    if first:
        logging.info("%s: continuing after epoch %d of %d", name, first, config.epochs)
    if first == config.epochs:
        return model
    steps = config.steps_per_epoch
    stop = callbacks.StopOnSignal()
    progress = callbacks.Progress(name, config.epochs * steps, first * steps)
    watching = [callbacks.StopOnNaN(first * steps), callbacks.LearningRate()]
    if strategies.is_chief(strategy):
        watching += [progress, *_writers(config, splits, name, folder, first), saved]
    try:
        with strategies.watched(strategy):
            _fit(model, config, splits, first, [*watching, stop])
            strategies.everyone(strategy, 0)  # wait until the chief has written its files
    finally:
        progress.close()
    return model


def _fit(
    model: ReweightedModel,
    config: Experiment,
    splits: Splits,
    first: int,
    watching: list[keras.callbacks.Callback],
) -> None:
    """Trains from epoch ``first``, 0-based, to the last one."""
    steps, method = config.steps_per_epoch, model.method
    arguments = (
        splits.spec, config.batch_size, config.meta_batch_size, config.seed,
        build.make_augmentation(config, splits),
    )  # fmt: skip
    draws = MetaDraws(method, splits.train.y, first) if method.draws_meta else None
    at = draws or EpochNumber(first)
    # Keras takes more steps than an epoch has where several at once do not divide them; a stream that
    # ends with the epoch stops it.
    anew = draws is not None or steps % model.steps_per_execution > 0
    stream = training_stream(
        splits.train,
        splits.meta if method.takes_meta_batches and draws is None else None,
        *arguments,
        start_step=(lambda: at.epoch * steps) if anew else first * steps,
        sampling=method.sampling,
        draw=None if draws is None else lambda: draws.rows,
    )
    model.fit(
        epochs(stream, steps) if anew else stream,
        epochs=config.epochs,
        initial_epoch=first,
        steps_per_epoch=None if anew else steps,
        validation_data=evaluation_stream(splits.test, splits.spec, kept=True),
        verbose=0,
        callbacks=[at, *watching],
    )


def _writers(
    config: Experiment, splits: Splits, name: str, folder: pathlib.Path, first: int
) -> list[keras.callbacks.Callback]:
    """Makes the callbacks that write files; the later ones see what the earlier ones add to the logs."""
    corrupted = splits.corrupted if splits.truth_known else None
    writers: list[keras.callbacks.Callback] = []
    writers.append(example_files.ExampleRecord(folder / "examples", corrupted, first))
    if splits.validation is not None:
        held_out = evaluation_stream(splits.validation, splits.spec, kept=True)()
        writers.append(callbacks.KeepBest(folder / BEST, held_out, splits.validation.y, first))
    writers.append(callbacks.MetricsFile(folder / "metrics.csv", first))
    board = folder.parent / "tensorboard" / name
    return [*writers, TensorBoard(board, config.epochs, splits.train.y, corrupted)]


def train_method(
    config: Experiment,
    splits: Splits,
    name: str,
    folder: pathlib.Path,
    make: build.Maker,
    strategy: tf.distribute.Strategy,
) -> ReweightedModel:
    """Trains one method, after its first stage if it has one; see `train`."""
    before = build.first_stage(config, name)
    if not before:
        return train(config, splits, name, folder, make, strategy)
    first_half, second_half = build.two_stages(config)
    first = train(first_half, splits, before, folder / "first_stage", make, strategy)
    estimated = methods.METHODS[name].estimate(_outputs(first, splits))
    if methods.METHODS[name].continues:
        make = functools.partial(_copy_for, first.final_classifier())
    return train(second_half, splits, name, folder, make, strategy, estimated)


def _copy_for(classifier: keras.Model, spec: DataSpec) -> keras.Model:
    return copied(classifier)


def keep_predictions(classifier: keras.Model, splits: Splits, path: pathlib.Path) -> None:
    """Writes the predicted classes of the test set as int32 ``predicted``, unless the file exists."""
    if path.is_file():
        return
    outputs = classifier_head.inference(classifier)(evaluation_stream(splits.test, splits.spec)())
    predicted = outputs.argmax(axis=1).astype(np.int32)
    write_atomically(path, lambda file: np.savez_compressed(file, predicted=predicted))


def best_classifier(classifier: keras.Model, folder: pathlib.Path) -> tuple[keras.Model, int]:
    """Returns a copy of a classifier from the best epoch on the validation set, and that epoch."""
    saved = load_arrays(folder / BEST)
    copy = copied(classifier)
    for i, variable in enumerate(copy.variables):
        variable.assign(saved[f"variable_{i:05d}"])
    return copy, int(saved["epoch"])


def fine_tune(
    config: Experiment,
    splits: Splits,
    folder: pathlib.Path,
    classifier: keras.Model,
    strategy: tf.distribute.Strategy,
) -> ReweightedModel:
    """Trains a copy of a classifier plainly on the meta set, see ``then_fine_tune``."""
    if splits.meta is None:
        raise UserError("then_fine_tune is set without a meta set; allowed: with one")
    if config.fine_tune_unit == "epochs":
        epochs, steps = config.then_fine_tune, -(-len(splits.meta) // config.batch_size)
    else:
        epochs = -(-config.then_fine_tune // 100)
        steps = -(-config.then_fine_tune // epochs)
    config = dataclasses.replace(
        config,
        epochs=epochs,
        steps_per_epoch=steps,
        lr=config.fine_tune_lr,
        schedule="step",
        lr_drops=(),
    )
    splits = dataclasses.replace(splits, validation=None)
    return train(config, splits, "meta_only", folder, lambda spec: copied(classifier), strategy)


def _outputs(model: ReweightedModel, splits: Splits) -> Outputs:
    classifier = model.final_classifier()

    def probabilities(examples: LabelledSet) -> np.ndarray:
        logits = classifier_head.inference(classifier)(evaluation_stream(examples, splits.spec)())
        return tf.nn.softmax(tf.cast(logits, tf.float64)).numpy()

    meta, meta_labels = None, None
    if splits.meta is not None:
        meta, meta_labels = probabilities(splits.meta), splits.meta.y
    return Outputs(probabilities(splits.train), splits.train.y, meta, meta_labels, model.method)
