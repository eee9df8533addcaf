"""Training of one method into its folder, from where an earlier run was cut off."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_mwnet import methods, strategies
from tf_mwnet.config import Experiment
from tf_mwnet.data import images
from tf_mwnet.data.streams import evaluation_stream, training_stream
from tf_mwnet.experiment import build, callbacks, example_files
from tf_mwnet.figures.tensorboard import TensorBoard
from tf_mwnet.files import load_arrays, write_atomically
from tf_mwnet.model import classifier_head
from tf_mwnet.model.reweighted import ReweightedModel
from tf_mwnet.types import Outputs, Splits

BEST = "best_epoch.npz"


def train(
    config: Experiment,
    splits: Splits,
    name: str,
    folder: pathlib.Path,
    make: build.Maker,
    strategy: tf.distribute.Strategy,
    estimated: Mapping[str, Any] = build.EMPTY,
) -> ReweightedModel:
    """Trains one method into ``folder``, from its last whole epoch if there is one.

    Args:
        config: the run's.
        splits: the data.
        name: the method.
        folder: of its files; of several workers the chief alone writes there, and all read.
        make, estimated: see `build.make_method`.
        strategy: what to train under.

    Raises:
        NotANumber: the loss is no longer finite.
        Interrupted: SIGINT or SIGTERM came.
        WorkerLost: another worker ended.
        UserError: an image that is read when it is needed can not be read; or the workers do not see
            one folder.
    """
    with strategies.watched(strategy), strategy.scope():
        model = build.build_model(config, splits, name, make, estimated)
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
    writing = [progress, *_writers(config, splits, name, folder, first), saved]
    try:
        with strategies.watched(strategy):
            model.fit(
                training_stream(
                    splits.train,
                    splits.meta if model.method.takes_meta_batches else None,
                    splits.spec,
                    config.batch_size,
                    config.meta_batch_size,
                    config.seed,
                    build.make_augmentation(config),
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
                    *(writing if strategies.is_chief(strategy) else []),
                    stop,
                ],
            )
            strategies.everyone(strategy, 0)  # what the chief has written is there
    except tf.errors.OpError as error:
        raise images.found_in(error) or error from None
    finally:
        progress.close()
        stop.restore()
    return model


def _writers(config, splits, name, folder, first) -> list[keras.callbacks.Callback]:
    """The callbacks that write files; what one adds to the logs, the next ones see."""
    corrupted = splits.corrupted if splits.truth_known else None
    found: list[keras.callbacks.Callback] = []
    found.append(example_files.ExampleRecord(folder / "examples", corrupted, first))
    if splits.validation is not None:
        held_out = evaluation_stream(splits.validation, splits.spec)()
        found.append(callbacks.KeepBest(folder / BEST, held_out, splits.validation.y))
    found.append(callbacks.MetricsFile(folder / "metrics.csv", first))
    board = folder.parent / "tensorboard" / name
    return [*found, TensorBoard(board, config.epochs, splits.train.y, corrupted)]


def train_method(
    config: Experiment,
    splits: Splits,
    name: str,
    folder: pathlib.Path,
    make: build.Maker,
    strategy: tf.distribute.Strategy,
) -> ReweightedModel:
    """Trains one method, with the stage before it where it has one; see `train`."""
    before = build.first_stage(config, name)
    if not before:
        return train(config, splits, name, folder, make, strategy)
    halves = build.halves(config)
    first = train(halves[0], splits, before, folder / "first_stage", make, strategy)
    estimated = methods.METHODS[name].estimate(_outputs(first, splits))
    return train(halves[1], splits, name, folder, make, strategy, estimated)


def keep_predictions(classifier: keras.Model, splits: Splits, path: pathlib.Path) -> None:
    """Writes the predicted classes of the test set as int32 ``predicted``, if they are not there."""
    if path.is_file():
        return
    outputs = classifier_head.inference(classifier)(evaluation_stream(splits.test, splits.spec)())
    predicted = outputs.argmax(axis=1).astype(np.int32)
    write_atomically(path, lambda file: np.savez_compressed(file, predicted=predicted))


def best_classifier(classifier: keras.Model, folder: pathlib.Path) -> tuple[keras.Model, int]:
    """A copy of a classifier as it was at the best epoch on the validation set, and that epoch."""
    found = load_arrays(folder / BEST)
    copy = copied(classifier)
    for i, variable in enumerate(copy.variables):
        variable.assign(found[f"variable_{i:05d}"])
    return copy, int(found["epoch"])


def fine_tune(
    config: Experiment,
    splits: Splits,
    folder: pathlib.Path,
    classifier: keras.Model,
    strategy: tf.distribute.Strategy,
) -> ReweightedModel:
    """Trains a copy of a classifier plainly on the meta set, see ``then_fine_tune``."""
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


def copied(classifier: keras.Model) -> keras.Model:
    """A classifier of its own with the same values, on no strategy's devices."""
    copy = keras.models.clone_model(classifier)
    copy.set_weights(classifier.get_weights())
    return copy


def _outputs(model: ReweightedModel, splits: Splits) -> Outputs:
    def probabilities(examples):
        if examples is None:
            return None
        logits = classifier_head.inference(model.classifier)(evaluation_stream(examples, splits.spec)())
        return tf.nn.softmax(tf.cast(logits, tf.float64)).numpy()

    meta_labels = None if splits.meta is None else splits.meta.y
    train, meta = probabilities(splits.train), probabilities(splits.meta)
    return Outputs(train, splits.train.y, meta, meta_labels, model.method)
