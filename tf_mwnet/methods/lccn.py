"""Latent class-conditional noise: latent labels drawn by Gibbs sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import replicas
from tf_mwnet.errors import check_range
from tf_mwnet.methods.draws import draws
from tf_mwnet.methods.options import Option
from tf_mwnet.methods.targets import SoftTargets, given, predicted
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class LCCN(SoftTargets):
    """Latent class-conditional noise (Yao et al., AAAI 2019, "Safeguarded Dynamic Label Regression").

    Each training example has a latent label z, which the classifier is trained on. In each step the
    latent labels of the batch are drawn by Gibbs sampling, with the transition matrix integrated out:

        P(z = k) ~ p_k(x) (alpha + n_ky) / sum_j (alpha + n_kj),

    n the counts of (latent, given) labels over the training set without the example itself, alpha the
    Dirichlet prior. In the first epochs z is the given label.

    Args:
        num_examples: N, above every row that the training batches carry.
        class_sizes: training examples of each class as labelled, ``[K]``.
        alpha: of the prior, above 0.
        warm_up: part of the epochs with the given labels, 0 to 1.
        seed: of the draws.
    """

    num_examples: int
    from_run = ("num_examples", "class_sizes", "seed")
    options = (
        Option("alpha", "of the Dirichlet prior", above=0),
        Option("warm_up", "part of the epochs with the given labels", at_least=0, at_most=1),
    )

    def __init__(
        self,
        num_examples: int,
        class_sizes: Sequence[int],
        alpha: float = 1.0,
        warm_up: float = 0.3,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_range("num_examples", num_examples, 1)
        self.num_examples, self.seed = int(num_examples), int(seed)
        self.class_sizes = [int(n) for n in class_sizes]
        self.alpha, self.warm_up = self.option("alpha", alpha), self.option("warm_up", warm_up)
        self.step = self.add_state((), "int64", "step")
        self.active = self.add_state((), "int32", "active")
        count = len(self.class_sizes)
        self.counts = self.add_state((count, count), keras.config.floatx(), "counts")
        self.counts.assign(np.diag(np.array(self.class_sizes, float)))
        # -1 stands for the given label.
        self.latent = self.add_state((self.num_examples,), "int64", "latent")
        self.latent.assign(-np.ones(self.num_examples, np.int64))

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.active.assign(int(epoch >= self.warm_up * epochs))

    def posterior(self, examples: Examples, current: tf.Tensor) -> tf.Tensor:
        """Computes P(z = k), ``[B, K]``; ``current`` is the latent label as ``[B, K]``."""
        label = given(examples)
        counts = tf.cast(tf.convert_to_tensor(self.counts), label.dtype)
        together = tf.linalg.matmul(label, counts, transpose_b=True) - current  # n_ky
        rows = tf.reduce_sum(counts, axis=1)[None] - current  # sum_j n_kj
        share = (self.alpha + together) / (self.alpha * counts.shape[0] + rows)
        values = predicted(examples) * share
        return values / tf.reduce_sum(values, axis=1, keepdims=True)

    def _current(self, examples: Examples) -> tf.Tensor:
        latent = tf.gather(tf.convert_to_tensor(self.latent), examples.index)
        label = given(examples)
        drawn = tf.one_hot(latent, label.shape[1], dtype=label.dtype)
        return tf.where(latent[:, None] < 0, label, drawn)

    def observe(self, examples: Examples) -> None:
        self.step.assign(self.step + 1)
        current = self._current(examples)
        edges = tf.cumsum(self.posterior(examples, current), axis=1)[:, :-1]
        uniform = draws(self.num_examples, self.seed, self.step, edges.dtype)
        place = tf.gather(uniform, examples.index)[:, None]
        drawn = tf.reduce_sum(tf.cast(place >= edges, tf.int64), axis=1)
        active = tf.convert_to_tensor(self.active) > 0
        before = tf.argmax(current, axis=1)
        drawn = tf.where(active, drawn, before)
        new = tf.one_hot(drawn, current.shape[1], dtype=current.dtype)
        change = tf.linalg.matmul(new - current, given(examples), transpose_a=True)
        self.counts.assign_add(tf.cast(replicas.all_sum(change), self.counts.dtype))
        index, drawn = replicas.gather(examples.index), replicas.gather(drawn)
        old = tf.convert_to_tensor(self.latent)
        self.latent.assign(tf.tensor_scatter_nd_update(old, index[:, None], drawn))

    def targets(self, examples: Examples) -> tf.Tensor:
        return self._current(examples)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_examples": self.num_examples,
            "class_sizes": self.class_sizes,
            "seed": self.seed,
        }
