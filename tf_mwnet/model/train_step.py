"""The train step of `ReweightedModel`: forward pass, weights, what is learned, update.

`tf_mwnet.meta` has the equations of the meta gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.meta import dense, weight_gradient
from tf_mwnet.methods.probe import Probe
from tf_mwnet.model import example_record
from tf_mwnet.types import Batch, Examples

if TYPE_CHECKING:
    from tf_mwnet.model.reweighted import ReweightedModel


def train_step(model: ReweightedModel, data: dict[str, Batch], learning: bool = True):
    """Takes one step and returns the metrics so far.

    Args:
        model: compiled.
        data: ``{"train": Batch, "meta": Batch}``, the second where the method takes one.
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

    def loss_gradient(weights, sources, targets=(example_losses,), factors=()):
        scaled = [model.optimizer.scale_loss(w) for w in (weights, *factors)]
        return dense(tape.gradient(targets, sources, output_gradients=scaled), sources)

    stop = tf.stop_gradient
    features = None if features is None else stop(features)
    examples = Examples(stop(example_losses), stop(logits), train.y, train.index, features)
    method.observe(examples)
    own = parameters[: len(model.classifier.trainable_variables)]  # a method's may follow
    probe = _probe(model, train.x, own, loss_gradient)
    weights = stop(method.example_weights(examples))
    shared = None  # the virtual step's gradient, where it is that of the real step too
    if method.learns and learning:
        learned, found = _learn(model, examples, weights, probe, loss_gradient, data.get("meta"))
        weights, shared = (weights, found) if model.late else (stop(learned), None)
    if shared is not None and penalty is None:
        gradients = shared
    elif penalty is None:
        gradients = loss_gradient(weights, parameters)
    else:
        share = tf.ones_like(penalty) / replicas.count()
        gradients = loss_gradient(weights, parameters, (example_losses, penalty), (share,))
    for i, value in enumerate(method.further_gradient(examples, probe) or []):
        gradients[i] += model.optimizer.scale_loss(value)
    model.optimizer.apply(gradients, model.trained)
    return _report(model, train, outputs, examples, weights)


def _example_losses(model, logits, train):
    own = model.method.example_losses(logits, train.y, train.index)
    if model.method.peer is None:
        return own
    other = model.to_logits(model.method.peer(train.x, training=True))
    return tf.stack([own, model.method.example_losses(other, train.y, train.index)], axis=1)


def _probe(model, x, parameters, loss_gradient) -> Probe:
    return Probe(
        model.classifier,
        x,
        parameters,
        model.optimizer.learning_rate,
        model.optimizer.scale_loss(tf.ones([], keras.config.floatx())),
        model.to_logits,
        lambda weights: loss_gradient(weights, parameters),
    )


def _learn(model, examples, weights, probe, loss_gradient, meta):
    """What `Method.learn` returns, and the gradient of the virtual step or None.

    The virtual step moves the parameters in ``model.scope``.
    """
    if meta is None:
        return model.method.learn(None, examples, model.meta_optimizer), None
    moved = [probe.parameters[i] for i in model.scope]

    def meta_loss(virtual):
        parameters = list(probe.parameters)
        for place, value in zip(model.scope, virtual, strict=True):
            parameters[place] = value
        each = model.method.meta_loss(probe.logits(parameters, meta.x), meta.y)
        return tf.reduce_sum(each) / replicas.batch_size(each, each.dtype)

    one = tf.ones([], weights.dtype)
    scaling = model.meta_optimizer is not None
    gradient, loss, _, inner = weight_gradient(
        lambda weights: loss_gradient(weights, moved),
        weights,
        moved,
        probe.learning_rate,
        meta_loss,
        loss_scale=probe.scale,
        meta_scale=model.meta_optimizer.scale_loss(one) if scaling else one,
        virtual_step=model.method.meta_gradient == "virtual",
    )
    model.means["meta_loss"].update_state(loss * replicas.count())
    return model.method.learn(gradient, examples, model.meta_optimizer), inner


def _report(model, train, outputs, examples, weights):
    if model.record is not None:
        label_weights = model.method.label_weight(weights, examples)
        changes = model.method.class_changes(weights, examples)
        example_record.update(model.record, examples, label_weights, changes)
    model.update_loss(losses.cross_entropy(examples.logits, train.y))
    local = tf.reduce_sum(weights * examples.losses)
    model.means["weighted_loss"].update_state(local * replicas.count())
    return model.compute_metrics(train.x, train.y, outputs)
