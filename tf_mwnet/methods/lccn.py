"""Latent class-conditional noise: latent labels that are sampled while the classifier trains."""

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
    """Latent class-conditional noise: the classifier is trained on a latent label of each example.

        losses_ik = -log p_ik,    weights_ik = [z_i = k] / B
        P(z_i = k) ~ p_ik (alpha + n_ky) / sum_j (alpha + n_kj),    y the given label of example i

    z is the latent label, p the softmax of the logits, n_kj the number of training examples with latent
    label k and given label j, without example i itself, and alpha the Dirichlet prior. Each step draws
    the latent labels of its batch again, by Gibbs sampling with the transition matrix integrated out.
    In the first epochs z is the given label.

    Source: Yao et al., "Safeguarded Dynamic Label Regression", AAAI 2019.

    Args:
        num_examples: N, number of training examples, at least 1; above every row that the training
            batches carry. A run fills it in.
        class_sizes: training examples of each class as labelled, int ``[K]``. A run fills it in.
        alpha: concentration of the Dirichlet prior, above 0.
        warm_up: fraction of the epochs that use the given labels, 0 to 1.
        seed: seed of the draws.
        **kwargs: as for `Method`.

    Raises:
        UserError: an argument is out of range.

    Examples:
        >>> method = tf_mwnet.methods.LCCN(num_examples=len(y), class_sizes=np.bincount(y))
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
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
        """Returns P(z = k) for each example of a batch, ``[B, K]``.

        Args:
            examples: the batch.
            current: its latent labels before the draw, one-hot ``[B, K]``.
        """
        label = given(examples)
        counts = tf.cast(tf.convert_to_tensor(self.counts), label.dtype)
        together = tf.linalg.matmul(label, counts, transpose_b=True) - current  # n_ky
        rows = tf.reduce_sum(counts, axis=1)[None] - current  # sum_j n_kj
        share = (self.alpha + together) / (self.alpha * counts.shape[0] + rows)
        values = predicted(examples) * share
        return values / tf.reduce_sum(values, axis=1, keepdims=True)

    def _current(self, examples: Examples) -> tf.Tensor:
        """Returns the latent labels of a batch, one-hot ``[B, K]``."""
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
