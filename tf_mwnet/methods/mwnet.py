"""Meta-Weight-Net and its variants: the weight is a learned function of the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
import tensorflow as tf

from tf_mwnet.methods.base import LOSS, Method
from tf_mwnet.methods.normalise import batch_weights
from tf_mwnet.methods.options import Option
from tf_mwnet.networks.weight_net import weight_net as build_weight_net
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MWNet(Method):
    """Meta-Weight-Net: a small network maps an example's loss to its weight.

        weight_i = v_i / sum_j v_j,    v_i = V(loss_i; theta),    V ending in a sigmoid

    In each step theta takes one step of the meta optimizer along ``sum_i G_i d weight_i / d theta``, G
    the meta gradient of `tf_mwnet.meta`; then the classifier takes its step with the new weights.

    Source: Shu et al., NeurIPS 2019, Algorithm 1, eq. 3 to 5.

    Departures from the authors' code: the meta set is never trained on (theirs is left in the training
    data), and the meta step is at the same parameters and in the same batch statistics as the real one,
    where their copy of the classifier has batch statistics of its own.

    Args:
        hidden: sizes of V's hidden layers (ReLU); one layer of 100 in the paper.
        normalise: divide the weights by their batch sum (the authors' first code and supplement C,
            the default here), or use the mean of weight times loss (eq. 3 and their second code).
        seed: of V's initial values.
        weight_net: a Keras model ``[B, 1] -> [B, 1]`` instead of the one built from ``hidden`` and
            ``seed``.
        **kwargs: as for `Method`.

    Examples:
        >>> model = tf_mwnet.ReweightedModel(classifier, tf_mwnet.methods.MWNet(hidden=(100,)))
        >>> model.compile(meta_optimizer=tf_mwnet.optimizers.Adam(1e-3))
        >>> model.fit(x, y, meta_data=(x_meta, y_meta))
        >>> model.method.weight_function(tf.constant([0.1, 5.0]))  # weights of these losses
    """

    learns = True
    needs_meta = True
    replaceable = True
    from_run: tuple[str, ...] = ("hidden", "normalise", "seed")
    options: tuple[Option, ...] = (LOSS,)

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
        # The type of its variables: a weight net stays float32 in mixed precision.
        dtype = self.weight_net.variables[0].dtype
        value = self.weight_net(tf.cast(loss, dtype)[:, None])
        value = value[:, 0] if value.shape[-1] == 1 else value
        return tf.cast(value, loss.dtype)

    def weigh(self, examples: Examples) -> tf.Tensor:
        """Computes unnormalised weights ``[B]``, 0 to 1."""
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
    """MNW-Net: `MWNet` with a noisy meta set, cross-entropy as meta loss.

    Source: Ghosh and Lan, WACV 2021.

    Departures: as for `RMNW`.

    Args:
        **kwargs: as for `MWNet`.

    Examples:
        >>> tf_mwnet.ReweightedModel(classifier, "mnw").fit(x, y)
    """

    meta_labels = "noisy"


@keras.saving.register_keras_serializable(package="tf_mwnet")
class RMNW(MWNet):
    """Robust MW-Net: `MWNet` with a noisy meta set and a symmetric meta loss.

    With the mean absolute error ``2 (1 - u_y)`` as meta loss, the expected meta gradient under uniform
    noise of the meta labels is that of clean labels times a constant (Theorem 1). The weights are
    divided by their sum. Without a meta set `ReweightedModel.fit` holds out a class-balanced sample of
    the training data.

    Source: Ghosh and Lan, WACV 2021.

    Departures: a meta set that is held out is balanced by given label; theirs has the same number of
    examples of each true class, which a run on data with known labels does with ``meta_balance``.

    Args:
        meta_loss: as for `Method`; "mae" by default.
        **kwargs: as for `MWNet`.

    Examples:
        >>> tf_mwnet.ReweightedModel(classifier, "rmnw").fit(x, y)
    """

    meta_labels = "noisy"

    def __init__(
        self,
        *args: Any,
        meta_loss: str | Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = "mae",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, meta_loss=meta_loss, **kwargs)
