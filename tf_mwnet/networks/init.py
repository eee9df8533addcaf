"""Seeds, initialisers and batch norm of all networks, as in the papers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tf_mwnet.networks.batch_norm import BatchNorm


class Seeds:
    """Returns a new int seed at each call, and makes layers that use one.

    Examples:
        >>> seeds = Seeds(0)
        >>> seeds() != seeds(), Seeds(0)() == Seeds(0)()
        (True, True)

    Args:
        seed: determines the whole sequence.
    """

    def __init__(self, seed: int):
        self._generator = np.random.default_rng(seed)

    def __call__(self) -> int:
        return int(self._generator.integers(2**31 - 1))

    def he_normal(self) -> keras.initializers.Initializer:
        """Returns He initialisation with fan in (He et al., ICCV 2015)."""
        return keras.initializers.HeNormal(seed=self())

    def conv(
        self, filters: int, size: int, strides: int = 1, use_bias: bool = False, **kwargs: Any
    ) -> keras.layers.Conv2D:
        """Makes a same-padded convolution with He initialisation.

        Args:
            filters: output channels.
            size: height and width of the kernel.
            strides: of both axes.
            use_bias: whether to add a bias.
            **kwargs: further arguments of `keras.layers.Conv2D`.
        """
        return keras.layers.Conv2D(
            filters,
            size,
            strides=strides,
            padding="same",
            use_bias=use_bias,
            kernel_initializer=self.he_normal(),
            **kwargs,
        )

    def dense(self, units: int, **kwargs: Any) -> keras.layers.Dense:
        """Makes a dense layer with He initialisation."""
        return keras.layers.Dense(units, kernel_initializer=self.he_normal(), **kwargs)


def batch_norm(synchronized: bool = False) -> keras.layers.BatchNormalization:
    """Makes batch norm with the papers' momentum 0.9 and epsilon 1e-5 (Keras's are 0.99 and 1e-3).

    Args:
        synchronized: whether replicas share their batch statistics.
    """
    return BatchNorm(momentum=0.9, epsilon=1e-5, synchronized=synchronized)
