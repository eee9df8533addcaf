"""The virtual step, and the gradient of the meta loss with respect to the example weights.

With example losses l_i(w), example weights e_i and step size a, the virtual parameters

    w_hat(e) = w - a * sum_i e_i * grad l_i(w)                    (the virtual step of both)

are linear in e, so that for the meta loss L the gradient

    G_i = dL(w_hat(e)) / d e_i = -a * < grad l_i(w), grad L(w_hat) >   (by the chain rule)

is exact with one level of differentiation of the inner gradient. It needs no second forward pass
of the training batch: the outer tape records only the backward pass, as a function of e.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_mwnet import replicas


def dense(gradients: Sequence, variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """Converts gradients to dense tensors: zeros for None, sums for IndexedSlices."""
    return [
        tf.zeros_like(v) if g is None else tf.convert_to_tensor(g)
        for g, v in zip(gradients, variables, strict=True)
    ]


def _scalar(value: tf.Tensor | float, dtype: tf.DType) -> tf.Tensor:
    # tf.cast would round a Python float to single precision on its way to double.
    return tf.cast(value, dtype) if hasattr(value, "dtype") else tf.constant(value, dtype)


def weight_gradient(
    loss_gradient: Callable[[tf.Tensor], list[tf.Tensor]],
    weights: tf.Tensor,
    parameters: Sequence[tf.Tensor],
    step_size: tf.Tensor,
    meta_loss: Callable[[list[tf.Tensor]], tf.Tensor],
    loss_scale: tf.Tensor | float = 1.0,
    meta_scale: tf.Tensor | float = 1.0,
    virtual_step: bool = True,
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
    """Computes the gradient of the meta loss with respect to the example weights.

    On several replicas every argument is this replica's share; the virtual gradient and the
    gradient at the virtual parameters are summed over replicas.

    Args:
        loss_gradient: maps weights to the gradient of ``loss_scale * sum(weights * losses)`` with
            respect to ``parameters``, summed over this replica's examples, linear in the weights.
        weights: ``[B]`` or ``[B, K]``.
        parameters: the classifier's trainable parameters w.
        step_size: scalar a, the step of the virtual SGD (no momentum, no weight decay).
        meta_loss: maps virtual parameters to this replica's share of the mean meta loss, a scalar.
        loss_scale: factor that keeps half-precision training gradients in range.
        meta_scale: the same for the meta gradient; the result is multiplied by it.
        virtual_step: if False, the meta gradient is taken at ``parameters``, which is exact where the
            weights are 0. The virtual gradient is then not needed, and a traced step leaves it out.

    Returns:
        ``(meta_scale * G, L, w_hat, g)``: the shape of ``weights``; a scalar, this replica's share; and
        two lists shaped like ``parameters``, g being ``loss_gradient(weights)``.
    """
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch(weights)
        inner = loss_gradient(weights)
    virtual = [tf.convert_to_tensor(p) for p in parameters]
    if virtual_step:
        virtual = [
            p - _scalar(step_size, p.dtype) * g / _scalar(loss_scale, p.dtype)
            for p, g in zip(virtual, replicas.all_sum(inner), strict=True)
        ]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(virtual)
        loss = meta_loss(virtual)
        scaled = loss * _scalar(meta_scale, loss.dtype)
    at_virtual = replicas.all_sum(dense(tape.gradient(scaled, virtual), virtual))
    gradient = outer.gradient(inner, weights, output_gradients=at_virtual)
    factor = _scalar(step_size, weights.dtype) / _scalar(loss_scale, weights.dtype)
    return -factor * gradient, loss, virtual, inner
