"""Which rows a batch holds: a pure function of seed and step.

Each order is a dataset of index batches int64 ``[b]`` that can start at any step and gives what an
uninterrupted one would have given from there. Seeds are pairs ``(seed, stream)``.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_mwnet.types import EACH_ONCE, Sampling

FOREVER = np.iinfo(np.int64).max
# Streams that share a seed draw from different sequences.
ORDER, META_ORDER, CROP, META_CROP, BALANCED = range(5)


def _order(size: int, seed: tuple[int, int], number: tf.Tensor, shuffle: bool) -> tf.Tensor:
    rows = tf.range(size, dtype=tf.int64)
    if not shuffle:
        return rows
    sequence = tf.stack([tf.cast(seed[0], tf.int64), number * 8 + seed[1]])
    return tf.random.experimental.stateless_shuffle(rows, seed=sequence)


def passes(
    size: int, batch_size: int, seed: tuple[int, int], start_step: int = 0, shuffle: bool = True
) -> tf.data.Dataset:
    """Index batches int64 ``[b]``, without end; each pass covers every index once.

    The last batch of a pass may be smaller. ``seed`` is ``(seed, stream)``.
    """
    per_pass = -(-size // batch_size)

    def one(number: tf.Tensor) -> tf.data.Dataset:
        order = _order(size, seed, number, shuffle)
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    numbers = tf.data.Dataset.range(start_step // per_pass, FOREVER)
    return numbers.flat_map(one).skip(start_step % per_pass)


def cycle(
    size: int, batch_size: int, seed: tuple[int, int], start_step: int = 0, shuffle: bool = True
) -> tf.data.Dataset:
    """Index batches int64 ``[batch_size]``, without end, all full: a batch may span two passes."""
    start = start_step * batch_size

    def one(number: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(_order(size, seed, number, shuffle))

    numbers = tf.data.Dataset.range(start // size, FOREVER)
    return numbers.flat_map(one).skip(start % size).batch(batch_size, drop_remainder=True)


def balanced(
    labels: np.ndarray, batch_size: int, seed: tuple[int, int], start_step: int = 0
) -> tf.data.Dataset:
    """Index batches int64 ``[batch_size]``, without end: each class equally often, with replacement.

    Where the batch does not divide by the number of classes, some have one more, in turn.

    Args:
        labels: int ``[N]``; classes without examples are left out.
        batch_size, seed, start_step: as for `passes`.
    """
    rows = np.argsort(labels, kind="stable")
    _, first, counts = np.unique(labels[rows], return_index=True, return_counts=True)
    classes = len(counts)

    def one(step: tf.Tensor) -> tf.Tensor:
        sequence = tf.stack([tf.cast(seed[0], tf.int64), step * 8 + seed[1]])
        slots = (tf.range(batch_size, dtype=tf.int64) + step * batch_size) % classes
        draws = tf.random.stateless_uniform([batch_size], sequence, dtype=tf.float64)
        count = tf.gather(tf.constant(counts, tf.int64), slots)
        place = tf.cast(draws * tf.cast(count, tf.float64), tf.int64)
        return tf.gather(
            tf.constant(rows, tf.int64), tf.gather(tf.constant(first, tf.int64), slots) + place
        )

    return tf.data.Dataset.range(start_step, FOREVER).map(one)


def training(
    labels: np.ndarray,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    shuffle: bool = True,
    sampling: Sampling = EACH_ONCE,
) -> tf.data.Dataset:
    """The order of training batches, as a method wants it.

    Args:
        labels: ``[N]`` or ``[N, K]``.
        batch_size: before ``sampling.batch_factor``.
        seed: the run's.
        start_step, shuffle: as for `passes`.
        sampling: how to draw.
    """
    size = batch_size * sampling.batch_factor
    if not sampling.balanced:
        return passes(len(labels), size, (seed, ORDER), start_step, shuffle)
    labels = np.asarray(labels)
    labels = labels.argmax(axis=1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(-1)
    return balanced(labels, size, (seed, BALANCED), start_step)
