"""Methods that train on the trusted examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_mwnet import losses
from tf_mwnet.errors import UserError, check_range
from tf_mwnet.methods.erm import ERM
from tf_mwnet.methods.transition import Forward, mean_prediction
from tf_mwnet.types import Outputs


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MetaOnly(ERM):
    """Plain training on the meta set alone, for the same number of steps (L2RW's "Clean only")."""

    needs_meta = True
    trains_on = "meta"


@keras.saving.register_keras_serializable(package="tf_mwnet")
class GLC(Forward):
    """Gold loss correction (Hendrycks et al., NeurIPS 2018, Algorithm 1).

    A run trains plainly on the untrusted examples for half of its epochs, estimates T on the meta set
    with `mean_prediction`, and starts again on both sets for the other half: forward-corrected loss
    for the untrusted examples, cross-entropy for the trusted; all have weight 1/B.

    Args:
        transition: T, ``[K, K]``, row = true class.
        num_untrusted: rows from this on are trusted examples.
    """

    needs_meta = True
    trains_on = "both"
    from_run = ("num_untrusted",)

    def __init__(self, transition: Sequence[Sequence[float]], num_untrusted: int, **kwargs: Any) -> None:
        super().__init__(transition, **kwargs)
        check_range("num_untrusted", num_untrusted, 0)
        self.num_untrusted = int(num_untrusted)

    @classmethod
    def estimate(cls, outputs: Outputs) -> dict[str, Any]:
        if outputs.meta is None or outputs.meta_labels is None:
            raise UserError("method glc has no meta set; allowed: with one")
        return {"transition": mean_prediction(outputs.meta, outputs.meta_labels)}

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        corrected = super().example_losses(logits, labels)
        if index is None:
            return corrected
        trusted = index >= self.num_untrusted
        return tf.where(trusted, losses.cross_entropy(logits, labels), corrected)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_untrusted": self.num_untrusted}
