"""Latent class-conditional noise: latent labels that are sampled while the classifier trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import replicas
from tf_mwnet.errors import UserError
from tf_mwnet.methods.draws import draws
from tf_mwnet.methods.options import Option
from tf_mwnet.methods.targets import SoftTargets, given, predicted
from tf_mwnet.types import Examples, Head, Outputs


@keras.saving.register_keras_serializable(package="tf_mwnet")
class LCCN(SoftTargets):
    """Latent class-conditional noise: the classifier is trained on a latent label of each example.

        losses_ik = -log p_ik,    weights_ik = [z_i = k] / B
        P(z_i = k) ~ p_ik (alpha + n_ky) / sum_j (alpha + n_kj),    y the given label of example i

    z is the latent label, p the softmax of the logits, n_kj the number of training examples with latent
    label k and given label j, without example i itself, and alpha the Dirichlet prior: Gibbs sampling
    with the transition matrix integrated out. Each step draws the latent labels of its batch. z starts
    at the prediction of a classifier that was trained on the given labels; n starts at the confusion of
    the two, and in the first epochs, the warm-up, z is drawn with n as it was at the start.

    A run trains plainly for half of its epochs, takes the latent labels from that classifier, and goes
    on with it for the other half.

    Source: Yao et al., "Safeguarded Dynamic Label Regression", AAAI 2019, Algorithm 1.

    Departures from the authors' code: n leaves example i out, as in the paper's equation, and is up to
    date in each step; theirs counts it, and takes over n every 200 steps.

    Args:
        num_examples: N, number of training examples, at least 1; above every row that the training
            batches carry. A run fills it in.
        counts: n at the start, ``[K, K]``, row = latent label. A run estimates it, see `estimate`.
        latent: z at the start, int ``[N]``; None for the class that is predicted when an example is
            first seen. It is part of the method's state, not of its configuration. A run estimates it.
        alpha: concentration of the Dirichlet prior, above 0; 1 in the authors' code.
        warm_up: fraction of the epochs in which the draws use n as it was at the start, 0 to 1; 20,000
            of 46,875 steps in the authors' code.
        seed: seed of the draws.
        **kwargs: as for `Method`.

    Raises:
        UserError: an argument is out of range or has the wrong shape; in `prepare`, ``counts`` has
            another number of classes than the classifier.

    Examples:
        >>> outputs = tf_mwnet.types.Outputs(keras.ops.softmax(classifier.predict(x)).numpy(), y)
        >>> method = tf_mwnet.methods.LCCN(len(y), **tf_mwnet.methods.LCCN.estimate(outputs))
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
    """

    from_run = ("num_examples", "seed")
    options = (
        Option("alpha", "concentration of the Dirichlet prior", above=0),
        Option("warm_up", "part of the epochs with the first transition matrix", at_least=0, at_most=1),
    )
    continues = True
    num_examples: int

    def __init__(
        self,
        num_examples: int,
        counts: Sequence[Sequence[float]],
        latent: np.ndarray | None = None,
        alpha: float = 1.0,
        warm_up: float = 0.43,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_examples = self.example_count(num_examples)
        self.seed = int(seed)
        self.alpha, self.warm_up = self.option("alpha", alpha), self.option("warm_up", warm_up)
        self.first = np.asarray(counts, np.float64)
        if self.first.ndim != 2 or self.first.shape[0] != self.first.shape[1] or (self.first < 0).any():
            raise UserError(f"counts has the shape {self.first.shape}; allowed: [K, K], not negative")
        self.step = self.add_state((), "int64", "step")
        self.active = self.add_state((), "int32", "active")
        self.counts = self.add_state(self.first.shape, keras.config.floatx(), "counts")
        self.counts.assign(self.first)
        # -1 stands for the prediction.
        self.latent = self.add_state((self.num_examples,), "int64", "latent")
        if latent is not None and np.shape(latent) != (self.num_examples,):
            raise UserError(f"latent has the shape {np.shape(latent)}; allowed: ({self.num_examples},)")
        unknown = -np.ones(self.num_examples, np.int64)
        self.latent.assign(unknown if latent is None else np.asarray(latent, np.int64))

    @classmethod
    def first_stage(cls, arguments: dict[str, Any]) -> str:
        return "erm"

    @classmethod
    def estimate(cls, outputs: Outputs) -> dict[str, Any]:
        """Returns ``latent``, the predicted classes, and ``counts``, their confusion with the labels."""
        latent = outputs.train.argmax(axis=1)
        counts = np.zeros((outputs.train.shape[1],) * 2)
        np.add.at(counts, (latent, outputs.labels), 1)
        return {"latent": latent, "counts": counts.tolist()}

    def prepare(self, head: Head) -> None:
        super().prepare(head)
        if head.num_classes not in (None, len(self.first)):
            raise UserError(
                f"counts is for {len(self.first)} classes; allowed: {head.num_classes}, the classifier's"
                " outputs"
            )

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.active.assign(int(epoch >= self.warm_up * epochs))

    def posterior(self, examples: Examples, current: tf.Tensor) -> tf.Tensor:
        """Returns P(z = k) for each example of a batch, ``[B, K]``.

        Args:
            examples: the batch.
            current: its latent labels before the draw, one-hot ``[B, K]``.
        """
        label = given(examples)
        active = tf.convert_to_tensor(self.active) > 0
        now, first = tf.cast(self.counts, label.dtype), tf.constant(self.first, label.dtype)
        counts = tf.where(active, now, first)
        itself = tf.where(active, current, tf.zeros_like(current))
        together = tf.linalg.matmul(label, counts, transpose_b=True) - itself  # n_ky
        rows = tf.reduce_sum(counts, axis=1)[None] - itself  # sum_j n_kj
        together, rows = tf.maximum(together, 0), tf.maximum(rows, 0)
        share = (self.alpha + together) / (self.alpha * counts.shape[0] + rows)
        values = predicted(examples) * share
        return values / tf.reduce_sum(values, axis=1, keepdims=True)

    def _current(self, examples: Examples) -> tf.Tensor:
        """Returns the latent labels of a batch, one-hot ``[B, K]``."""
        latent = tf.gather(tf.convert_to_tensor(self.latent), examples.index)
        p = predicted(examples)
        latent = tf.where(latent < 0, tf.argmax(p, axis=1), latent)
        return tf.one_hot(latent, p.shape[1], dtype=p.dtype)

    def observe(self, examples: Examples) -> None:
        self.step.assign(self.step + 1)
        current = self._current(examples)
        edges = tf.cumsum(self.posterior(examples, current), axis=1)[:, :-1]
        uniform = draws(self.num_examples, self.seed, self.step, edges.dtype)
        place = tf.gather(uniform, examples.index)[:, None]
        drawn = tf.reduce_sum(tf.cast(place >= edges, tf.int64), axis=1)
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
            "counts": self.first.tolist(),
            "seed": self.seed,
        }
