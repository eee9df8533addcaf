"""Learning to Reweight Examples: weights directly from the meta gradient."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_mwnet.methods.base import LOSS, Method
from tf_mwnet.methods.normalise import batch_weights
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class L2RW(Method):
    """L2RW: the meta gradient of the batch gives the weights of the same batch.

        weight_i = max(-G_i, 0) / sum_j max(-G_j, 0)

    G is the meta gradient at weights of zero, where the virtual parameters equal the parameters, so that
    no virtual step is needed. Weights that are all zero stay zero. Nothing is kept from one step to the
    next, and the meta optimizer is unused.

    Source: Ren et al., ICML 2018, Algorithm 1.

    Departures: none in the weights; the meta examples are never trained on, as in the paper.

    Args:
        **kwargs: as for `Method`.

    Examples:
        >>> tf_mwnet.ReweightedModel(classifier, "l2rw").fit(x, y, meta_data=(x_meta, y_meta))
    """

    learns = True
    needs_meta = True
    meta_gradient = "current"
    options = (LOSS,)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        return tf.zeros_like(examples.losses)

    def learn(
        self,
        gradient: tf.Tensor | None,
        examples: Examples,
        optimizer: keras.optimizers.Optimizer | None,
    ) -> tf.Tensor:
        assert gradient is not None
        return batch_weights(tf.nn.relu(-gradient), normalise=True)
