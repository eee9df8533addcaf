"""CMW-Net: a weight function for each group of classes of similar size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_mwnet.methods.base import LOSS
from tf_mwnet.methods.groups import by_group, scale_groups
from tf_mwnet.methods.mwnet import MWNet
from tf_mwnet.methods.options import Option
from tf_mwnet.networks.weight_net import weight_net as build_weight_net
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class CMWNet(MWNet):
    """Class-aware Meta-Weight-Net: ``weight_i = V(loss_i)[group of y_i]`` (Shu et al., TPAMI 2023).

    Classes are clustered by the number of their training examples (as labelled) into scale groups; the
    weight net has one output per group on a shared hidden layer. It can be used on other data, whose
    classes are then clustered again. The meta set is clean, as in `MWNet`; the paper's soft-label
    variant and its meta set made by mixup are not part of this class.

    Args:
        class_sizes: training examples of each class, ``[K]``.
        groups: G; 3 in the paper. With 1 it is `MWNet`.
        **kwargs: as for `MWNet`; ``weight_net`` maps ``[B, 1] -> [B, G]``.

    Raises:
        UserError: more groups than distinct class sizes.
    """

    from_run = (*MWNet.from_run, "class_sizes")
    options = (Option("groups", "groups of classes of similar size", at_least=1), LOSS)

    def __init__(
        self,
        class_sizes: Sequence[int],
        groups: int = 3,
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

    def weigh(self, examples: Examples) -> tf.Tensor:
        if self.group_of_class is None:
            return super().weigh(examples)
        return by_group(self.weight_function(examples.losses), examples, self.group_of_class)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"class_sizes": list(self.class_sizes)}
