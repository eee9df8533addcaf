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
from tf_mwnet.model import compiling, example_record, mixing
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
        learning: whether the method learns in this step; in a plain epoch it does not.
    """
    train, method = data["train"], model.method
    averaged, mix = _averaged(model, train.x), None
    if model.mixup and not method.plain:
        size = tf.shape(train.index)[0]
        mix = mixing.draw(model.mixup, size, model.mixup_seed, compiling.step_count(model.optimizer))
        train = train._replace(x=mixing.inputs(mix, train.x))
    parameters = [v.value for v in model.trained]
    with tf.GradientTape(persistent=True) as tape:
        outputs, features = model.forward(train.x, training=True)
        logits = model.to_logits(outputs)
        example_losses = _example_losses(model, logits, train, mix)
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
    examples = Examples(stop(example_losses), stop(logits), train.y, train.index, features, averaged)
    # A dataset may turn out to have ended while replicas take the step: then nothing is to be counted.
    there = [train.y]
    with tf.control_dependencies(there):
        method.observe(examples)
    own = parameters[: len(model.classifier.trainable_variables)]  # the method's follow
    probe = _probe(model, train.x, own, loss_gradient)
    weights = before = stop(method.example_weights(examples))
    shared = None  # the virtual step's gradient, if the real step uses the same weights
    if method.learns and learning and not method.plain:
        with tf.control_dependencies(there):
            new, inner = _learn(model, examples, weights, probe, loss_gradient, data.get("meta"))
        weights, shared = (weights, inner) if model.late else (stop(new), None)
    if shared is not None and penalty is None:
        gradients = shared
    elif penalty is None:
        gradients = loss_gradient(weights, parameters)
    else:
        share = tf.ones_like(penalty) / replicas.count()
        gradients = loss_gradient(weights, parameters, (example_losses, penalty), (share,))
    for i, value in enumerate(method.further_gradient(examples, probe) or []):
        gradients[i] += model.optimizer.scale_loss(value)
    if model.grad_clip:
        gradients = _clipped(model, gradients)
    with tf.control_dependencies(there):
        model.optimizer.apply(gradients, model.trained)
        if model.averages is not None:
            model.averages.update(model.classifier)
        return _report(model, train, outputs, examples, weights, weights - before)


def _averaged(model: ReweightedModel, x: Any) -> tf.Tensor | None:
    """Returns the logits of the classifier's moving average, for a method that uses them."""
    if not model.method.ema or model.averages is None:
        return None
    return tf.stop_gradient(model.to_logits(model.averages.outputs(model.classifier, x)))


def _example_losses(
    model: ReweightedModel, logits: tf.Tensor, train: Batch, mix: mixing.Mix | None
) -> tf.Tensor:
    def of(logits: tf.Tensor) -> tf.Tensor:
        labels = mixing.smoothed(train.y, logits, model.label_smoothing)
        return mixing.example_losses(mix, logits, labels, train.index, model.method.example_losses)

    own = of(logits)
    if model.method.peer is None:
        return own
    return tf.stack([own, of(model.to_logits(model.method.peer(train.x, training=True)))], axis=1)


def _clipped(model: ReweightedModel, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Scales gradients so that the norm of their sum over the replicas is at most ``grad_clip``."""
    scale = model.optimizer.scale_loss(tf.ones([], keras.config.floatx()))
    norm = tf.linalg.global_norm(replicas.all_sum(list(gradients))) / tf.cast(scale, tf.float32)
    # Infinite ones of half precision are left to the loss scale.
    factor = tf.minimum(1.0, model.grad_clip / tf.maximum(norm, 1e-12))
    factor = tf.where(tf.math.is_finite(norm), factor, 1.0)
    return [g * tf.cast(factor, g.dtype) for g in gradients]


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
    x, mix = meta.x, None
    if model.meta_mixup:
        size, step = tf.shape(meta.index)[0], compiling.step_count(model.optimizer)
        mix = mixing.draw(model.meta_mixup, size, model.mixup_seed, step, of_meta=True)
        x = mixing.inputs(mix, x)

    def at(virtual: list[tf.Tensor]) -> list[tf.Tensor]:
        parameters = list(probe.parameters)
        for place, value in zip(model.scope, virtual, strict=True):
            parameters[place] = value
        return parameters

    def meta_loss(virtual: list[tf.Tensor]) -> tf.Tensor:
        logits = probe.logits(at(virtual), x)
        each = mixing.example_losses(
            mix, logits, meta.y, meta.index, lambda z, y, _: model.method.meta_loss(z, y)
        )
        return tf.reduce_sum(each) / replicas.batch_size(each, each.dtype)

    def averaged(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        assert model.meta_average is not None
        variables = [model.classifier.trainable_variables[place] for place in model.scope]
        return model.meta_average.update(variables, gradients, meta_scale)

    meta_scale = tf.ones([], weights.dtype)
    if model.meta_optimizer is not None:
        meta_scale = model.meta_optimizer.scale_loss(meta_scale)

    def virtual_gradient(weights: tf.Tensor) -> list[tf.Tensor]:
        gradients = loss_gradient(weights, moved)
        check_differentiable([weights], gradients, model.layer_names)
        return gradients

    gradient, loss, virtual, inner = weight_gradient(
        virtual_gradient,
        weights,
        _look_ahead(model, moved, probe.learning_rate),
        probe.learning_rate,
        meta_loss,
        loss_scale=probe.scale,
        meta_scale=meta_scale,
        virtual_step=model.method.meta_gradient == "virtual",
        averaged=None if model.meta_average is None else averaged,
    )
    model.means["meta_loss"].update_state(loss * replicas.count())
    if model.method.sees_virtual:
        model.method.observe_virtual(examples, tf.stop_gradient(probe.logits(at(virtual))))
    return model.method.learn(gradient, examples, model.meta_optimizer), inner


def _look_ahead(model: ReweightedModel, moved: list[tf.Tensor], rate: tf.Tensor) -> list[tf.Tensor]:
    """Moves parameters by the momentum that the optimizer has, see `Method.look_ahead`."""
    if not model.method.look_ahead:
        return moved
    optimizer: Any = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    variables = [model.classifier.trainable_variables[place] for place in model.scope]
    out = []
    for value, variable in zip(moved, variables, strict=True):
        velocity = tf.convert_to_tensor(optimizer.velocity_of(variable))
        step = tf.cast(rate * model.method.look_ahead, velocity.dtype) * velocity
        out.append(tf.convert_to_tensor(value) - tf.cast(step, value.dtype))
    return out


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
        by_class = changes if model.class_columns else None
        example_record.update(model.record, examples, label_weights, by_class)
    model.update_loss(losses.cross_entropy(examples.logits, train.y))
    local = tf.reduce_sum(weights * examples.losses)
    model.means["weighted_loss"].update_state(local * replicas.count())
    return model.compute_metrics(train.x, train.y, outputs)
