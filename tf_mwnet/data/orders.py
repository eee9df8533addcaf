"""Orders of training: the rows of each batch, as a pure function of seed and step.

An order is an endless dataset of row batches, int64 ``[b]``. It can start at any step and continues as
an uninterrupted one would. Seeds are pairs ``(seed, stream)``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tf_mwnet.types import EACH_ONCE, Sampling

FOREVER = np.iinfo(np.int64).max
# Streams of one seed draw from different sequences.
ORDER, META_ORDER, CROP, META_CROP, BALANCED = range(5)

# Where to start: the number of a step, or what tells it whenever a dataset is iterated anew.
Start = int | Callable[[], int]


def from_step(start: Start, make: Callable[[tf.Tensor], tf.data.Dataset]) -> tf.data.Dataset:
    """Returns ``make(start)``, or ``make(start())`` anew whenever the dataset is iterated."""
    if not callable(start):
        return make(start)
    steps = _called(lambda: np.array(start(), np.int64))
    return steps.map(lambda step: tf.ensure_shape(step, [])).flat_map(make)


def _called(value: Callable[[], np.ndarray]) -> tf.data.Dataset:
    """Returns a dataset of one element, int64, which is asked for when the dataset is iterated."""
    return tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(value, [], tf.int64, stateful=True))


def classes(labels: np.ndarray) -> np.ndarray:
    """Returns the class of each example, int64 ``[N]``, from classes or class probabilities."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(axis=1)
    return labels.reshape(-1).astype(np.int64)


def _order(size: int | tf.Tensor, seed: tuple[int, int], number: tf.Tensor, shuffle: bool) -> tf.Tensor:
    rows = tf.range(size, dtype=tf.int64)
    if not shuffle:
        return rows
    sequence = tf.stack([tf.cast(seed[0], tf.int64), number * 8 + seed[1]])
    return tf.random.experimental.stateless_shuffle(rows, seed=sequence)


def passes(
    size: int,
    batch_size: int,
    seed: tuple[int, int],
    start_step: int | tf.Tensor = 0,
    shuffle: bool = True,
) -> tf.data.Dataset:
    """Returns batches int64 ``[b]`` of which each pass covers every row once.

    Args:
        size: N, the number of rows.
        batch_size: B; the last batch of a pass may be smaller.
        seed: ``(seed, stream)``.
        start_step: number of the first batch.
        shuffle: whether each pass has a new order.
    """
    per_pass = -(-size // batch_size)

    def one(number: tf.Tensor) -> tf.data.Dataset:
        order = _order(size, seed, number, shuffle)
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    numbers = tf.data.Dataset.range(start_step // per_pass, FOREVER)
    return numbers.flat_map(one).skip(start_step % per_pass)


def cycle(
    size: int | tf.Tensor,
    batch_size: int | tf.Tensor,
    seed: tuple[int, int],
    start_step: int | tf.Tensor = 0,
    shuffle: bool = True,
) -> tf.data.Dataset:
    """Returns full batches int64 ``[batch_size]``: a batch may span two passes. Arguments: `passes`."""
    start = start_step * batch_size

    def one(number: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(_order(size, seed, number, shuffle))

    numbers = tf.data.Dataset.range(start // size, FOREVER)
    return numbers.flat_map(one).skip(start % size).batch(batch_size, drop_remainder=True)


def cycle_drawn(
    draw: Callable[[], np.ndarray],
    batch_size: int,
    seed: tuple[int, int],
    start: Start,
    shuffle: bool = True,
) -> tf.data.Dataset:
    """As `cycle`, of the rows that are drawn whenever the dataset is iterated anew.

    Args:
        draw: returns the rows, int64 ``[n]``; a batch is not larger.
        batch_size, seed, shuffle: see `passes`.
        start: of the iteration.
    """

    def of(rows: tf.Tensor) -> tf.data.Dataset:
        size = tf.size(rows, tf.int64)
        each = tf.minimum(tf.constant(batch_size, tf.int64), size)
        places = from_step(start, lambda step: cycle(size, each, seed, step, shuffle))
        return places.map(lambda place: tf.gather(rows, place))

    drawn = _called(lambda: np.asarray(draw(), np.int64))
    return drawn.map(lambda rows: tf.ensure_shape(rows, [None])).flat_map(of)


def balanced(
    labels: np.ndarray, batch_size: int, seed: tuple[int, int], start_step: int | tf.Tensor = 0
) -> tf.data.Dataset:
    """Returns batches int64 ``[batch_size]`` with equally many rows of each class, with replacement.

    If the batch size is not a multiple of the number of classes, the classes take turns with one more.

    Args:
        labels: int ``[N]``; classes without examples are left out.
        batch_size, seed, start_step: see `passes`.
    """
    rows = np.argsort(labels, kind="stable")
    _, first, counts = np.unique(labels[rows], return_index=True, return_counts=True)
    kinds = len(counts)

    def one(step: tf.Tensor) -> tf.Tensor:
        sequence = tf.stack([tf.cast(seed[0], tf.int64), step * 8 + seed[1]])
        slots = (tf.range(batch_size, dtype=tf.int64) + step * batch_size) % kinds
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
    start_step: int | tf.Tensor = 0,
    shuffle: bool = True,
    sampling: Sampling = EACH_ONCE,
) -> tf.data.Dataset:
    """Returns the order of training batches that a method asks for.

    Args:
        labels: int ``[N]`` or class probabilities ``[N, K]``.
        batch_size: B, which ``sampling.batch_factor`` multiplies.
        seed: the run's seed.
        start_step, shuffle: see `passes`.
        sampling: how to draw the batches.
    """
    size = batch_size * sampling.batch_factor
    if not sampling.balanced:
        return passes(len(labels), size, (seed, ORDER), start_step, shuffle)
    return balanced(classes(labels), size, (seed, BALANCED), start_step)
