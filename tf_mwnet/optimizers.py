"""Optimizers as in PyTorch: L2 is added to the gradient, and the step size is outside the momentum."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class CoupledL2(keras.optimizers.Optimizer):
    """Adds ``l2 * w`` to the gradient before anything else (PyTorch's ``weight_decay``).

    Keras's own ``weight_decay`` is decoupled: it bypasses momentum and preconditioning. By default all
    variables decay, batch norm and biases included, as in the papers' code; pass others to
    ``exclude_from_weight_decay``.
    """

    l2: float

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        if self.l2 and self._use_weight_decay(variable):
            gradient = tf.convert_to_tensor(gradient) + self.l2 * tf.convert_to_tensor(variable)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"l2": self.l2}


class _Momentum(keras.optimizers.SGD):
    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        learning_rate = tf.cast(learning_rate, variable.dtype)
        gradient = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)
        if self.momentum == 0:
            self.assign_sub(variable, learning_rate * gradient)
            return
        velocity = self.momentums[self._get_variable_index(variable)]
        new_velocity = self.momentum * tf.convert_to_tensor(velocity) + gradient
        self.assign(velocity, new_velocity)
        step = gradient + self.momentum * new_velocity if self.nesterov else new_velocity
        self.assign_sub(variable, learning_rate * step)

    def velocity_of(self, variable: keras.Variable) -> keras.Variable:
        """Returns v of a variable; needs a momentum above 0."""
        return self.momentums[self._get_variable_index(variable)]


@keras.saving.register_keras_serializable(package="tf_mwnet")
class SGD(CoupledL2, _Momentum):
    """SGD: ``v <- m v + (g + l2 w)``; ``w <- w - lr v`` (Nesterov: ``w <- w - lr (g + l2 w + m v)``).

    The step size is applied outside the velocity, as in PyTorch, so that a drop of the learning rate
    acts at once. Keras's SGD folds it into the velocity.

    Args:
        learning_rate: float or schedule.
        momentum: m, 0 to 1.
        nesterov: see above.
        l2: coupled L2 coefficient, not negative.
        **kwargs: as for `keras.optimizers.SGD`.

    Examples:
        >>> tf_mwnet.optimizers.SGD(0.1, momentum=0.9, l2=5e-4)
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.1,
        momentum: float = 0.0,
        nesterov: bool = False,
        l2: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, momentum=momentum, nesterov=nesterov, **kwargs)
        self.l2 = float(l2)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class Adam(CoupledL2, keras.optimizers.Adam):
    """Adam with coupled L2, as the authors' code uses it for the weight net.

    Args:
        learning_rate: float or schedule.
        l2: coupled L2 coefficient, not negative.
        epsilon: added to the root of the second moment; 1e-8 as in PyTorch.
        **kwargs: as for `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        l2: float = 0.0,
        epsilon: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, epsilon=epsilon, **kwargs)
        self.l2 = float(l2)
