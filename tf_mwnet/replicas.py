"""Sums over the global batch, whether it lies on one replica or on several."""

from __future__ import annotations

import tensorflow as tf


def count() -> int:
    """Replicas in sync (1 without a distribution strategy)."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def all_sum(value):
    """Sum of ``value`` (a tensor or a list of tensors) over all replicas; differentiable."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def gather(value: tf.Tensor) -> tf.Tensor:
    """``value`` ``[b, ...]`` of all replicas, ``[B, ...]``; not differentiable."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_gather(value, axis=0)


def batch_size(batch_tensor: tf.Tensor, dtype=tf.float32) -> tf.Tensor:
    """Number of examples in the global batch, as a scalar of ``dtype``."""
    return all_sum(tf.cast(tf.shape(batch_tensor)[0], dtype))
