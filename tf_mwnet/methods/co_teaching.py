"""Co-teaching: two networks that select each other's examples."""

from __future__ import annotations

from typing import Any, Self

import keras
import tensorflow as tf

from tf_mwnet import replicas
from tf_mwnet.methods.base import Method
from tf_mwnet.methods.draws import are_smallest
from tf_mwnet.methods.options import Option
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class CoTeaching(Method):
    """Co-teaching: two networks select small-loss examples for each other (Han et al., NeurIPS 2018).

    Both networks see each batch; each is trained, with equal weights, on the examples of smallest loss
    under the other (Algorithm 1). The share that is kept in epoch t (from 0) is
    ``1 - min(t / warm_up * forget_rate, forget_rate)``. The classifier is the first network; the second
    belongs to the method.

    Args:
        peer: the second network, a built Keras model like the classifier with other initial values.
        forget_rate: tau, 0 to below 1; the noise rate in the paper.
        warm_up: T_k, epochs until that rate is reached, above 0; 10 in the paper.
    """

    from_run = ("peer", "forget_rate")
    options = (
        Option("forget_rate", "share left out; by default the noise rate put in", at_least=0, below=1),
        Option("warm_up", "epochs until that share is reached", at_least=1),
    )

    def __init__(
        self, peer: keras.Model, forget_rate: float = 0.2, warm_up: int = 10, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.peer = peer
        self.forget_rate = self.option("forget_rate", forget_rate)
        self.warm_up = self.option("warm_up", warm_up)
        self.kept = self.add_state((), keras.config.floatx(), "kept")
        self.kept.assign(1)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.kept.assign(1 - min(epoch / self.warm_up * self.forget_rate, self.forget_rate))

    def example_weights(self, examples: Examples) -> tf.Tensor:
        values = examples.losses  # [B, 2]
        size = replicas.batch_size(values, self.kept.dtype)
        count = tf.maximum(tf.cast(tf.convert_to_tensor(self.kept) * size, tf.int32), 1)
        small = tf.cast(are_smallest(values, count), values.dtype)
        return tf.reverse(small, axis=[1]) / tf.cast(count, values.dtype)

    def label_weight(self, weights: tf.Tensor, examples: Examples) -> tf.Tensor:
        """Returns the weights of the first network."""
        return weights[:, 0]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"peer": keras.saving.serialize_keras_object(self.peer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        config["peer"] = keras.saving.deserialize_keras_object(config["peer"])
        return super().from_config(config)
