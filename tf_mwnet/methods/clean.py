"""Methods that train on the trusted examples themselves."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.errors import check_range
from tf_mwnet.methods.erm import ERM
from tf_mwnet.methods.transition import Forward, mean_prediction
from tf_mwnet.types import Examples, Outputs


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MetaOnly(ERM):
    """Plain training on the meta set alone (L2RW's "Clean only"), for as many steps."""

    needs_meta = True
    trains_on = "meta"


@keras.saving.register_keras_serializable(package="tf_mwnet")
class GLC(Forward):
    """Gold loss correction (Hendrycks et al., NeurIPS 2018, Algorithm 1).

    A run trains plainly on the untrusted examples for half of its epochs, estimates T on the meta set
    with `mean_prediction`, and starts again on both sets for the other half: forward-corrected loss
    for the untrusted examples, cross-entropy for the trusted. Losses and weights are ``[B, 2]``, in
    this order; an example has weight 1/B in one column.

    Args:
        transition: T, ``[K, K]``, row = true class.
        num_untrusted: rows from this on are trusted examples.
    """

    needs_meta = True
    trains_on = "both"
    options = ("num_untrusted",)

    def __init__(self, transition: Sequence[Sequence[float]], num_untrusted: int, **kwargs):
        super().__init__(transition, **kwargs)
        check_range("num_untrusted", num_untrusted, 0)
        self.num_untrusted = int(num_untrusted)

    @classmethod
    def estimate(cls, outputs: Outputs) -> dict:
        return {"transition": mean_prediction(outputs.meta, outputs.meta_labels)}

    def example_losses(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        corrected = super().example_losses(logits, labels)
        return tf.stack([corrected, losses.cross_entropy(logits, labels)], axis=1)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        trusted = examples.index >= self.num_untrusted
        values = tf.stack([tf.logical_not(trusted), trusted], axis=1)
        values = tf.cast(values, examples.losses.dtype)
        return values / replicas.batch_size(values, values.dtype)

    def label_weight(self, weights: tf.Tensor, examples: Examples) -> tf.Tensor:
        return tf.reduce_sum(weights, axis=1)

    def get_config(self):
        return super().get_config() | {"num_untrusted": self.num_untrusted}
