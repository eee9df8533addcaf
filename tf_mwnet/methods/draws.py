"""Random draws and quantiles that are the same on one replica and on several."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_mwnet import replicas


def draws(num_examples: int, seed: int, step: tf.Tensor, dtype) -> tf.Tensor:
    """A uniform draw in (0, 1) for each training example, ``[N]``, a function of seed and step.

    Drawn for all rows, so that several replicas draw what one draws.
    """
    pair = tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64)])
    # Bits, since only these are the same with and without XLA; 23 of them fill a float's mantissa.
    bits = tf.random.stateless_uniform(
        [num_examples], pair, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    return (tf.cast(tf.bitwise.right_shift(bits, 9), dtype) + 0.5) / 2**23


def follow_quantile(average: keras.Variable, values: tf.Tensor, share, decay: float) -> None:
    """Moves a moving average of the batches' quantiles; below 0 it has not seen a batch yet.

    Args:
        average: scalar, holds the result.
        values: this replica's, ``[b]``, not negative.
        share: of the global batch that lies at or below the quantile, 0 to 1.
        decay: of the average.
    """
    values = tf.sort(tf.cast(replicas.gather(values), average.dtype))
    size = tf.cast(tf.shape(values)[0], average.dtype)
    place = tf.cast(tf.math.ceil(share * size), tf.int32)
    quantile = values[tf.maximum(place, 1) - 1]
    old = tf.convert_to_tensor(average)
    average.assign(tf.where(old < 0, quantile, decay * old + (1 - decay) * quantile))
