"""Plain training with other losses."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_mwnet import losses
from tf_mwnet.methods.erm import ERM
from tf_mwnet.methods.options import Option


@keras.saving.register_keras_serializable(package="tf_mwnet")
class Focal(ERM):
    """Focal loss ``-(1 - p_y)^gamma log p_y`` (Lin et al., ICCV 2017, eq. 4, without class weights).

    Args:
        gamma: not negative; 2 in the paper, 0 is cross-entropy.
    """

    options = (Option("gamma", "exponent of 1 - p; 0 is cross-entropy", at_least=0),)

    def __init__(self, gamma: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gamma = self.option("gamma", gamma)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        return losses.focal(logits, labels, self.gamma)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class GCE(ERM):
    """Generalised cross-entropy, see `losses.generalised_cross_entropy`.

    Args:
        q: above 0, at most 1; 0.7 in the paper.
    """

    options = (
        Option("q", "from cross-entropy (near 0) to mean absolute error (1)", above=0, at_most=1),
    )

    def __init__(self, q: float = 0.7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.q = self.option("q", q)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        return losses.generalised_cross_entropy(logits, labels, self.q)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class SCE(ERM):
    """Symmetric cross-entropy, see `losses.symmetric_cross_entropy`.

    Args:
        alpha: factor of cross-entropy, not negative; 0.1 in the paper for CIFAR-10.
        beta: factor of reverse cross-entropy, not negative; 1 in the paper.
    """

    options = (
        Option("alpha", "factor of cross-entropy", at_least=0),
        Option("beta", "factor of reverse cross-entropy", at_least=0),
    )

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = self.option("alpha", alpha)
        self.beta = self.option("beta", beta)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        return losses.symmetric_cross_entropy(logits, labels, self.alpha, self.beta)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MAE(ERM):
    """Mean absolute error ``2 (1 - p_y)`` (Ghosh et al., AAAI 2017)."""

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        return losses.mean_absolute_error(logits, labels)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class BootstrapHard(ERM):
    """Hard bootstrapping (Reed et al., ICLR 2015 workshop, eq. 7), see `losses.bootstrap_hard`.

    Args:
        beta: share of the given label, 0 to 1; 0.8 in the paper.
    """

    options = (Option("beta", "share of the given label", at_least=0, at_most=1),)
    loss = staticmethod(losses.bootstrap_hard)

    def __init__(self, beta: float = 0.8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.beta = self.option("beta", beta)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        return self.loss(logits, labels, self.beta)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class BootstrapSoft(BootstrapHard):
    """Soft bootstrapping (Reed et al., eq. 6), see `losses.bootstrap_soft`.

    Args:
        beta: share of the given label, 0 to 1; 0.95 in the paper.
    """

    loss = staticmethod(losses.bootstrap_soft)

    def __init__(self, beta: float = 0.95, **kwargs: Any) -> None:
        super().__init__(beta, **kwargs)
