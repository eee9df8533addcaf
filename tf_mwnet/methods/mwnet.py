"""Meta-Weight-Net: the weight is a learned function of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
import tensorflow as tf

from tf_mwnet.methods.base import Method
from tf_mwnet.methods.normalise import batch_weights
from tf_mwnet.networks.weight_net import weight_net as build_weight_net
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MWNet(Method):
    """Meta-Weight-Net (Shu et al., NeurIPS 2019, Algorithm 1).

    ``weight_i = V(loss_i; theta)``, V a small network that ends in a sigmoid; theta takes one step
    of the meta optimizer along ``sum_i G_i d weight_i / d theta`` (eq. 4), G from `tf_mwnet.meta`.

    Args:
        hidden: sizes of V's hidden layers (ReLU).
        normalise: divide the weights by their batch sum (the authors' first code and supplement C,
            the default here), or use the mean of weight times loss (eq. 3 and their second code).
        seed: seed of V's initial values.
        weight_net: a Keras model ``[B, 1] -> [B, 1]`` in place of the one that is built from
            ``hidden`` and ``seed``.
    """

    learns = True
    needs_meta = True
    from_run = ("hidden", "normalise", "seed")

    def __init__(
        self,
        hidden: Sequence[int] = (100,),
        normalise: bool = True,
        seed: int = 0,
        weight_net: keras.Model | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden = tuple(int(h) for h in hidden)
        self.normalise = bool(normalise)
        self.seed = int(seed)
        self.weight_net = weight_net or build_weight_net(self.hidden, seed=self.seed)

    def weight_function(self, loss: tf.Tensor) -> tf.Tensor:
        # Its variables' type, not a policy's: a weight net stays float32 in mixed precision.
        dtype = self.weight_net.variables[0].dtype
        value = self.weight_net(tf.cast(loss, dtype)[:, None])
        value = value[:, 0] if value.shape[-1] == 1 else value
        return tf.cast(value, loss.dtype)

    def weigh(self, examples: Examples) -> tf.Tensor:
        """Unnormalised weights ``[B]``, 0 to 1."""
        return self.weight_function(examples.losses)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        return batch_weights(self.weigh(examples), self.normalise)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "hidden": list(self.hidden),
            "normalise": self.normalise,
            "seed": self.seed,
            "weight_net": keras.saving.serialize_keras_object(self.weight_net),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        config["weight_net"] = keras.saving.deserialize_keras_object(config["weight_net"])
        return super().from_config(config)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MNW(MWNet):
    """MW-Net on a noisy meta set (Ghosh and Lan, WACV 2021, "MNW-Net"): cross-entropy, as it is."""

    meta_labels = "noisy"


@keras.saving.register_keras_serializable(package="tf_mwnet")
class RMNW(MWNet):
    """Robust MW-Net (Ghosh and Lan, WACV 2021): a noisy meta set and a symmetric meta loss.

    With the mean absolute error ``2 (1 - u_y)`` the expected meta gradient under uniform noise of
    the meta labels is that of clean ones, scaled (Theorem 1). Weights are divided by their sum.

    Args:
        meta_loss: as in `Method`; "mae" by default.
        **kwargs: as for `MWNet`.
    """

    meta_labels = "noisy"

    def __init__(self, *args: Any, meta_loss="mae", **kwargs: Any) -> None:
        super().__init__(*args, meta_loss=meta_loss, **kwargs)
