"""Plain training with a loss other than cross-entropy: all weights are 1/B.

In the equations p is the softmax of the logits, and p_y the probability of the given label.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_mwnet import losses
from tf_mwnet.methods.erm import ERM
from tf_mwnet.methods.options import Option


@keras.saving.register_keras_serializable(package="tf_mwnet")
class Focal(ERM):
    """Focal loss: examples that are already fitted count less.

        loss_i = -(1 - p_y)^gamma log p_y

    Source: Lin et al., ICCV 2017, eq. 4. See `losses.focal`.

    Departures: the loss of a softmax, where the paper has a sigmoid for each class, and without its
    class weights; `ClassBalanced` with ``loss="focal"`` has class weights.

    Args:
        gamma: exponent, at least 0; 2 in the paper. 0 is cross-entropy.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``gamma`` is out of range.

    Examples:
        >>> model = tf_mwnet.ReweightedModel(classifier, "focal --gamma=1")
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
    """Generalised cross-entropy: a loss between cross-entropy and mean absolute error.

        loss_i = (1 - p_y^q) / q

    Source: Zhang and Sabuncu, NeurIPS 2018, eq. 6. See `losses.generalised_cross_entropy`.

    Departures: without the truncation and the pruning of the paper's second half.

    Args:
        q: exponent, above 0 and at most 1; 0.7 in the paper. Near 0 the loss is cross-entropy, at 1 it
            is half the mean absolute error.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``q`` is out of range.

    Examples:
        >>> model = tf_mwnet.ReweightedModel(classifier, "gce --q=0.5")
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
    """Symmetric cross-entropy: cross-entropy plus its reverse, with prediction and label exchanged.

        loss_i = -alpha log p_y - beta sum_k p_k log y_k,    with log 0 = log_zero

    Source: Wang et al., ICCV 2019. See `losses.symmetric_cross_entropy`.

    Departures: log 0 is -4 as in the paper; the authors' code clips the labels at 1e-4, which is
    ``log_zero=-9.21``. The published rows of other papers do not say which they used.

    Args:
        alpha: factor of cross-entropy, at least 0; 0.1 in the paper for CIFAR-10.
        beta: factor of reverse cross-entropy, at least 0; 1 in the paper.
        log_zero: stands for log 0 in reverse cross-entropy, below 0.
        **kwargs: as for `Method`.

    Raises:
        UserError: a factor or ``log_zero`` is out of range.

    Examples:
        >>> model = tf_mwnet.ReweightedModel(classifier, "sce --alpha=0.5")
    """

    options = (
        Option("alpha", "factor of cross-entropy", at_least=0),
        Option("beta", "factor of reverse cross-entropy", at_least=0),
        Option("log_zero", "stands for log 0 in reverse cross-entropy", below=0),
    )

    def __init__(
        self, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.alpha = self.option("alpha", alpha)
        self.beta = self.option("beta", beta)
        self.log_zero = self.option("log_zero", log_zero)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        return losses.symmetric_cross_entropy(logits, labels, self.alpha, self.beta, self.log_zero)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MAE(ERM):
    """Mean absolute error between the class probabilities and the one-hot label.

        loss_i = sum_k |p_k - y_k| = 2 (1 - p_y)

    Source: Ghosh et al., AAAI 2017. See `losses.mean_absolute_error`.

    Departures: none.

    Args:
        **kwargs: as for `Method`.

    Examples:
        >>> model = tf_mwnet.ReweightedModel(classifier, "mae")
    """

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        return losses.mean_absolute_error(logits, labels)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class BootstrapHard(ERM):
    """Hard bootstrapping: cross-entropy with a mix of the given label and the predicted class.

        loss_i = -sum_k (beta y_k + (1 - beta) c_k) log p_k,    c the predicted class, one-hot

    Source: Reed et al., ICLR 2015 workshop, eq. 7. See `losses.bootstrap_hard`.

    Departures: none.

    Args:
        beta: share of the given label, 0 to 1; 0.8 in the paper.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``beta`` is out of range.

    Examples:
        >>> model = tf_mwnet.ReweightedModel(classifier, "bootstrap_hard --beta=0.9")
    """

    options = (Option("beta", "share of the given label", at_least=0, at_most=1),)
    bootstrap = staticmethod(losses.bootstrap_hard)

    def __init__(self, beta: float = 0.8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.beta = self.option("beta", beta)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        return self.bootstrap(logits, labels, self.beta)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class BootstrapSoft(BootstrapHard):
    """Soft bootstrapping: cross-entropy with a mix of the given label and the predicted probabilities.

        loss_i = -sum_k (beta y_k + (1 - beta) p_k) log p_k

    Source: Reed et al., ICLR 2015 workshop, eq. 6. See `losses.bootstrap_soft`; the prediction in the
    target is differentiated too.

    Departures: none.

    Args:
        beta: share of the given label, 0 to 1; 0.95 in the paper.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``beta`` is out of range.

    Examples:
        >>> model = tf_mwnet.ReweightedModel(classifier, "bootstrap_soft")
    """

    bootstrap = staticmethod(losses.bootstrap_soft)

    def __init__(self, beta: float = 0.95, **kwargs: Any) -> None:
        super().__init__(beta, **kwargs)
