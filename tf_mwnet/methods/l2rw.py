"""Learning to reweight examples: weights straight from the meta gradient."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_mwnet.methods.base import Method
from tf_mwnet.methods.normalise import batch_weights
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class L2RW(Method):
    """L2RW (Ren et al., ICML 2018, Algorithm 1): ``relu(-G)``, divided by its batch sum.

    G is taken at weights of zero (eq. 7), where the virtual parameters are the parameters, so that
    the virtual step is left out. Weights that are all zero stay zero (eq. 9). Nothing is learned
    beyond the step: ``optimizer`` is not used.
    """

    learns = True
    needs_meta = True
    meta_gradient = "current"

    def example_weights(self, examples: Examples) -> tf.Tensor:
        return tf.zeros_like(examples.losses)

    def learn(
        self,
        gradient: tf.Tensor | None,
        examples: Examples,
        optimizer: keras.optimizers.Optimizer | None,
    ) -> tf.Tensor:
        return batch_weights(tf.nn.relu(-gradient), normalise=True)
