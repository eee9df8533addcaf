"""The weight net, which maps a loss to a weight."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tf_mwnet.errors import UserError
from tf_mwnet.networks.init import Seeds


def weight_net(
    hidden: Sequence[int] = (100,), seed: int = 0, dtype: str | None = None, outputs: int = 1
) -> keras.Sequential:
    """Builds an MLP ``[B, 1] -> [B, outputs]`` with ReLU hidden layers and outputs in (0, 1).

    Meta-Weight-Net: one hidden layer of 100; table 5 has other shapes. Kernels and biases
    are initialised uniformly in +-1/sqrt(fan in), as in the authors' code. Different biases spread the
    ReLUs' kinks along the loss axis; without them the initial function could only be monotone.

    Examples:
        >>> net = weight_net(hidden=(100,), seed=0)
        >>> net.count_params(), net.output_shape
        (301, (None, 1))

    Args:
        hidden: sizes of the hidden layers, each at least 1; may be empty.
        seed: seed of the initial values.
        dtype: "float32" or "float64"; Keras's floatx by default, also under mixed precision.
        outputs: 1, or one for each group of classes.

    Raises:
        UserError: a hidden size is below 1.
    """
    if any(int(h) < 1 for h in hidden):
        raise UserError(f"weight net hidden sizes are {tuple(hidden)}; allowed: positive integers")
    seeds = Seeds(seed)
    dtype = dtype or keras.config.floatx()
    model = keras.Sequential([keras.Input((1,), dtype=dtype)], name="weight_net")
    fan_in = 1
    for units, activation in [*((int(h), "relu") for h in hidden), (outputs, "sigmoid")]:
        limit = fan_in**-0.5
        uniform = [keras.initializers.RandomUniform(-limit, limit, seed=seeds()) for _ in range(2)]
        model.add(
            keras.layers.Dense(
                units,
                activation=activation,
                kernel_initializer=uniform[0],
                bias_initializer=uniform[1],
                dtype=dtype,
            )
        )
        fan_in = units
    return model
