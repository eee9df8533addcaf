"""Base of methods that replace the given label by another target, ``[B, K]``."""

from __future__ import annotations

import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.methods.base import Method
from tf_mwnet.types import Examples


class SoftTargets(Method):
    """``losses_ik = -log p_k`` and ``weights_ik = q_ik / B``: cross-entropy with the target q.

    A method supplies `targets`.
    """

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        return -tf.nn.log_softmax(losses.full_precision(logits))

    def targets(self, examples: Examples) -> tf.Tensor:
        """Returns the labels to train on, ``[B, K]`` of the losses' type; rows sum to 1."""
        raise NotImplementedError

    def example_weights(self, examples: Examples) -> tf.Tensor:
        target = self.targets(examples)
        return target / replicas.batch_size(target, target.dtype)

    def label_weight(self, weights: tf.Tensor, examples: Examples) -> tf.Tensor:
        """Returns the weight of the given label."""
        return tf.reduce_sum(weights * given(examples), axis=1)


def given(examples: Examples) -> tf.Tensor:
    """Returns the given labels as ``[B, K]`` of the losses' type."""
    return tf.cast(losses.one_hot(examples.labels, examples.logits), examples.losses.dtype)


def predicted(examples: Examples) -> tf.Tensor:
    """Returns the class probabilities as ``[B, K]`` of the losses' type."""
    return tf.cast(tf.nn.softmax(losses.full_precision(examples.logits)), examples.losses.dtype)
