"""Batch norm with TensorFlow's fused kernels: forward, backward, and the backward pass's gradient."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

FUSED = ("float32", "float16", "bfloat16")
Tensors = tuple[tf.Tensor, ...]
Gradient = Callable[..., Tensors]


@keras.saving.register_keras_serializable(package="tf_mwnet")
class BatchNorm(keras.layers.BatchNormalization):
    """A faster `keras.layers.BatchNormalization` with the same arguments.

    Keras computes batch norm in single operations; here one kernel does it.

    The meta gradient differentiates the backward pass with respect to its incoming gradient. The
    backward pass is linear in that gradient and is its own adjoint, so the backward kernel can be
    applied again; TensorFlow's own gradient of that kernel takes many times as long.

    Falls back to Keras's layer if the kernel does not apply: in inference, if the layer is frozen, with
    a mask, with synchronised statistics, and for other ranks, axes and dtypes.

    Examples:
        >>> layer = BatchNorm(momentum=0.9, epsilon=1e-5)
        >>> layer(tf.random.normal([8, 4, 4, 3]), training=True).shape
        TensorShape([8, 4, 4, 3])
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        if not self._is_fused(inputs, training, mask):
            return super().call(inputs, training=training, mask=mask)
        gamma, beta = (tf.cast(v, tf.float32) for v in (self.gamma, self.beta))
        outputs, mean, variance = _normalise(inputs, gamma, beta, self.epsilon)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + tf.cast(new, moving.dtype) * (1 - self.momentum))
        return outputs

    def _is_fused(self, inputs: tf.Tensor, training: bool | None, mask: tf.Tensor | None) -> bool:
        plain = self.scale and self.center and not self.synchronized and mask is None
        fits = inputs.shape.rank == 4 and self.axis in (-1, 3)
        known = keras.backend.standardize_dtype(inputs.dtype) in FUSED
        return bool(training and self.trainable and plain and fits and known)


def _normalise(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns ``gamma (x - mean) / sqrt(variance + epsilon) + beta`` with the batch's statistics.

    Args:
        x: ``[B, H, W, C]``.
        gamma, beta: float32 ``[C]``.
        epsilon: above 0.

    Returns:
        The outputs, ``[B, H, W, C]`` of x's dtype; mean and biased variance, float32 ``[C]``, through
        which no gradient flows.
    """
    size = tf.cast(tf.size(x), tf.float32) / tf.cast(tf.size(gamma), tf.float32)

    @tf.custom_gradient
    def forward(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[Tensors, Gradient]:
        none = tf.zeros([0], tf.float32)
        y, mean, variance, *saved = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=none, variance=none, epsilon=epsilon, is_training=True
        )
        variance = variance * (size - 1) / size  # the kernel returns the unbiased variance

        def gradient(slope: tf.Tensor, *_: tf.Tensor) -> Tensors:
            return _backward(slope, x, gamma, (mean, variance, *saved), epsilon)

        return (y, mean, variance), gradient

    y, mean, variance = forward(x, gamma, beta)
    return y, tf.stop_gradient(mean), tf.stop_gradient(variance)


def _backward(
    slope: tf.Tensor, x: tf.Tensor, gamma: tf.Tensor, saved: Tensors, epsilon: float
) -> Tensors:
    """Returns the gradients with respect to x, gamma and beta.

    Args:
        slope: the gradient with respect to the outputs.
        x, gamma: see `_normalise`.
        saved: mean and variance of the batch, and what the forward kernel keeps for the backward one.
        epsilon: see `_normalise`.
    """
    mean, variance, *reserved = saved

    def kernel(value: tf.Tensor) -> Tensors:
        names = (f"reserve_space_{i}" for i in (1, 2, 3))
        return tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=value, x=x, scale=gamma, epsilon=epsilon, is_training=True,
            **dict(zip(names, reserved, strict=True)),
        )[:3]  # fmt: skip

    @tf.custom_gradient
    def backward(slope: tf.Tensor, x: tf.Tensor, gamma: tf.Tensor) -> tuple[Tensors, Gradient]:
        def gradient(of_x: tf.Tensor, of_gamma: tf.Tensor, of_beta: tf.Tensor) -> Tensors:
            # of_x goes through the same linear map; gamma's gradient is sum(slope * normalised).
            factor = of_gamma * tf.math.rsqrt(variance + epsilon)
            shift = of_beta - mean * factor
            of_slope = kernel(of_x)[0] + tf.cast(factor, x.dtype) * x + tf.cast(shift, x.dtype)
            rest = _slow_gradient(slope, x, gamma, (of_x, of_gamma, of_beta), epsilon)
            return of_slope, *rest

        return kernel(slope), gradient

    return backward(slope, x, gamma)


@tf.function
def _slow_gradient(
    slope: tf.Tensor, x: tf.Tensor, gamma: tf.Tensor, upstream: Tensors, epsilon: float
) -> list[tf.Tensor]:
    """Returns the gradient of `_backward` with respect to x and gamma.

    TensorFlow prunes it from a step that does not use it. It is a separate `tf.function` because layers
    of the same shape then share its trace.
    """
    with tf.GradientTape() as tape:
        tape.watch([x, gamma])
        wide, given = tf.cast(x, tf.float32), tf.cast(slope, tf.float32)
        mean, variance = tf.nn.moments(wide, [0, 1, 2])
        inverse = tf.math.rsqrt(variance + epsilon)
        normalised = (wide - mean) * inverse
        of_beta = tf.reduce_sum(given, [0, 1, 2])
        of_gamma = tf.reduce_sum(given * normalised, [0, 1, 2])
        size = tf.cast(tf.size(x), tf.float32) / tf.cast(tf.size(gamma), tf.float32)
        of_x = gamma * inverse * (given - (of_beta + normalised * of_gamma) / size)
        gradients = (tf.cast(of_x, x.dtype), of_gamma, of_beta)
    return tape.gradient(gradients, [x, gamma], output_gradients=list(upstream))
