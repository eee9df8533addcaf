"""Where example weights are normalised: the weights of a batch from unnormalised values."""

from __future__ import annotations

import tensorflow as tf

from tf_mwnet import replicas


def batch_weights(values: tf.Tensor, normalise: bool, detach: bool = False) -> tf.Tensor:
    """Converts unnormalised weights to the weights of a batch.

    ``normalise=True``: ``v_i / (sum_j v_j + delta)`` with delta = 1 if the sum is 0, else 0
    (MW-Net supplement, eq. 40; L2RW eq. 9), so that all-zero weights stay zero.
    ``normalise=False``: ``v_i / B``, the mean of weight times loss (MW-Net eq. 3).

    Args:
        values: ``[B]`` or ``[B, K]``, not negative; this replica's share.
        normalise: see above. Sums and B are those of the global batch.
        detach: take the sum as a constant when the weights are differentiated.
    """
    if not normalise:
        return values / replicas.batch_size(values, values.dtype)
    total = replicas.all_sum(tf.reduce_sum(values))
    total = tf.stop_gradient(total) if detach else total
    return values / (total + tf.cast(tf.equal(total, 0), values.dtype))
