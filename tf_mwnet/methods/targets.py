"""The base of methods that replace the given labels by targets ``[B, K]``."""

from __future__ import annotations

import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.methods.base import Method
from tf_mwnet.types import Examples


class SoftTargets(Method):
    """Base of the methods that train on the cross-entropy with a target q.

        losses_ik = -log p_ik,    weights_ik = q_ik / B

    p is the softmax of the logits. A subclass implements `targets`.

    Examples:
        >>> class Smoothed(SoftTargets):
        ...     def targets(self, examples):
        ...         return 0.9 * given(examples) + 0.1 * predicted(examples)
    """

    smooths_labels = False

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        return -tf.nn.log_softmax(losses.full_precision(logits))

    def targets(self, examples: Examples) -> tf.Tensor:
        """Returns the targets of a batch, ``[B, K]`` of the losses' dtype; rows sum to 1."""
        raise NotImplementedError

    def example_weights(self, examples: Examples) -> tf.Tensor:
        target = self.targets(examples)
        return target / replicas.batch_size(target, target.dtype)

    def label_weight(self, weights: tf.Tensor, examples: Examples) -> tf.Tensor:
        """Returns the weight of each example's given label, ``[B]``."""
        return tf.reduce_sum(weights * given(examples), axis=1)


def given(examples: Examples) -> tf.Tensor:
    """Returns the given labels as ``[B, K]`` of the losses' dtype."""
    return tf.cast(losses.one_hot(examples.labels, examples.logits), examples.losses.dtype)


def predicted(examples: Examples) -> tf.Tensor:
    """Returns the predicted class probabilities, ``[B, K]`` of the losses' dtype."""
    return tf.cast(tf.nn.softmax(losses.full_precision(examples.logits)), examples.losses.dtype)


def clipped(p: tf.Tensor, least: float = 1e-4) -> tf.Tensor:
    """Clips probabilities to ``least .. 1 - least``; the gradient is 0 outside."""
    return tf.clip_by_value(p, least, 1 - least)
