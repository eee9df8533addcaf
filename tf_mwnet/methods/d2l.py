"""Dimensionality-driven learning: targets that follow the dimensionality of the features."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import replicas
from tf_mwnet.methods.options import Option
from tf_mwnet.methods.targets import SoftTargets, given, predicted
from tf_mwnet.types import Examples


def local_intrinsic_dimensionality(features: tf.Tensor, neighbours: int = 20) -> tf.Tensor:
    """Estimates the local intrinsic dimensionality at each example by maximum likelihood.

        LID = -1 / mean_i log(r_i / r_max)

    r_i are the Euclidean distances to the k nearest neighbours in the batch, r_max the largest of them.

    Source: Ma et al., ICML 2018, eq. 4; Amsaleg et al., 2015.

    Args:
        features: float ``[B, D]``.
        neighbours: k, at least 2; at most B - 1 are used.

    Returns:
        float ``[B]``, positive.
    """
    square = tf.reduce_sum(features**2, axis=1)
    products = tf.linalg.matmul(features, features, transpose_b=True)
    distances = tf.sqrt(tf.maximum(square[:, None] + square[None] - 2 * products, 1e-12))
    size = tf.shape(features)[0]
    distances = tf.linalg.set_diag(distances, tf.fill([size], distances.dtype.max))
    near = tf.sort(distances, axis=1)[:, :neighbours]
    near = near[:, : tf.maximum(tf.minimum(neighbours, size - 1), 0)]
    mean = tf.reduce_mean(tf.math.log(near / near[:, -1:]), axis=1)
    return -1 / tf.minimum(mean, -1e-6)


def _number(variable: keras.Variable) -> float:
    return float(variable.value.numpy())  # of a mirrored variable too


@keras.saving.register_keras_serializable(package="tf_mwnet")
class D2L(SoftTargets):
    """Dimensionality-driven learning: mixes labels with predictions once the dimensionality rises.

        losses_jk = -log p_jk,    weights_jk = q_jk / B
        q_j = a y_j + (1 - a) c_j,    a = exp(-(i / T) LID_i / min_{h < i} LID_h)

    p is the softmax of the logits, y_j the given label of example j and c_j its predicted class, both
    one-hot. i is the epoch, counted from 1, T the number of epochs, and LID_i the local intrinsic
    dimensionality of the features, averaged over the training batches of epoch i. It falls while the
    classifier learns, and rises when the classifier begins to learn wrong labels. The turning point is
    the first epoch, after ``start + window`` epochs, whose LID is more than two standard deviations
    above the mean of the ``window`` epochs before it. Until then a is 1.

    Source: Ma et al., ICML 2018.

    Departures: the authors go back to the classifier of the epoch before the turning point; here
    training goes on. They estimate the dimensionality from 1,280 random examples at the start of an
    epoch, here it is the mean over the epoch's training batches. Until the turning point the loss is
    cross-entropy, as in the paper; their code has symmetric cross-entropy there.

    Args:
        window: number of epochs that the turning point is found from, at least 2; 5 in the authors'
            code. (12 in the paper; a steady rise is never two deviations above the mean of so many.)
        start: number of epochs before the first window, at least 0. In the authors' code 5 for MNIST,
            20 for SVHN, 40 for CIFAR-10 and 60 for CIFAR-100.
        neighbours: k of the estimate, at least 2; 20 in the paper.
        **kwargs: as for `Method`.

    Raises:
        UserError: an argument is out of range; in `prepare`, the classifier does not end in a dense
            layer whose input could be used as features.

    Examples:
        >>> model = tf_mwnet.ReweightedModel(classifier, "d2l --window=8")
    """

    uses_features = True
    options = (
        Option("window", "epochs that the turning point is found from", at_least=2),
        Option("start", "epochs before the first of these", at_least=0),
        Option("neighbours", "of the dimensionality's estimate", at_least=2),
    )
    MOST = 1000  # epochs

    def __init__(self, window: int = 5, start: int = 5, neighbours: int = 20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.window, self.start = self.option("window", window), self.option("start", start)
        self.neighbours = self.option("neighbours", neighbours)
        self.total = self.add_state((), keras.config.floatx(), "total")
        self.batches = self.add_state((), keras.config.floatx(), "batches")
        self.history = self.add_state((self.MOST,), keras.config.floatx(), "history")
        self.turned = self.add_state((), "int32", "turned")
        self.mix = self.add_state((), keras.config.floatx(), "mix")
        self.mix.assign(1)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        batches = _number(self.batches)
        if batches > 0 and 0 < epoch <= self.MOST:
            lids = self.history.value.numpy().copy()
            lids[epoch - 1] = _number(self.total) / batches
            self.history.assign(lids)
            self._mix(lids[:epoch], epoch, epochs)
        self.total.assign(0)
        self.batches.assign(0)

    def _mix(self, lids: np.ndarray, epoch: int, epochs: int) -> None:
        """Sets the share of the given label from the dimensionality of each epoch so far."""
        before = lids[:-1][-self.window :]
        enough = len(lids) > self.start + self.window
        if enough and lids[-1] - before.mean() > 2 * before.std():
            self.turned.assign(1)
        if _number(self.turned):
            self.mix.assign(np.exp(-(epoch / epochs) * lids[-1] / lids[:-1].min()))

    def observe(self, examples: Examples) -> None:
        features = replicas.gather(tf.cast(examples.features, self.total.dtype))
        lid = local_intrinsic_dimensionality(features, self.neighbours)
        enough = tf.shape(features)[0] > 2
        self.total.assign_add(tf.where(enough, tf.reduce_mean(lid), 0))
        self.batches.assign_add(tf.cast(enough, self.batches.dtype))

    def targets(self, examples: Examples) -> tf.Tensor:
        guess = predicted(examples)
        guess = tf.one_hot(tf.argmax(guess, axis=1), guess.shape[1], dtype=guess.dtype)
        mix = tf.cast(tf.convert_to_tensor(self.mix), guess.dtype)
        return mix * given(examples) + (1 - mix) * guess
