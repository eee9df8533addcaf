"""A last layer of cosines."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_mwnet.errors import UserError


@keras.saving.register_keras_serializable(package="tf_mwnet")
class CosineDense(keras.layers.Dense):
    """Computes ``scale`` times the cosines between an input and the vector of each unit.

    Source: the last layer of LDAM's code (Cao et al., NeurIPS 2019).

    Args:
        units: K.
        scale: above 0.
        **kwargs: further arguments of `keras.layers.Dense`.

    Examples:
        >>> CosineDense(2, 30.0)(tf.constant([[3.0, 4.0]])).shape
        TensorShape([1, 2])
    """

    def __init__(self, units: int, scale: float = 30.0, **kwargs: Any) -> None:
        super().__init__(units, **({"use_bias": False} | kwargs))
        self.scale = float(scale)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        vectors = tf.math.l2_normalize(tf.convert_to_tensor(self.kernel), axis=0)
        inputs = tf.math.l2_normalize(inputs, axis=1)
        return self.scale * tf.linalg.matmul(inputs, tf.cast(vectors, inputs.dtype))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"scale": self.scale}


def with_cosine_head(classifier: keras.Model, scale: float, seed: int = 0) -> keras.Model:
    """Replaces the last dense layer of a classifier by one of cosines, with uniform initial values.

    Args:
        classifier: Sequential or functional, ends in a dense layer.
        scale: see `CosineDense`.
        seed: of the initial values.

    Raises:
        UserError: it ends in another layer.
    """
    last = classifier.layers[-1] if classifier.layers else None
    if not getattr(classifier, "inputs", None) or not isinstance(last, keras.layers.Dense):
        raise UserError(
            f"classifier '{classifier.name}' does not end in a dense layer; allowed: a Sequential or"
            " functional model that does, whose last layer can be replaced by one of cosines"
        )
    start = keras.initializers.RandomUniform(-1, 1, seed=seed)
    head = CosineDense(last.units, scale, kernel_initializer=start, name=last.name)
    inputs = classifier.inputs if len(classifier.inputs) > 1 else classifier.inputs[0]
    return keras.Model(inputs, head(last.input), name=classifier.name)
