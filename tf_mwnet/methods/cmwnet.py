"""CMW-Net: a weight function for each group of classes of like size."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses
from tf_mwnet.errors import UserError, check_range
from tf_mwnet.methods.mwnet import MWNet
from tf_mwnet.networks.weight_net import weight_net as build_weight_net
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

    found = KMeans(groups, n_init=10, random_state=0).fit(sizes[:, None])
    rank = np.argsort(np.argsort(found.cluster_centers_[:, 0]))
    return rank[found.labels_].astype(np.int64)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class CMWNet(MWNet):
    """Class-aware Meta-Weight-Net (Shu et al., TPAMI 2023): ``weight_i = V(loss_i)[group of y_i]``.

    Classes are clustered by the number of their training examples (as labelled) into scale groups;
    the weight net has one output per group on a shared hidden layer. It can be used on other data,
    whose classes are clustered anew. The meta set is a clean one, as in `MWNet`; the paper's soft
    label variant and its meta set made by mixup are not part of this class.

    Args:
        class_sizes: training examples of each class, ``[K]``.
        groups: G; 3 in the paper.
        **kwargs: as for `MWNet`; ``weight_net`` maps ``[B, 1] -> [B, G]``.

    Raises:
        UserError: more groups than distinct class sizes.
    """

    options = ("hidden", "normalise", "seed", "class_sizes", "groups")

    def __init__(
        self,
        class_sizes: Sequence[int],
        groups: int = 3,
        hidden: Sequence[int] = (100,),
        seed: int = 0,
        weight_net: keras.Model | None = None,
        **kwargs,
    ):
        group_of_class = scale_groups(class_sizes, groups)
        weight_net = weight_net or build_weight_net(hidden, seed=seed, outputs=groups)
        super().__init__(hidden=hidden, seed=seed, weight_net=weight_net, **kwargs)
        self.class_sizes, self.groups = tuple(int(n) for n in class_sizes), int(groups)
        self.group_of_class = group_of_class

    def weigh(self, examples: Examples) -> tf.Tensor:
        return by_group(self.weight_function(examples.losses), examples, self.group_of_class)

    def get_config(self):
        return super().get_config() | {"class_sizes": list(self.class_sizes), "groups": self.groups}


def by_group(values: tf.Tensor, examples: Examples, group_of_class: np.ndarray) -> tf.Tensor:
    """Picks the value ``[B]`` of each example's group from ``[B, G]``."""
    label = tf.argmax(losses.one_hot(examples.labels, examples.logits), axis=1)
    return tf.gather(values, tf.gather(tf.constant(group_of_class), label), batch_dims=1)
