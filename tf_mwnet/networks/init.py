"""What the networks share: seeds, initialisers, and batch norm as the papers have it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tf_mwnet.networks.batch_norm import BatchNorm


class Seeds:
    """Calls return a new int seed each; the sequence depends on ``seed`` alone."""

    def __init__(self, seed: int):
        self._generator = np.random.default_rng(seed)

    def __call__(self) -> int:
        return int(self._generator.integers(2**31 - 1))

    def he_normal(self) -> keras.initializers.Initializer:
        """He et al. (ICCV 2015), fan in."""
        return keras.initializers.HeNormal(seed=self())

    def conv(
        self, filters: int, size: int, strides: int = 1, use_bias: bool = False, **kwargs: Any
    ) -> keras.layers.Conv2D:
        """A same-padded convolution with He initialisation."""
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
        return keras.layers.Dense(units, kernel_initializer=self.he_normal(), **kwargs)


def batch_norm(synchronized: bool = False) -> keras.layers.BatchNormalization:
    """Batch norm with the papers' momentum 0.9 and epsilon 1e-5 (Keras: 0.99 and 1e-3).

    Args:
        synchronized: whether replicas share their batch statistics.
    """
    return BatchNorm(momentum=0.9, epsilon=1e-5, synchronized=synchronized)
