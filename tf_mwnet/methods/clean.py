"""Methods that train on the meta set itself."""

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
    """Plain training on the meta set alone, for as many steps as on the training set.

        weight_i = 1 / B

    Source: L2RW, "Clean only".

    Departures: as many steps as plain training; L2RW trains 2,000.

    Args:
        **kwargs: as for `Method`.

    Examples:
        >>> result = tf_mwnet.run(tf_mwnet.Experiment(method="mwnet", compare="meta_only"))
    """

    needs_meta = True
    trains_on = "meta"


@keras.saving.register_keras_serializable(package="tf_mwnet")
class GLC(Forward):
    """Gold loss correction: forward correction with a transition matrix estimated on the meta set.

        loss_i = -log p_y                    for a trusted example
        loss_i = -log sum_k p_k T[k, y]      for an untrusted example
        weight_i = 1 / B

    A run trains plainly on the untrusted examples for half of its epochs, estimates T on the meta set
    with `mean_prediction`, and starts again on both sets for the other half.

    Source: Hendrycks et al., NeurIPS 2018, Algorithm 1.

    Departures: both stages have half of the epochs, as GDW's comparison has it; the authors train twice
    in full.

    Args:
        transition: T, float ``[K, K]``, row = true class, rows sum to 1. A run estimates it.
        num_untrusted: number of untrusted examples, at least 0; rows from this number on are trusted.
            A run fills it in.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``transition`` is not a transition matrix, or ``num_untrusted`` is negative; in
            `prepare`, ``transition`` has another number of classes than the classifier.

    Examples:
        >>> result = tf_mwnet.run(tf_mwnet.Experiment(method="glc", compare="erm"))
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
