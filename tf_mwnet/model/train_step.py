"""The train step of `ReweightedModel`: forward pass, weights, meta step, update.

`tf_mwnet.meta` has the equations of the meta gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.meta import check_differentiable, dense, weight_gradient
from tf_mwnet.methods.probe import Probe
from tf_mwnet.model import example_record
from tf_mwnet.types import Batch, Examples

if TYPE_CHECKING:
    from tf_mwnet.model.reweighted import ReweightedModel


# weights, sources, targets, further factors -> gradients with respect to the sources
LossGradient = Callable[..., list[tf.Tensor]]


def train_step(
    model: ReweightedModel, data: dict[str, Batch], learning: bool = True
) -> dict[str, tf.Tensor]:
    """Takes one step and returns the metrics so far.

    Args:
        model: a compiled model.
        data: ``{"train": Batch, "meta": Batch}``, the second if the method takes meta batches.
        learning: whether the method learns in this step.
    """
    train, method = data["train"], model.method
    parameters = [v.value for v in model.trained]
    with tf.GradientTape(persistent=True) as tape:
        outputs, features = model.forward(train.x, training=True)
        logits = model.to_logits(outputs)
        example_losses = _example_losses(model, logits, train)
        penalties = [*model.classifier.losses, *method.losses]
        penalty = tf.add_n(penalties) if penalties else None

    def loss_gradient(
        weights: tf.Tensor,
        sources: Sequence[tf.Tensor],
        targets: Sequence[tf.Tensor] = (example_losses,),
        factors: Sequence[tf.Tensor] = (),
    ) -> list[tf.Tensor]:
        scaled = [model.optimizer.scale_loss(w) for w in (weights, *factors)]
        return dense(tape.gradient(targets, sources, output_gradients=scaled), sources)

    stop = tf.stop_gradient
    features = None if features is None else stop(features)
    examples = Examples(stop(example_losses), stop(logits), train.y, train.index, features)
    method.observe(examples)
    own = parameters[: len(model.classifier.trainable_variables)]  # the method's follow
    probe = _probe(model, train.x, own, loss_gradient)
    weights = before = stop(method.example_weights(examples))
    shared = None  # the virtual step's gradient, if the real step uses the same weights
    if method.learns and learning:
        new_weights, inner = _learn(model, examples, weights, probe, loss_gradient, data.get("meta"))
        weights, shared = (weights, inner) if model.late else (stop(new_weights), None)
    if shared is not None and penalty is None:
        gradients = shared
    elif penalty is None:
        gradients = loss_gradient(weights, parameters)
    else:
        share = tf.ones_like(penalty) / replicas.count()
        gradients = loss_gradient(weights, parameters, (example_losses, penalty), (share,))
    for i, value in enumerate(method.further_gradient(examples, probe) or []):
        gradients[i] += model.optimizer.scale_loss(value)
    # Else the optimizer would also count the step at which a dataset turns out to have ended.
    with tf.control_dependencies([train.y]):
        model.optimizer.apply(gradients, model.trained)
    return _report(model, train, outputs, examples, weights, weights - before)


def _example_losses(model: ReweightedModel, logits: tf.Tensor, train: Batch) -> tf.Tensor:
    own = model.method.example_losses(logits, train.y, train.index)
    if model.method.peer is None:
        return own
    other = model.to_logits(model.method.peer(train.x, training=True))
    return tf.stack([own, model.method.example_losses(other, train.y, train.index)], axis=1)


def _probe(
    model: ReweightedModel, x: Any, parameters: list[tf.Tensor], loss_gradient: LossGradient
) -> Probe:
    return Probe(
        model.classifier,
        x,
        parameters,
        model.optimizer.learning_rate,
        model.optimizer.scale_loss(tf.ones([], keras.config.floatx())),
        model.to_logits,
        lambda weights: loss_gradient(weights, parameters),
    )


def _learn(
    model: ReweightedModel,
    examples: Examples,
    weights: tf.Tensor,
    probe: Probe,
    loss_gradient: LossGradient,
    meta: Batch | None,
) -> tuple[tf.Tensor, list[tf.Tensor] | None]:
    """Takes the meta step; returns the new weights, and the gradient of the virtual step or None.

    The virtual step moves the parameters in ``model.scope``.
    """
    if meta is None:
        return model.method.learn(None, examples, model.meta_optimizer), None
    moved = [probe.parameters[i] for i in model.scope]

    def meta_loss(virtual: list[tf.Tensor]) -> tf.Tensor:
        parameters = list(probe.parameters)
        for place, value in zip(model.scope, virtual, strict=True):
            parameters[place] = value
        each = model.method.meta_loss(probe.logits(parameters, meta.x), meta.y)
        return tf.reduce_sum(each) / replicas.batch_size(each, each.dtype)

    meta_scale = tf.ones([], weights.dtype)
    if model.meta_optimizer is not None:
        meta_scale = model.meta_optimizer.scale_loss(meta_scale)

    def virtual_gradient(weights: tf.Tensor) -> list[tf.Tensor]:
        gradients = loss_gradient(weights, moved)
        check_differentiable([weights], gradients, model.layer_names)
        return gradients

    gradient, loss, _, inner = weight_gradient(
        virtual_gradient,
        weights,
        moved,
        probe.learning_rate,
        meta_loss,
        loss_scale=probe.scale,
        meta_scale=meta_scale,
        virtual_step=model.method.meta_gradient == "virtual",
    )
    model.means["meta_loss"].update_state(loss * replicas.count())
    return model.method.learn(gradient, examples, model.meta_optimizer), inner


def _report(
    model: ReweightedModel,
    train: Batch,
    outputs: tf.Tensor,
    examples: Examples,
    weights: tf.Tensor,
    changes: tf.Tensor,
) -> dict[str, tf.Tensor]:
    if model.record is not None:
        label_weights = model.method.label_weight(weights, examples)
        by_class = changes if model.method.class_level else None
        example_record.update(model.record, examples, label_weights, by_class)
    model.update_loss(losses.cross_entropy(examples.logits, train.y))
    local = tf.reduce_sum(weights * examples.losses)
    model.means["weighted_loss"].update_state(local * replicas.count())
    return model.compute_metrics(train.x, train.y, outputs)
