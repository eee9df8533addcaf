"""Meta label correction: soft labels from the classifier's features and the given label."""

from __future__ import annotations

from typing import Any, Self

import keras
import tensorflow as tf

from tf_mwnet.methods.options import Option
from tf_mwnet.methods.targets import SoftTargets, given
from tf_mwnet.networks.init import Seeds
from tf_mwnet.types import Examples, Head


def label_net(num_features: int, num_classes: int, width: int = 128, seed: int = 0) -> keras.Model:
    """``(features [B, D], given label as [B, K]) -> soft label [B, K]``, rows that sum to 1.

    The label correction network of Zheng et al.: an embedding of the label beside the features, two
    tanh layers, a softmax; Glorot initial values, as in the authors' code.
    """
    seeds = Seeds(seed)
    dtype = keras.config.floatx()  # full precision also in mixed precision

    def dense(units, **kwargs):
        start = keras.initializers.GlorotUniform(seed=seeds())
        return keras.layers.Dense(units, kernel_initializer=start, dtype=dtype, **kwargs)

    features = keras.Input((num_features,), dtype=dtype)
    label = keras.Input((num_classes,), dtype=dtype)
    x = keras.layers.Concatenate(dtype=dtype)([features, dense(width, use_bias=False)(label)])
    x = dense(width, activation="tanh")(dense(width, activation="tanh")(x))
    return keras.Model([features, label], dense(num_classes, activation="softmax")(x), name="label_net")


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MLC(SoftTargets):
    """Meta Label Correction (Zheng et al., AAAI 2021): soft labels ``[B, K]``, learned.

    The objective is the cross-entropy with the soft label q that a small network makes of the
    classifier's features (constants) and the given label. The network takes steps along the meta
    gradient (Algorithm 1, with one look-ahead step). The real step uses the labels after that step.

    Args:
        width: of the label embedding and of both hidden layers; 128 in the paper.
        seed: of the network's initial values.
        label_net: a Keras model ``([B, D], [B, K]) -> [B, K]`` in place of the one that is built.
        **kwargs: as for `Method`.

    Raises:
        UserError: in `prepare`, the classifier has no last dense layer to take features from.
    """

    learns = True
    needs_meta = True
    meta_lr = 3e-4  # the authors' commands
    uses_features = True
    from_run = ("seed",)
    options = (Option("width", "of the label embedding and of both hidden layers", at_least=1),)

    def __init__(
        self, width: int = 128, seed: int = 0, label_net: keras.Model | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.width, self.seed = self.option("width", width), int(seed)
        self.label_net = label_net

    def prepare(self, head: Head) -> None:
        super().prepare(head)
        if self.label_net is None:
            self.label_net = label_net(head.num_features, head.num_classes, self.width, self.seed)

    def targets(self, examples: Examples) -> tf.Tensor:
        dtype = self.label_net.variables[0].dtype
        features = tf.cast(examples.features, dtype)
        soft = self.label_net([features, tf.cast(given(examples), dtype)])
        return tf.cast(soft, examples.losses.dtype)

    def get_config(self) -> dict[str, Any]:
        net = None if self.label_net is None else keras.saving.serialize_keras_object(self.label_net)
        return super().get_config() | {"seed": self.seed, "label_net": net}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        if config["label_net"] is not None:
            config["label_net"] = keras.saving.deserialize_keras_object(config["label_net"])
        return super().from_config(config)
