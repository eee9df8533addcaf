"""Plain training on another loss."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_mwnet import losses
from tf_mwnet.errors import check_range
from tf_mwnet.methods.erm import ERM


class AnotherLoss(ERM):
    """Every example has weight 1/B, as in `ERM`; the loss differs.

    Attributes:
        settings: names of the loss's own settings, which are constructor arguments and attributes.
    """

    settings: tuple[str, ...] = ()

    def get_config(self):
        return super().get_config() | {name: getattr(self, name) for name in self.settings}


@keras.saving.register_keras_serializable(package="tf_mwnet")
class Focal(AnotherLoss):
    """Focal loss ``-(1 - p_y)^gamma log p_y`` (Lin et al., ICCV 2017, eq. 4, without class weights).

    Args:
        gamma: not negative; 2 in the paper, 0 is cross-entropy.
    """

    settings = ("gamma",)

    def __init__(self, gamma: float = 2.0, **kwargs):
        super().__init__(**kwargs)
        check_range("gamma", gamma, 0)
        self.gamma = float(gamma)

    def example_losses(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return losses.focal(logits, labels, self.gamma)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class GCE(AnotherLoss):
    """Generalised cross-entropy, see `losses.generalised_cross_entropy`.

    Args:
        q: above 0, at most 1; 0.7 in the paper.
    """

    settings = ("q",)

    def __init__(self, q: float = 0.7, **kwargs):
        super().__init__(**kwargs)
        check_range("q", q, 1e-6, 1)
        self.q = float(q)

    def example_losses(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return losses.generalised_cross_entropy(logits, labels, self.q)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class SCE(AnotherLoss):
    """Symmetric cross-entropy, see `losses.symmetric_cross_entropy`.

    Args:
        alpha: factor of cross-entropy, not negative; 0.1 in the paper for CIFAR-10.
        beta: factor of reverse cross-entropy, not negative; 1 in the paper.
    """

    settings = ("alpha", "beta")

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        check_range("alpha", alpha, 0)
        check_range("beta", beta, 0)
        self.alpha, self.beta = float(alpha), float(beta)

    def example_losses(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return losses.symmetric_cross_entropy(logits, labels, self.alpha, self.beta)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MAE(AnotherLoss):
    """Mean absolute error ``2 (1 - p_y)`` (Ghosh et al., AAAI 2017)."""

    def example_losses(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return losses.mean_absolute_error(logits, labels)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class BootstrapHard(AnotherLoss):
    """Hard bootstrapping (Reed et al., ICLR 2015 workshop, eq. 7), see `losses.bootstrap_hard`.

    Args:
        beta: share of the given label, 0 to 1; 0.8 in the paper.
    """

    settings = ("beta",)
    loss = staticmethod(losses.bootstrap_hard)

    def __init__(self, beta: float = 0.8, **kwargs):
        super().__init__(**kwargs)
        check_range("beta", beta, 0, 1)
        self.beta = float(beta)

    def example_losses(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return self.loss(logits, labels, self.beta)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class BootstrapSoft(BootstrapHard):
    """Soft bootstrapping (Reed et al., eq. 6), see `losses.bootstrap_soft`.

    Args:
        beta: share of the given label, 0 to 1; 0.95 in the paper.
    """

    loss = staticmethod(losses.bootstrap_soft)

    def __init__(self, beta: float = 0.95, **kwargs):
        super().__init__(beta, **kwargs)
