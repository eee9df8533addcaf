"""What each training example was like when it was last trained on: one row per example."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.types import Examples

COLUMNS = ("loss", "weight", "probability", "predicted")


def create(num_examples: int) -> tf.Variable:
    """A float32 variable ``[N + 1, 4]`` of NaN; the last row is for examples of unknown index."""
    return tf.Variable(
        tf.fill([num_examples + 1, len(COLUMNS)], float("nan")),
        trainable=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        name="record",
    )


def update(variable: tf.Variable, examples: Examples, weights: tf.Tensor) -> None:
    """Writes the rows of a batch, from all replicas.

    Args:
        variable: see `create`.
        examples: the batch.
        weights: ``[B]``, see `Method.label_weight`.

    The columns: cross-entropy of the given label in nats; weight times the size of the global batch
    (1 is plain training); probability of the given label; predicted class.
    """
    logits = losses.full_precision(examples.logits)
    given = losses.cross_entropy(logits, examples.labels)
    weight = weights * replicas.batch_size(weights, weights.dtype)
    columns = [given, weight, tf.exp(-given), tf.argmax(logits, axis=1)]
    # In float64, which holds every index exactly, since each gathering is a round among replicas.
    rows = tf.stack([tf.cast(c, tf.float64) for c in (*columns, examples.index)], axis=1)
    rows = replicas.gather(rows)
    index = tf.cast(rows[:, -1], tf.int64)
    index = tf.where(index < 0, tf.cast(variable.shape[0] - 1, tf.int64), index)
    variable.scatter_update(tf.IndexedSlices(tf.cast(rows[:, :-1], tf.float32), index))


def columns(variable: tf.Variable) -> dict[str, np.ndarray]:
    """Column name -> float32 ``[N]``; NaN for examples that have not been seen."""
    return dict(zip(COLUMNS, variable.numpy()[:-1].T, strict=True))
