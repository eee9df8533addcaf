"""A record of each training example when it was last trained on: one row per example."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.types import Examples

COLUMNS = ("loss", "weight", "probability", "predicted")


def create(num_examples: int, num_classes: int = 0) -> tf.Variable:
    """Creates a float32 variable ``[N + 1, 4 + K]`` of NaN; the last row takes unknown indexes.

    Args:
        num_examples: N.
        num_classes: K for a method with class-level weights, else 0.
    """
    return tf.Variable(
        tf.fill([num_examples + 1, len(COLUMNS) + num_classes], float("nan")),
        trainable=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        name="record",
    )


def update(
    variable: tf.Variable,
    examples: Examples,
    weights: tf.Tensor,
    changes: tf.Tensor | None = None,
) -> None:
    """Writes the rows of a batch from all replicas.

    Args:
        variable: see `create`.
        examples: the batch.
        weights: ``[B]``, see `Method.label_weight`.
        changes: ``[B, K]``, by how much the step has changed class-level weights; None without them.

    The columns are cross-entropy of the given label in nats; weight times the size of the global
    batch (1 is plain training); probability of the given label; predicted class.
    """
    logits = losses.full_precision(examples.logits)
    given = losses.cross_entropy(logits, examples.labels)
    size = replicas.batch_size(weights, weights.dtype)
    columns = [given, weights * size, tf.exp(-given), tf.argmax(logits, axis=1)]
    if changes is not None:
        columns += tf.unstack(changes * size, axis=1)
    # One gathering, since each is a round among replicas; float64 holds every index exactly.
    rows = tf.stack([tf.cast(c, tf.float64) for c in (*columns, examples.index)], axis=1)
    rows = replicas.gather(rows)
    index = tf.cast(rows[:, -1], tf.int64)
    index = tf.where(index < 0, tf.cast(variable.shape[0] - 1, tf.int64), index)
    variable.scatter_update(tf.IndexedSlices(tf.cast(rows[:, :-1], tf.float32), index))


def columns(variable: tf.Variable) -> dict[str, np.ndarray]:
    """Returns column name -> float32 ``[N]``; NaN for examples that have not been seen."""
    return dict(zip(COLUMNS, variable.numpy()[:-1, : len(COLUMNS)].T, strict=True))


def class_changes(variable: tf.Variable) -> np.ndarray | None:
    """Returns the last change of class-level weights, times the batch size, ``[N, K]``; None without."""
    changes = variable.numpy()[:-1, len(COLUMNS) :]
    return changes if changes.shape[1] else None
