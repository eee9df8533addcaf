"""Meta Label Correction: soft labels from the classifier's features and the given label."""

from __future__ import annotations

from typing import Any, Self

import keras
import tensorflow as tf

from tf_mwnet.methods.options import Option
from tf_mwnet.methods.targets import SoftTargets, given
from tf_mwnet.networks.init import Seeds
from tf_mwnet.types import Examples, Head


def label_net(num_features: int, num_classes: int, width: int = 128, seed: int = 0) -> keras.Model:
    """Builds the label correction network of Zheng et al.

    It maps features ``[B, D]`` and given labels as ``[B, K]`` to soft labels ``[B, K]``, whose rows sum
    to 1: an embedding of the label next to the features, two tanh layers, a softmax. As in the authors'
    code the initial values of the embedding are Glorot uniform, those of the layers Glorot normal.
    """
    seeds = Seeds(seed)
    dtype = keras.config.floatx()  # full precision also in mixed precision

    def dense(
        units: int, kind: type = keras.initializers.GlorotNormal, **kwargs: Any
    ) -> keras.layers.Dense:
        start = kind(seed=seeds())
        return keras.layers.Dense(units, kernel_initializer=start, dtype=dtype, **kwargs)

    features = keras.Input((num_features,), dtype=dtype)
    label = keras.Input((num_classes,), dtype=dtype)
    embedded = dense(width, keras.initializers.GlorotUniform, use_bias=False)(label)
    x = keras.layers.Concatenate(dtype=dtype)([features, embedded])
    x = dense(width, activation="tanh")(dense(width, activation="tanh")(x))
    return keras.Model([features, label], dense(num_classes, activation="softmax")(x), name="label_net")


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MLC(SoftTargets):
    """Meta Label Correction: a small network learns soft labels.

        losses_ik = -log p_ik,    weights_ik = q_ik / B,    q_i = label net(features of i, y_i)

    p is the softmax of the logits and y the given label. The features, the input of the classifier's
    last layer, are constants. The network takes steps along the meta gradient.

    Source: Zheng et al., AAAI 2021, Algorithm 1 with one look-ahead step.

    Departures from the authors' code, each to keep one exact step for all methods: no meta example is
    trained on, where they train on half of each clean batch; the virtual step is without momentum and
    L2, which theirs has; the real step uses the labels after the network's step, theirs those before.
    Their optimizer of the network is ``--meta_optimizer=amsgrad``.

    Args:
        width: size of the label embedding and of both hidden layers, at least 1; 128 in the paper.
        seed: seed of the initial values.
        label_net: a Keras model ``([B, D], [B, K]) -> [B, K]`` instead of the one that is built.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``width`` is out of range; in `prepare`, the classifier does not end in a dense
            layer, so has no features.

    Examples:
        >>> model = tf_mwnet.ReweightedModel(classifier, "mlc --width=64")
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
        features, classes = head.num_features, head.num_classes
        if self.label_net is None and features is not None and classes is not None:
            self.label_net = label_net(features, classes, self.width, self.seed)

    def targets(self, examples: Examples) -> tf.Tensor:
        net = self.label_net
        assert net is not None  # built in `prepare`, which refuses a classifier without features
        dtype = net.variables[0].dtype
        features = tf.cast(examples.features, dtype)
        soft = net([features, tf.cast(given(examples), dtype)])
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
