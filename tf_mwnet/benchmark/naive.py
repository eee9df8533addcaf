"""The benchmark's reference: Meta-Weight-Net's step written with nested tapes (Shu et al., eq. 3-5).

Nothing is shared. The training batch passes through the classifier twice, in the virtual and in the real
step, and the meta gradient differentiates the whole virtual step.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from tf_mwnet import losses
from tf_mwnet.meta import dense
from tf_mwnet.model.reweighted import ReweightedModel
from tf_mwnet.types import Batch


def train_step(model: ReweightedModel, data: Mapping[str, Batch]) -> dict[str, tf.Tensor]:
    """Takes one step of a `ReweightedModel` with the method ``mwnet``, on one replica.

    Args:
        model: a compiled model; the step updates its classifier, weight net and optimizers.
        data: ``{"train": Batch, "meta": Batch}``.

    Returns:
        "weighted_loss", of the training batch before the step.
    """
    train, meta = data["train"], data["meta"]
    classifier, method = model.classifier, model.method
    state = [v.value for v in classifier.non_trainable_variables]
    learned = method.trainable_variables
    meta_optimizer: keras.optimizers.Optimizer = model.meta_optimizer

    def weighted(logits: tf.Tensor) -> tf.Tensor:
        each = losses.cross_entropy(logits, train.y)
        weights = method.weight_net(tf.stop_gradient(each)[:, None])[:, 0]
        weights = tf.cast(weights, each.dtype)
        return tf.reduce_sum(each * weights) / tf.reduce_sum(weights)

    with tf.GradientTape() as outer:
        parameters = [tf.convert_to_tensor(v.value) for v in classifier.trainable_variables]
        with tf.GradientTape() as inner:
            inner.watch(parameters)
            logits, _ = classifier.stateless_call(parameters, state, train.x, training=True)
            loss = weighted(logits)
        slopes = dense(inner.gradient(loss, parameters), parameters)
        rate = model.optimizer.learning_rate
        virtual = [p - tf.cast(rate, p.dtype) * s for p, s in zip(parameters, slopes, strict=True)]
        logits, _ = classifier.stateless_call(virtual, state, meta.x, training=True)
        meta_loss = tf.reduce_mean(losses.cross_entropy(logits, meta.y))
    values = [v.value for v in learned]
    meta_optimizer.apply(dense(outer.gradient(meta_loss, values), values), learned)

    with tf.GradientTape() as tape:
        loss = weighted(classifier(train.x, training=True))
    values = [v.value for v in classifier.trainable_variables]
    model.optimizer.apply(dense(tape.gradient(loss, values), values), classifier.trainable_variables)
    return {"weighted_loss": loss}
