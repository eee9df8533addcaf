"""Groups of classes of similar size, for a weight function with an output per group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_mwnet import losses
from tf_mwnet.errors import UserError, check_range
from tf_mwnet.types import Examples


def scale_groups(class_sizes: Sequence[int], groups: int) -> np.ndarray:
    """Clusters classes by size with k-means; group 0 has the smallest classes.

    Args:
        class_sizes: training examples of each class, ``[K]``.
        groups: G, at least 1.

    Returns:
        int64 ``[K]``, the group of each class, 0 to G-1.

    Raises:
        UserError: G is below 1, or above the number of distinct sizes.
    """
    check_range("groups", groups, 1)
    sizes = np.asarray(class_sizes, np.float64)
    distinct = len(np.unique(sizes))
    if groups > distinct:
        raise UserError(
            f"groups is {groups}, but the {len(sizes)} classes have {distinct} distinct size"
            f"{'s' if distinct > 1 else ''}; allowed: 1 to {distinct}"
        )
    from sklearn.cluster import KMeans

    clusters = KMeans(groups, n_init=10, random_state=0).fit(sizes[:, None])
    rank = np.argsort(np.argsort(clusters.cluster_centers_[:, 0]))
    return rank[clusters.labels_].astype(np.int64)


def by_group(values: tf.Tensor, examples: Examples, group_of_class: np.ndarray) -> tf.Tensor:
    """Picks the value ``[B]`` of each example's group from ``[B, G]``."""
    label = tf.argmax(losses.one_hot(examples.labels, examples.logits), axis=1)
    return tf.gather(values, tf.gather(tf.constant(group_of_class), label), batch_dims=1)
