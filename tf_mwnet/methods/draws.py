"""Random draws and quantiles that are the same on one replica and on several."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_mwnet import replicas


def draws(num_examples: int, seed: int, step: tf.Tensor | int, dtype: tf.DType) -> tf.Tensor:
    """Draws a uniform number in (0, 1) for each training example, ``[N]``, from seed and step.

    It draws for all rows, so that several replicas get the same numbers as one.
    """
    pair = tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64)])
    # Only bits are the same with and without XLA; 23 of them fill a float's mantissa.
    bits = tf.random.stateless_uniform(
        [num_examples], pair, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    return (tf.cast(tf.bitwise.right_shift(bits, 9), dtype) + 0.5) / 2**23


def are_smallest(values: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Marks the ``count`` smallest values of the global batch; of equal values the first ones.

    Args:
        values: this replica's, ``[b]``, or ``[b, n]`` for n columns that are ranked separately.
        count: int32 scalar, 0 to B.

    Returns:
        bool, in the shape of ``values``; over all replicas exactly ``count`` in each column.
    """
    everywhere = replicas.gather(values)
    order = tf.argsort(everywhere, axis=0, stable=True)
    rank = tf.argsort(order, axis=0)
    return tf.gather(rank, replicas.positions(values)) < count


def follow_quantile(
    average: keras.Variable, values: tf.Tensor, share: tf.Tensor | float, decay: float
) -> None:
    """Updates a moving average of the batches' quantiles.

    Args:
        average: scalar, holds the result; below 0 before the first batch.
        values: this replica's, ``[b]``, not negative.
        share: share of the global batch at or below the quantile, 0 to 1.
        decay: of the average, 0 to 1.
    """
    values = tf.sort(tf.cast(replicas.gather(values), average.dtype))
    size = tf.cast(tf.shape(values)[0], average.dtype)
    place = tf.cast(tf.math.ceil(share * size), tf.int32)
    quantile = values[tf.maximum(place, 1) - 1]
    old = tf.convert_to_tensor(average)
    average.assign(tf.where(old < 0, quantile, decay * old + (1 - decay) * quantile))
