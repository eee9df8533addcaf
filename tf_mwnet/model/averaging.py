"""A moving average of a classifier."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_mwnet.methods.probe import outputs_with


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
        self.values = [self._like(v) for v in classifier.variables]
        self.built = True

    def _like(self, variable: keras.Variable) -> keras.Variable:
        own = self.add_weight(
            shape=variable.shape,
            dtype=variable.dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            name=variable.name,
        )
        own.assign(variable)
        return own

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
