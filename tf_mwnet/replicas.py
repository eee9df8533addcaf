"""Sums over the global batch, on one replica or several."""

from __future__ import annotations

from typing import TypeVar

import tensorflow as tf

Tensors = TypeVar("Tensors", tf.Tensor, list[tf.Tensor])


def count() -> int:
    """Counts the replicas in sync (1 without a distribution strategy)."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def all_sum(value: Tensors) -> Tensors:
    """Sums a tensor, or each of a list of tensors, over all replicas; differentiable."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def gather(value: tf.Tensor) -> tf.Tensor:
    """Concatenates the values ``[b, ...]`` of all replicas to ``[B, ...]``; not differentiable."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    # As a sum of padded parts: TensorFlow's all_gather fails if a worker has one replica.
    number, size = context.replica_id_in_sync_group, tf.shape(value)[0]
    sizes = all_sum(size * tf.one_hot(number, context.num_replicas_in_sync, dtype=size.dtype))
    before = tf.reduce_sum(sizes[:number])
    after = tf.reduce_sum(sizes) - before - size
    return all_sum(tf.pad(value, [[before, after]] + [[0, 0]] * (value.shape.rank - 1)))


def positions(batch_tensor: tf.Tensor) -> tf.Tensor:
    """Returns the places of this replica's examples in what `gather` returns, int32 ``[b]``."""
    size = tf.shape(batch_tensor)[0]
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.range(size)
    number = context.replica_id_in_sync_group
    sizes = all_sum(size * tf.one_hot(number, context.num_replicas_in_sync, dtype=size.dtype))
    return tf.reduce_sum(sizes[:number]) + tf.range(size)


def batch_size(batch_tensor: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Counts the examples of the global batch, as a scalar of ``dtype``."""
    return all_sum(tf.cast(tf.shape(batch_tensor)[0], dtype))
