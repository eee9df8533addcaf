"""Logit adjustment after a training, without any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet.data.streams import evaluation_stream
from tf_mwnet.methods.long_tail import log_shares
from tf_mwnet.model import classifier_head
from tf_mwnet.types import Splits


@keras.saving.register_keras_serializable(package="tf_mwnet")
class LogitShift(keras.layers.Layer):
    """Adds a number to the logit of each class.

    Args:
        shift: float ``[K]``.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, shift: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shift = [float(v) for v in shift]

    def call(self, logits: tf.Tensor) -> tf.Tensor:
        return logits + tf.constant(self.shift, logits.dtype)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"shift": self.shift}


def adjusted(classifier: keras.Model, splits: Splits, tau: float) -> keras.Model:
    """Returns a classifier whose logits are less ``tau`` times the log of each class's share.

    It shares its layers with the first. Source: Menon et al., ICLR 2021, eq. 9.

    Args:
        classifier: to logits.
        splits: whose training labels, as given, are counted.
        tau: factor.
    """
    sizes = np.bincount(splits.train.y, minlength=splits.spec.num_classes)
    inputs = keras.Input(classifier.input_shape[1:], dtype=classifier.inputs[0].dtype)
    logits = LogitShift((-tau * log_shares(sizes.tolist())).tolist())(classifier(inputs))
    return keras.Model(inputs, logits, name=f"adjusted_{classifier.name}")


def accuracy(classifier: keras.Model, splits: Splits) -> float:
    """Computes the share of the test set that is classified as labelled, 0 to 1."""
    outputs = classifier_head.inference(classifier)(evaluation_stream(splits.test, splits.spec)())
    return float((outputs.argmax(axis=1) == splits.test.y).mean())
