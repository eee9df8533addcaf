"""CMW-Net: a weight function for each group of classes of similar size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_mwnet.methods.base import LOSS
from tf_mwnet.methods.groups import by_group, scale_groups
from tf_mwnet.methods.mwnet import MWNet
from tf_mwnet.methods.normalise import batch_weights
from tf_mwnet.methods.options import Option
from tf_mwnet.networks.weight_net import weight_net as build_weight_net
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class CMWNet(MWNet):
    """Class-aware Meta-Weight-Net: a weight function for each group of classes of similar size.

        weight_i = v_i / sum_j v_j,    v_i = V(loss_i)[group of y_i]

    Classes are clustered by the number of their training examples (as labelled) into scale groups; the
    weight net has one output per group on a shared hidden layer. It can be used on other data, whose
    classes are then clustered again. The sum of the weights is a constant in the meta gradient.

    Source: Shu et al., TPAMI 2023; the authors' long-tail code.

    Departures: the meta set is clean, as in `MWNet`; the soft labels of their variant for noise and its
    meta set made by mixup are not part of this class. The weight function learns from the start, where
    their long-tail code trains plainly for 160 of 200 epochs. Their optimizer of the weight net is
    ``--meta_optimizer=amsgrad --meta_lr=1e-4 --meta_l2=1e-5``; the default is that of the other methods,
    since in short runs a function with so small a rate stays nearly as it was.

    Args:
        class_sizes: training examples of each class, int ``[K]``. A run fills it in.
        groups: G, at least 1; 3 in the paper.
        detach: whether the sum of the weights is a constant in the meta gradient, as in the authors'
            code. Without, and with one group, the method is `MWNet`.
        hidden: sizes of the hidden layers (ReLU).
        seed: seed of the initial values.
        weight_net: a Keras model ``[B, 1] -> [B, G]`` instead of the one built from ``hidden``.
        **kwargs: as for `MWNet`.

    Raises:
        UserError: more groups than distinct class sizes.

    Examples:
        >>> method = tf_mwnet.methods.CMWNet(class_sizes=(5000, 700, 90), groups=3)
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
    """

    from_run = (*MWNet.from_run, "class_sizes")
    options = (
        Option("groups", "groups of classes of similar size", at_least=1),
        Option("detach", "take the sum of the weights as a constant in the meta gradient"),
        LOSS,
    )

    def __init__(
        self,
        class_sizes: Sequence[int],
        groups: int = 3,
        detach: bool = True,
        hidden: Sequence[int] = (100,),
        seed: int = 0,
        weight_net: keras.Model | None = None,
        **kwargs: Any,
    ) -> None:
        groups = self.option("groups", groups)
        group_of_class = scale_groups(class_sizes, groups) if groups > 1 else None
        weight_net = weight_net or build_weight_net(hidden, seed=seed, outputs=groups)
        super().__init__(hidden=hidden, seed=seed, weight_net=weight_net, **kwargs)
        self.class_sizes, self.groups = tuple(int(n) for n in class_sizes), groups
        self.group_of_class = group_of_class
        self.detach = self.option("detach", detach)

    def weigh(self, examples: Examples) -> tf.Tensor:
        if self.group_of_class is None:
            return super().weigh(examples)
        return by_group(self.weight_function(examples.losses), examples, self.group_of_class)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        return batch_weights(self.weigh(examples), self.normalise, self.detach)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"class_sizes": list(self.class_sizes)}
