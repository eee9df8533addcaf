"""Learning rates of a run, as schedules over the steps of its two optimizers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers import schedules
from keras.optimizers.schedules import LearningRateSchedule as Schedule

from tf_mwnet.config import Experiment


@keras.saving.register_keras_serializable(package="tf_mwnet")
class CosineEpochs(Schedule):
    """Half a cosine with one value an epoch: ``lr (1 + cos(pi e / E)) / 2`` in epoch e of E, from 0.

    As GDW's code has it (NeurIPS 2021, main.py); `keras.optimizers.schedules.CosineDecay` has one value
    a step.

    Args:
        learning_rate: lr, above 0.
        epochs: E, at least 1.
        steps_per_epoch: at least 1.
    """

    def __init__(self, learning_rate: float, epochs: int, steps_per_epoch: int) -> None:
        self.learning_rate, self.epochs = float(learning_rate), int(epochs)
        self.steps_per_epoch = int(steps_per_epoch)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        epoch = tf.minimum(tf.cast(step, tf.int64) // self.steps_per_epoch, self.epochs)
        angle = math.pi / self.epochs * tf.cast(epoch, tf.float32)
        return self.learning_rate * (1 + tf.cos(angle)) / 2

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
        }


# With averaged meta gradients: twice the sum of the rates of all steps after the first ones, since
# the rate falls to 0, see `factor`.
MOVE = 0.7


@keras.saving.register_keras_serializable(package="tf_mwnet")
class EveryNth(Schedule):
    """A schedule for an optimizer that is called in every n-th step only, with a higher rate.

    Args:
        schedule: learning rate in each step of training, or one for all.
        every: n, at least 1.
        warmup: first steps, in all of which the optimizer is called.
        factor: of the rate after them; n by default.
        start: steps before these, in which the optimizer is not called.
        fades_over: calls after the first steps in which the factor falls linearly to 0; 0 if it does
            not.
    """

    def __init__(
        self,
        schedule: Schedule | float,
        every: int,
        warmup: int = 0,
        factor: float | None = None,
        start: int = 0,
        fades_over: int = 0,
    ) -> None:
        self.schedule, self.every, self.warmup = schedule, int(every), int(warmup)
        self.factor = float(self.every if factor is None else factor)
        self.start, self.fades_over = int(start), int(fades_over)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.int64)
        warm = step < self.warmup
        place = tf.where(warm, step, self.warmup + (step - self.warmup) * self.every)
        factor = tf.constant(self.factor)
        if self.fades_over:
            done = (tf.cast(step - self.warmup, tf.float32) + 0.5) / self.fades_over
            factor *= tf.maximum(1 - done, 0.5 / self.fades_over)
        rate = self.schedule(self.start + place) if callable(self.schedule) else self.schedule
        return tf.where(warm, 1.0, factor) * rate

    def get_config(self) -> dict[str, Any]:
        every = {"every": self.every, "warmup": self.warmup, "factor": self.factor}
        every |= {"start": self.start, "fades_over": self.fades_over}
        many = isinstance(self.schedule, Schedule)
        return {"schedule": schedules.serialize(self.schedule) if many else self.schedule} | every

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EveryNth:
        schedule = config["schedule"]
        many = isinstance(schedule, dict)
        return cls(**config | {"schedule": schedules.deserialize(schedule) if many else schedule})


def _follow(config: Experiment, start: float) -> float | Schedule:
    """Returns the configuration's schedule of the classifier, from ``start``."""
    if config.schedule == "cosine":
        return schedules.CosineDecay(start, config.epochs * config.steps_per_epoch)
    if config.schedule == "cosine_epochs":
        return CosineEpochs(start, config.epochs, config.steps_per_epoch)
    drops = sorted(d for d in config.lr_drops if d < config.epochs)
    if not drops:
        return start
    # A boundary is the last step with the old value.
    boundaries = [d * config.steps_per_epoch - 1 for d in drops]
    return schedules.PiecewiseConstantDecay(boundaries, [start / 10**i for i in range(len(drops) + 1)])


def of_classifier(config: Experiment) -> float | Schedule:
    """Returns the classifier's learning rate."""
    return _follow(config, config.lr)


def learning_later(config: Experiment, steps: int) -> Experiment:
    """Returns a configuration whose ``meta_start`` and ``meta_warmup`` leave out first steps.

    In plain epochs a method's optimizer is not called, whatever the two are, and its own count of
    steps, which a schedule sees, begins after them.
    """
    first = max(config.meta_start, steps)
    warmup = max(config.meta_start + config.meta_warmup - first, 0)
    return dataclasses.replace(config, meta_start=first, meta_warmup=warmup)


def factor(config: Experiment, start: float, averaged: bool) -> tuple[float, int]:
    """Returns the factor of the weight net's learning rate when it learns in every k-th step only.

    It is k, so that the weight net moves as far per epoch. But Adam moves by about its rate whatever
    the size of the meta gradient, and the direction of an average seldom turns: k times the rate
    carries the weight net too far in a long training. With averaged meta gradients and Adam it begins
    with

        min(k, max(sqrt(k), MOVE / (r n)))

    for n steps that learn after the first ones, at the rate r, and falls linearly to 0 at the last: the
    function is found early, and late in a training the meta loss of a classifier that has become too
    sure of itself would turn it.

    Args:
        config, start: see `of_weights`.
        averaged: the meta gradients are averages, ``meta_ema``.

    Returns:
        The factor, and the number of steps in which it falls to 0; 0 if it does not.
    """
    every = config.meta_every
    if not averaged or config.meta_optimizer == "sgd" or every == 1:
        return float(every), 0
    rest = config.epochs * config.steps_per_epoch - config.meta_start - config.meta_warmup
    learning = max(1, -(-rest // every))
    return min(every, max(math.sqrt(every), MOVE / (start * learning))), learning


def of_weights(config: Experiment, start: float, averaged: bool = False) -> float | Schedule:
    """Returns the learning rate of what a method learns, see ``meta_schedule`` and ``meta_every``.

    Args:
        config: resolved, of a run.
        start: learning rate at the start, for a step of training.
        averaged: see `factor`.
    """
    rate: float | Schedule = start
    if config.meta_schedule == "as_lr":
        rate = _follow(config, start)
    elif config.meta_schedule == "inverse":
        rate = schedules.InverseTimeDecay(start, config.steps_per_epoch, decay_rate=1.0)
    first, fades_over = factor(config, start, averaged)
    if not isinstance(rate, Schedule) and not (config.meta_warmup or fades_over):
        return rate * first
    return EveryNth(rate, config.meta_every, config.meta_warmup, first, config.meta_start, fades_over)
