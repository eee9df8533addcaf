"""Losses for long-tailed data: they shift the logits by the size of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.methods.class_weights import by_effective_number, checked_sizes, of_labels, sizes_of
from tf_mwnet.methods.erm import ERM
from tf_mwnet.methods.options import Option
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class LogitAdjustment(ERM):
    """Logit-adjusted loss: cross-entropy after the logits are shifted by the log of the class shares.

        loss_i = -log softmax(z_i + tau log pi)_{y_i},    pi_k = n_k / N

    Predictions are made from z itself, which then is as if all classes were equally frequent. With tau
    = 1 it is the balanced softmax (Ren et al., NeurIPS 2020). A run's ``--post_hoc_logit_adjustment``
    shifts the logits of another method after its training.

    Source: Menon et al., ICLR 2021, eq. 10.

    Departures: none.

    Args:
        class_sizes: n_k, training examples of each class as labelled, int ``[K]``. A run fills it in.
        tau: factor of the shift, at least 0; 1 in the paper.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``tau`` is out of range.

    Examples:
        >>> method = tf_mwnet.methods.LogitAdjustment(class_sizes=[500, 50, 5])
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
    """

    shifts_logits = True
    from_run = ("class_sizes",)
    options = (Option("tau", "factor of the log class shares", at_least=0),)

    def __init__(self, class_sizes: Sequence[int], tau: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tau, self.class_sizes = self.option("tau", tau), checked_sizes(class_sizes)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        logits = losses.full_precision(logits)
        shift = self.tau * log_shares(self.class_sizes)
        return losses.cross_entropy(logits + tf.constant(shift, logits.dtype), labels)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"class_sizes": self.class_sizes}


def log_shares(class_sizes: Sequence[int]) -> np.ndarray:
    """Returns the log of the share of each class, ``[K]``; an empty class counts as one example."""
    sizes = sizes_of(class_sizes)
    return np.log(sizes / sizes.sum())


@keras.saving.register_keras_serializable(package="tf_mwnet")
class LDAM(ERM):
    """Label-distribution-aware margin: small classes get a larger margin; later they weigh more, too.

        loss_i = -log softmax(s (cos_i - m_{y_i} y_i))_{y_i},    m_k ~ n_k^(-1/4), at most max_margin
        weight_i = 1 / B,  from drw_start on  w_{y_i} / sum_j w_{y_j},  w_k = (1 - b) / (1 - b^n_k)

    cos_i are the cosines between the features and the vector of each class, y_i the given label as
    one-hot. The classifier gives s cos: a run makes its last layer one of cosines, see
    `networks.with_cosine_head`.

    Source: Cao et al., NeurIPS 2019, eq. 13 and section 3.3, and their code, from which are b = 0.9999
    and the division by the batch's sum of weights.

    Departures: without the warm-up of the learning rate over the first five epochs, which belongs to the
    schedule.

    Args:
        class_sizes: n_k, training examples of each class as labelled, int ``[K]``. A run fills it in.
        max_margin: of the smallest class, at least 0; 0.5 in the authors' code.
        scale: s, above 0; 30 there.
        drw_start: part of the epochs after which the weights begin, 0 to 1; 160 of 200 epochs there. 1
            for never.
        **kwargs: as for `Method`.

    Raises:
        UserError: a value is out of range.

    Examples:
        >>> result = tf_mwnet.run(tf_mwnet.Experiment(method="ldam", imbalance_factor=100))
    """

    from_run = ("class_sizes",)
    options = (
        Option("max_margin", "margin of the smallest class", at_least=0),
        Option("scale", "of the cosines", above=0),
        Option("drw_start", "part of the epochs before small classes weigh more", at_least=0, at_most=1),
    )
    BETA = 0.9999

    def __init__(
        self,
        class_sizes: Sequence[int],
        max_margin: float = 0.5,
        scale: float = 30.0,
        drw_start: float = 0.8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.class_sizes = checked_sizes(class_sizes)
        self.max_margin, self.scale = self.option("max_margin", max_margin), self.option("scale", scale)
        self.cosine_scale = self.scale
        self.drw_start = self.option("drw_start", drw_start)
        self.deferred = self.add_state((), "bool", "deferred")
        self.deferred.assign(True)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.deferred.assign(epoch < self.drw_start * epochs)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        logits = losses.full_precision(logits)
        margin = sizes_of(self.class_sizes) ** -0.25
        margin *= self.scale * self.max_margin / margin.max()
        shift = losses.one_hot(labels, logits) * tf.constant(margin, logits.dtype)
        return losses.cross_entropy(logits - shift, labels)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        weight = of_labels(by_effective_number(self.class_sizes, self.BETA), examples)
        weight = tf.where(tf.convert_to_tensor(self.deferred), tf.ones_like(weight), weight)
        return weight / replicas.all_sum(tf.reduce_sum(weight))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"class_sizes": self.class_sizes}
