"""Per-example losses: pure functions of logits ``[B, K]`` and labels, not reduced."""

from __future__ import annotations

import tensorflow as tf


def full_precision(logits: tf.Tensor) -> tf.Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay."""
    return tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """``-sum_k y_k log softmax(z)_k``.

    Args:
        logits: float ``[B, K]``.
        labels: integer ``[B]`` or ``[B, 1]`` in 0..K-1, or class probabilities ``[B, K]``.

    Returns:
        float ``[B]``, at least float32.
    """
    logits = full_precision(logits)
    if labels.shape.rank == 2 and labels.shape[-1] == logits.shape[-1] and logits.shape[-1] != 1:
        labels = tf.cast(labels, logits.dtype)
        return tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
