"""Moving averages: of a classifier, and of the meta loss's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_mwnet.methods.probe import outputs_with


def _zeros(layer: keras.layers.Layer, shape: tuple[int, ...], dtype: str, name: str) -> keras.Variable:
    """Adds a variable that all replicas change alike, in their step."""
    return layer.add_weight(
        shape=shape,
        dtype=dtype,
        initializer="zeros",
        trainable=False,
        autocast=False,
        aggregation="only_first_replica",
        name=name,
    )


class Averages(keras.layers.Layer):
    """The moving averages of a classifier's variables: ``a <- m a + (1 - m) v`` after each step.

    All variables of floating point are averaged, the statistics of batch norm too; others are copied.
    The averages start at the first values.

    Args:
        classifier: built.
        momentum: m, 0 to below 1.
    """

    def __init__(self, classifier: keras.Model, momentum: float) -> None:
        super().__init__(name="averages", dtype="float32")
        self.momentum = momentum
        self.values = [_zeros(self, v.shape, v.dtype, v.name) for v in classifier.variables]
        for average, variable in zip(self.values, classifier.variables, strict=True):
            average.assign(variable)
        self.built = True

    def update(self, classifier: keras.Model) -> None:
        """Takes in the classifier's values."""
        for average, variable in zip(self.values, classifier.variables, strict=True):
            now = tf.convert_to_tensor(variable)
            if now.dtype.is_floating:
                now = self.momentum * tf.convert_to_tensor(average) + (1 - self.momentum) * now
            average.assign(now)

    def outputs(self, classifier: keras.Model, x: Any) -> tf.Tensor:
        """Applies the average, in inference mode, to inputs of the classifier."""
        values = [tf.convert_to_tensor(average) for average in self.values]
        pairs = list(zip(classifier.variables, values, strict=True))
        return outputs_with(classifier, pairs, x, training=False)

    def copy_to(self, classifier: keras.Model) -> None:
        """Gives the averages to a classifier of the same structure."""
        for variable, average in zip(classifier.variables, self.values, strict=True):
            variable.assign(average.numpy())


class GradientAverage(keras.layers.Layer):
    """The moving average of the meta loss's gradient at the virtual parameters.

        u <- m u + (1 - m) grad L(w_hat),    G_i = -a < grad l_i(w), u / (1 - m^t) >

    in the t-th step that learns. A meta batch is small and its gradient noisy; the average over about
    1 / (1 - m) of them takes the place of a larger batch, at no cost. It is behind by as many steps.
    Momentum methods for bilevel problems average the whole meta gradient (SUSTAIN, Khanduri et al.,
    NeurIPS 2021); here it is the factor that does not depend on the training batch.

    Args:
        classifier: built.
        momentum: m, 0 to below 1.
    """

    def __init__(self, classifier: keras.Model, momentum: float) -> None:
        super().__init__(name="meta_average", dtype="float32")
        self.momentum = momentum
        self.values = [_zeros(self, v.shape, v.dtype, v.name) for v in classifier.trainable_variables]
        # 1 - m^t, from the same recursion.
        self.share = _zeros(self, (), "float32", "share")
        self._places = {id(v): i for i, v in enumerate(classifier.trainable_variables)}
        self.built = True

    def update(
        self, variables: Sequence[keras.Variable], gradients: Sequence[tf.Tensor], scale: tf.Tensor
    ) -> list[tf.Tensor]:
        """Takes in gradients, and returns the averages in their place.

        Args:
            variables: of the classifier, those that the virtual step moves.
            gradients: ``scale`` times the gradient of each, the same on all replicas.
            scale: of the loss. Where half precision has overflowed, nothing is taken in and the
                gradients are returned as they are, so that the optimizer skips the step.
        """
        here = [g / tf.cast(scale, g.dtype) for g in gradients]
        fits = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in here])
        keep = self.momentum * tf.convert_to_tensor(self.share) + 1 - self.momentum
        share = tf.where(fits, keep, tf.convert_to_tensor(self.share))
        self.share.assign(share)
        out = []
        for variable, gradient, given in zip(variables, here, gradients, strict=True):
            average = self.values[self._places[id(variable)]]
            before = tf.convert_to_tensor(average)
            now = tf.where(fits, self.momentum * before + (1 - self.momentum) * gradient, before)
            average.assign(now)
            factor = tf.cast(scale, given.dtype) / tf.cast(share, given.dtype)
            out.append(tf.where(fits, factor * now, given))
        return out
