"""Two networks that select training examples for each other."""

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
    """Co-teaching: each of two networks is trained on the examples with small loss under the other.

        weight_ij = 1 / n  where loss_i under the other network is among the n smallest, else 0
        n = max(floor(R(t) B), 1),    R(t) = 1 - min(t / warm_up * forget_rate, forget_rate)

    i is an example of the batch, j one of the two networks, t the epoch, counted from 0. The first
    network is the classifier, the second (``peer``) belongs to the method. Losses and weights are
    ``[B, 2]``.

    Source: Han et al., NeurIPS 2018, Algorithm 1.

    Departures from the authors' code: the share rises as in the paper, to its largest in epoch T_k,
    where theirs has it one epoch earlier; at least one example is kept; the optimizer is the run's,
    theirs Adam with a linear decay.

    Args:
        peer: the second network, a built Keras model like the classifier with other initial values. A
            run builds it.
        forget_rate: tau, largest share of a batch that is left out, 0 to below 1; the noise rate in the
            paper. A run fills it in.
        warm_up: T_k, epochs until that share is reached, at least 1; 10 in the paper.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``forget_rate`` or ``warm_up`` is out of range.

    Examples:
        >>> classifier, peer = make_classifier(seed=0), make_classifier(seed=1)
        >>> method = tf_mwnet.methods.CoTeaching(peer, forget_rate=0.4)
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
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
        """Returns the weights for the first network, the classifier, ``[B]``."""
        return weights[:, 0]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"peer": keras.saving.serialize_keras_object(self.peer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        config["peer"] = keras.saving.deserialize_keras_object(config["peer"])
        return super().from_config(config)
