"""Sparse over-parameterisation."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.methods.erm import ERM
from tf_mwnet.methods.options import Option
from tf_mwnet.types import Examples

EPSILON = 1e-4  # least entry of a prediction
START = 1e-8  # deviation of u and v


@keras.saving.register_keras_serializable(package="tf_mwnet")
class SOP(ERM):
    """Sparse over-parameterisation: explains the wrong label of an example by a noise of its own.

        q_i = p_i + u_i^2 y_i - v_i^2 (1 - y_i), at least 1e-4, divided by its sum
        loss_i = -log q_{i, y_i}

    p is the softmax of the logits and y_i the given label, one-hot; u_i is a number, v_i a vector.
    Squares are at most 1. Both start near 0 and follow, by plain gradient descent,

        mean_i (loss_i + |c_i + u_i^2 y_i - v_i^2 (1 - y_i) - y_i|^2)

    c_i is the predicted class, one-hot, and v in the loss a constant. Where the classifier disagrees
    with a label, u and v grow and take the label over.

    Source: Liu et al., ICML 2022, eq. 3-6, and their code.

    Departures: none of SOP; SOP+, which adds consistency and class balance, is left out. u of examples
    that are drawn twice in a batch take the sum of their steps.

    Args:
        num_examples: N, number of training examples, at least 1; above every row that the training
            batches carry. A run fills it in.
        num_classes: K. A run fills it in.
        lr_u: learning rate of u, at least 0; 1 in the paper; with asymmetric noise 0.1 in the authors'
            code.
        lr_v: learning rate of v, at least 0; 10 in the paper, 100 with asymmetric noise.
        seed: of the start.
        **kwargs: as for `Method`.

    Raises:
        UserError: a value is out of range.

    Examples:
        >>> config = tf_mwnet.Experiment(method="sop --lr_v=100", compare="erm")
    """

    from_run = ("num_examples", "num_classes", "seed")
    options = (
        Option("lr_u", "learning rate of u", at_least=0),
        Option("lr_v", "learning rate of v", at_least=0),
    )

    def __init__(
        self,
        num_examples: int,
        num_classes: int,
        lr_u: float = 1.0,
        lr_v: float = 10.0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_examples = self.example_count(num_examples)
        self.num_classes, self.seed = int(num_classes), int(seed)
        self.lr_u, self.lr_v = self.option("lr_u", lr_u), self.option("lr_v", lr_v)
        rng, floatx = np.random.default_rng(self.seed), keras.config.floatx()
        self.u = self.add_state((self.num_examples, 1), floatx, "u")
        self.v = self.add_state((self.num_examples, self.num_classes), floatx, "v")
        for state in (self.u, self.v):
            state.assign(rng.normal(0, START, state.shape))

    def _rows(self, state: keras.Variable, index: tf.Tensor | None, like: tf.Tensor) -> tf.Tensor:
        if index is None:
            return tf.zeros_like(like[:, : state.shape[1]])
        return tf.cast(tf.gather(tf.convert_to_tensor(state), index), like.dtype)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        p = tf.nn.softmax(losses.full_precision(logits))
        u, v = self._rows(self.u, index, p), self._rows(self.v, index, p)
        return _loss(p, losses.one_hot(labels, p), u, v)

    def observe(self, examples: Examples) -> None:
        p = tf.nn.softmax(losses.full_precision(examples.logits))
        label = losses.one_hot(examples.labels, p)
        guess = tf.one_hot(tf.argmax(p, axis=1), p.shape[1], dtype=p.dtype)
        u, v = (self._rows(state, examples.index, p) for state in (self.u, self.v))
        with tf.GradientTape() as tape:
            tape.watch([u, v])
            up, down = _squares(label, u, v)
            total = _loss(p, label, u, tf.stop_gradient(v)) + tf.reduce_sum(
                (guess + up - down - label) ** 2, axis=1
            )
        slopes = tape.gradient(total, [u, v])
        size = replicas.batch_size(total, total.dtype)
        index = replicas.gather(examples.index)
        for state, slope, rate in ((self.u, slopes[0], self.lr_u), (self.v, slopes[1], self.lr_v)):
            step = replicas.gather(tf.cast(-rate * slope / size, state.dtype))
            state.value.scatter_add(tf.IndexedSlices(step, index))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_examples": self.num_examples,
            "num_classes": self.num_classes,
            "seed": self.seed,
        }


def _squares(label: tf.Tensor, u: tf.Tensor, v: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what is added to the given class and taken from the others, ``[B, K]`` each."""
    return tf.clip_by_value(u**2 * label, 0, 1), tf.clip_by_value(v**2 * (1 - label), 0, 1)


def _loss(p: tf.Tensor, label: tf.Tensor, u: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
    up, down = _squares(label, u, v)
    q = tf.maximum(p + up - down, EPSILON)
    q /= tf.reduce_sum(q, axis=1, keepdims=True)
    return -tf.reduce_sum(label * tf.math.log(tf.clip_by_value(q, EPSILON, 1)), axis=1)
