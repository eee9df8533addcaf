"""Generalized Data Weighting: a weight for each example and class."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.errors import UserError
from tf_mwnet.methods.mwnet import MWNet
from tf_mwnet.methods.options import Option
from tf_mwnet.types import Examples, Head

CLAMP = 0.999  # of probabilities, as in the authors' code
LOWEST, HIGHEST = 1e-6, 1e6  # of class-level weights


@keras.saving.register_keras_serializable(package="tf_mwnet")
class GDW(MWNet):
    """Generalized Data Weighting: class-level weights ``[B, K]``.

    The weights multiply the logit gradient ``p - y``: ``losses_ik = stop(p - y)_ik z_ik``. A step:

    1. ``omega_ik = V(loss_i)``, V the weight net of `MWNet`, loss the cross-entropy; the virtual
       step uses ``constrain(omega) / B``.
    2. ``omega <- omega - clip(eta G / |G|_1, +-clip)``, G the gradient with respect to the constrained
       weights (it is not taken through the constraint), then clamped to [1e-6, 1e6]; V takes a step of
       the meta optimizer along the same G.
    3. The real step uses ``constrain(omega) / B``.

    ``constrain`` is the zero-mean constraint: the target's weight is ``sum_{k != t} omega_k p_k /
    (1 - p_t)``, so that the weighted logit gradient sums to zero (eq. 12; appendix B shows what happens
    without). As in the authors' code all probabilities are clamped at 0.999, also in ``p - y``.

    Source: Chen et al., NeurIPS 2021, Algorithm 1; the authors' code where the paper has no clamps.

    Departures: none in the step; the meta examples are never trained on.

    Args:
        eta: length of the step of omega; 100 for CIFAR-10, 1000 for CIFAR-100.
        clip: bound of its components.
        zero_mean: whether the constraint is used.
        **kwargs: as for `MWNet`, without ``normalise``: the weights' mean is used.

    Raises:
        UserError: in `prepare`, the classifier does not end in a softmax.

    Examples:
        >>> tf_mwnet.ReweightedModel(classifier, tf_mwnet.methods.GDW(eta=1000.0))
    """

    from_run = ("hidden", "seed")
    options = (
        Option("eta", "step size of the class-level weights; 1000 for 100 classes", above=0),
        Option("clip", "bound of each component of that step", above=0),
        Option("zero_mean", "use the zero-mean constraint (appendix B: unstable without)"),
    )
    records_class_changes = True
    smooths_labels = False  # its constraint is about the given class

    def __init__(
        self, *args: Any, eta: float = 100.0, clip: float = 0.2, zero_mean: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, **(kwargs | {"normalise": False}))
        self.eta = self.option("eta", eta)
        self.clip = self.option("clip", clip)
        self.zero_mean = self.option("zero_mean", zero_mean)

    def prepare(self, head: Head) -> None:
        super().prepare(head)
        if head.ending != "softmax":
            raise UserError(
                f"method gdw got classifier '{head.name}', which ends in {head.ending}; allowed: softmax"
                " (or logits), since its weights act on p - y"
            )

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        logits = losses.full_precision(logits)
        slope = _clamped(logits) - losses.one_hot(labels, logits)
        return tf.stop_gradient(slope) * logits

    def _start(self, examples: Examples) -> tf.Tensor:
        logits = losses.full_precision(examples.logits)
        weight = self.weight_function(losses.cross_entropy(logits, examples.labels))
        return tf.tile(weight[:, None], [1, logits.shape[-1]])

    def _constrain(self, omega: tf.Tensor, examples: Examples) -> tf.Tensor:
        if not self.zero_mean:
            return omega
        logits = losses.full_precision(examples.logits)
        target = losses.one_hot(examples.labels, logits)
        p = _clamped(logits)
        rest = tf.reduce_sum((1 - target) * omega * p, axis=1, keepdims=True)
        p_target = tf.reduce_sum(target * p, axis=1, keepdims=True)
        return (1 - target) * omega + target * rest / (1 - p_target)

    def _use(self, omega: tf.Tensor, examples: Examples) -> tf.Tensor:
        return self._constrain(omega, examples) / replicas.batch_size(omega, omega.dtype)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        return self._use(self._start(examples), examples)

    def learn(
        self,
        gradient: tf.Tensor | None,
        examples: Examples,
        optimizer: keras.optimizers.Optimizer | None,
    ) -> tf.Tensor:
        assert gradient is not None
        assert optimizer is not None
        variables = self.weight_net.trainable_variables
        slope = gradient / replicas.batch_size(gradient, gradient.dtype)
        with tf.GradientTape() as tape:
            omega = self._start(examples)
        theta = tape.gradient(omega, [v.value for v in variables], output_gradients=slope)
        optimizer.apply(theta, variables)
        # Where a loss scale is too large, the optimizer leaves its step out, and the weights stay.
        slope = tf.where(tf.reduce_all(tf.math.is_finite(slope)), slope, tf.zeros_like(slope))
        size = replicas.all_sum(tf.reduce_sum(tf.abs(slope)))
        step = self.eta * tf.math.divide_no_nan(slope, size)
        omega -= tf.clip_by_value(step, -self.clip, self.clip)
        return self._use(tf.clip_by_value(omega, LOWEST, HIGHEST), examples)


def _clamped(logits: tf.Tensor) -> tf.Tensor:
    return tf.minimum(tf.nn.softmax(logits), CLAMP)
