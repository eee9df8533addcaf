"""Plain training."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_mwnet import replicas
from tf_mwnet.methods.base import Method
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class ERM(Method):
    """Empirical risk minimisation, plain training: every example has weight ``1 / B``.

    Source: "BaseModel" or "Baseline" in the papers.

    Departures: none.

    Args:
        **kwargs: as for `Method`.

    Examples:
        >>> tf_mwnet.ReweightedModel(classifier, "erm").fit(x, y)
    """

    def example_weights(self, examples: Examples) -> tf.Tensor:
        ones = tf.ones_like(examples.losses)
        return ones / replicas.batch_size(ones, ones.dtype)
