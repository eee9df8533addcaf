"""The classifier on a training batch, at its own parameters and at others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_mwnet.meta import check_differentiable, dense


def outputs_with(
    classifier: keras.Model, values: list[tuple[keras.Variable, Any]], x: Any, training: bool
) -> Any:
    """Computes a classifier's outputs with other values of its variables, which keep their own.

    Unlike its ``stateless_call``, also of one whose ``call`` has no argument ``training``.
    """
    with keras.StatelessScope(state_mapping=values):
        return classifier(x, training=training)


@dataclasses.dataclass(frozen=True)
class Probe:
    """Lets a method evaluate the classifier within a step.

    Attributes:
        classifier: the classifier.
        x: inputs of this replica's part of the batch, ``[b, ...]``.
        parameters: P tensors, the classifier's trainable parameters before the step.
        learning_rate: of the classifier's optimizer, a scalar.
        scale: factor that keeps half-precision gradients in range; 1 in other precisions.
        to_logits: maps outputs of the classifier to logits ``[b, K]``.
        weighted_gradient: maps weights in the shape of the example losses to the gradient of
            ``scale * sum(weights * losses)``, P tensors.
    """

    classifier: keras.Model
    x: tf.Tensor
    parameters: list[tf.Tensor]
    learning_rate: tf.Tensor
    scale: tf.Tensor
    to_logits: Callable[[tf.Tensor], tf.Tensor]
    weighted_gradient: Callable[[tf.Tensor], list[tf.Tensor]]

    def gradient(self, weights: tf.Tensor) -> list[tf.Tensor]:
        """Computes the gradient of ``sum(weights * losses)`` over this replica's examples, P tensors."""
        return [g / tf.cast(self.scale, g.dtype) for g in self.weighted_gradient(weights)]

    def logits(self, parameters: list[tf.Tensor], x: tf.Tensor | None = None) -> tf.Tensor:
        """Computes logits ``[b, K]`` of ``x``, by default the batch, in training mode.

        The pass leaves batch norm statistics and dropout seeds unchanged.
        """
        x = self.x if x is None else x
        others = self.classifier.non_trainable_variables
        pairs = [*zip(self.classifier.trainable_variables, parameters, strict=True)]
        pairs += [(v, v.value) for v in others]
        return self.to_logits(outputs_with(self.classifier, pairs, x, training=True))

    def curvature(
        self, direction: list[tf.Tensor], loss: Callable[[tf.Tensor], tf.Tensor]
    ) -> list[tf.Tensor]:
        """Computes the Hessian of ``loss(logits)``, a scalar, at `parameters` times a direction.

        Args:
            direction: P tensors.
            loss: maps logits ``[b, K]`` to a scalar.

        Returns:
            P tensors.
        """
        parameters = [tf.convert_to_tensor(p) for p in self.parameters]
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(parameters)
            slopes = self.gradient_at(parameters, loss)
            check_differentiable(parameters, slopes, [la.name for la in self.classifier.layers])
            pairs = zip(slopes, direction, strict=True)
            along = tf.add_n([tf.reduce_sum(s * tf.cast(d, s.dtype)) for s, d in pairs])
            scaled = along * tf.cast(self.scale, along.dtype)
        gradients = dense(outer.gradient(scaled, parameters), parameters)
        return [g / tf.cast(self.scale, g.dtype) for g in gradients]

    def gradient_at(
        self, parameters: list[tf.Tensor], loss: Callable[[tf.Tensor], tf.Tensor]
    ) -> list[tf.Tensor]:
        """Computes the gradient of ``loss(logits)``, a scalar, at ``parameters``, P tensors."""
        parameters = [tf.convert_to_tensor(p) for p in parameters]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(parameters)
            value = loss(self.logits(parameters))
            scaled = value * tf.cast(self.scale, value.dtype)
        gradients = dense(tape.gradient(scaled, parameters), parameters)
        return [g / tf.cast(self.scale, g.dtype) for g in gradients]
