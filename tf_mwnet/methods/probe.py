"""The classifier on a training batch, at other parameters than its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from tf_mwnet.meta import dense


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a method may ask of the classifier within a step, beside its losses.

    Attributes:
        classifier: whose parameters these are.
        x: inputs of this replica's part of the batch, ``[b, ...]``.
        parameters: P tensors, the classifier's trainable parameters before the step.
        learning_rate: of the classifier's optimizer, a scalar.
        scale: factor that keeps half-precision gradients in range; 1 in other precisions.
        to_logits: outputs of the classifier -> logits ``[b, K]``.
        weighted_gradient: weights, shaped like the example losses -> gradient of
            ``scale * sum(weights * losses)``, P tensors.
    """

    classifier: keras.Model
    x: tf.Tensor
    parameters: list[tf.Tensor]
    learning_rate: tf.Tensor
    scale: tf.Tensor
    to_logits: Callable
    weighted_gradient: Callable

    def gradient(self, weights: tf.Tensor) -> list[tf.Tensor]:
        """Gradient of ``sum(weights * losses)`` over this replica's examples, P tensors."""
        return [g / tf.cast(self.scale, g.dtype) for g in self.weighted_gradient(weights)]

    def logits(self, parameters: list[tf.Tensor], x: tf.Tensor | None = None) -> tf.Tensor:
        """Logits ``[b, K]`` of ``x``, by default the batch, in training mode.

        Batch norm statistics and dropout seeds that this pass would move are dropped.
        """
        x = self.x if x is None else x
        state = [v.value for v in self.classifier.non_trainable_variables]
        outputs, _ = self.classifier.stateless_call(parameters, state, x, training=True)
        return self.to_logits(outputs)

    def gradient_at(self, parameters: list[tf.Tensor], loss: Callable) -> list[tf.Tensor]:
        """Gradient of ``loss(logits)``, a scalar, at ``parameters``, P tensors."""
        parameters = [tf.convert_to_tensor(p) for p in parameters]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(parameters)
            value = loss(self.logits(parameters))
            scaled = value * tf.cast(self.scale, value.dtype)
        found = dense(tape.gradient(scaled, parameters), parameters)
        return [g / tf.cast(self.scale, g.dtype) for g in found]
