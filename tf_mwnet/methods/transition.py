"""Losses corrected by a noise transition matrix T that is known, estimated or learned.

``T[i, j]`` is the probability that an example of true class i is labelled j.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses
from tf_mwnet.errors import UserError
from tf_mwnet.methods.erm import ERM
from tf_mwnet.methods.options import Option
from tf_mwnet.types import Head, Outputs

SMALLEST = 1e-6  # of a matrix's entries under a logarithm


def checked(matrix: Sequence[Sequence[float]]) -> np.ndarray:
    """Converts a transition matrix to float64 ``[K, K]``; raises ``UserError`` if it is not one."""
    entries = np.asarray(matrix, np.float64)
    square = entries.ndim == 2 and entries.shape[0] == entries.shape[1]
    if not square or entries.min() < 0 or np.abs(entries.sum(axis=1) - 1).max() > 1e-4:
        raise UserError(
            f"transition has the shape {entries.shape}; allowed: (K, K), not negative, rows that sum"
            " to 1"
        )
    return entries


def smoothed_identity(num_classes: int, smoothing: float) -> np.ndarray:
    """Returns a ``[K, K]`` matrix with ``1 - e`` on the diagonal and ``e / (K - 1)`` off it.

    Args:
        num_classes: K, at least 2.
        smoothing: e, 0 to 1.
    """
    off = np.full((num_classes, num_classes), smoothing / (num_classes - 1))
    np.fill_diagonal(off, 1 - smoothing)
    return off


def confusion(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the share of each given label j among the examples predicted as class i, ``[K, K]``.

    The row of a class that is never predicted is that of the identity.

    Args:
        probabilities: class probabilities from a trained classifier, float ``[N, K]``.
        labels: given labels, int ``[N]`` in 0..K-1.
    """
    count = probabilities.shape[1]
    table = np.zeros((count, count))
    np.add.at(table, (probabilities.argmax(axis=1), labels), 1)
    sums = table.sum(axis=1, keepdims=True)
    return np.where(sums > 0, table / np.maximum(sums, 1), np.eye(count))


def anchors(probabilities: np.ndarray, labels: np.ndarray, percentile: float = 97.0) -> np.ndarray:
    """Estimates T from anchor points, the training examples that are surest of their class, ``[K, K]``.

        T[i, j] = p(j | x_i),    x_i the example at a percentile of p(i | x)

    Source: Patrini et al., CVPR 2017, eq. 12-13.

    Args:
        probabilities: class probabilities from a classifier trained on the noisy labels, float
            ``[N, K]``.
        labels: given labels, int ``[N]`` in 0..K-1.
        percentile: 0 to 100; 97 in the authors' code instead of the largest, which may be an outlier.
            For a class with fewer than twice as many given labels as there are examples above the
            percentile, the example there would be of another class: the largest is taken, as the
            authors do with 100 classes.
    """
    rows, size = [], len(probabilities)
    place = int(np.ceil(percentile / 100 * size)) - 1
    for k in range(probabilities.shape[1]):
        order = np.argsort(probabilities[:, k], kind="stable")
        large = (labels == k).sum() >= 2 * (size - 1 - place)
        rows.append(probabilities[order[place if large else size - 1]])
    return np.array(rows)


def mean_prediction(probabilities: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Estimates T as the mean prediction on the trusted examples of each class, ``[K, K]``.

        T[i, j] = mean of p(j | x) over the trusted examples x of class i

    Source: Hendrycks et al., NeurIPS 2018, eq. 1.

    Args:
        probabilities: class probabilities of the trusted examples, from a classifier trained on the
            noisy labels, float ``[M, K]``.
        true: their true labels, int ``[M]``, each class at least once.
    """
    return np.stack([probabilities[true == k].mean(axis=0) for k in range(probabilities.shape[1])])


@keras.saving.register_keras_serializable(package="tf_mwnet")
class Forward(ERM):
    """Forward correction: cross-entropy of the noisy labels that T makes of the prediction.

        loss_i = -log sum_k p_k T[k, y],    weight_i = 1 / B

    p is the softmax of the logits, y the given label. A run trains plainly for half of its epochs,
    estimates T with `anchors`, and starts again with the corrected loss for the other half.

    Source: Patrini et al., CVPR 2017, Theorem 2.

    Departures: both stages have half of the epochs, so that a run costs as much as plain training; the
    authors train twice in full.

    Args:
        transition: T, float ``[K, K]``, row = true class, rows sum to 1. A run estimates it.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``transition`` is not a transition matrix; in `prepare`, it has another number of
            classes than the classifier.

    Examples:
        >>> method = tf_mwnet.methods.Forward([[0.8, 0.2], [0.3, 0.7]])
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
    """

    def __init__(self, transition: Sequence[Sequence[float]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.transition = checked(transition)

    @classmethod
    def first_stage(cls, arguments: dict[str, Any]) -> str:
        return "erm"

    @classmethod
    def estimate(cls, outputs: Outputs) -> dict[str, Any]:
        return {"transition": anchors(outputs.train, outputs.labels)}

    def prepare(self, head: Head) -> None:
        super().prepare(head)
        if head.num_classes not in (None, len(self.transition)):
            count = head.num_classes
            raise UserError(f"transition is {self.transition.shape}; allowed: ({count}, {count})")

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        logits = losses.full_precision(logits)
        log = tf.math.log(tf.constant(np.maximum(self.transition, SMALLEST), logits.dtype))
        return losses.forward_corrected(logits, labels, log)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"transition": self.transition.tolist()}


@keras.saving.register_keras_serializable(package="tf_mwnet")
class SModel(ERM):
    """Noise adaptation layer: a transition matrix that is learned together with the classifier.

        loss_i = -log sum_k p_k T[k, y],    weight_i = 1 / B

    p is the softmax of the logits, y the given label, and T the row softmax of free parameters. This is
    the simple version of the paper. T starts as a smoothed identity, or as a confusion matrix (L2RW's
    "+Conf"). The classifier's optimizer trains its parameters, with its L2 regularisation. At inference
    the layer is left out.

    Source: Goldberger and Ben-Reuven, ICLR 2017.

    Departures: the classifier's optimizer trains T too; the authors use Adam for both.

    Args:
        s_model_init: "identity" or "confusion". With "confusion" a run trains plainly for half of its
            epochs, takes the `confusion` matrix as ``initial``, and starts again for the other half.
        initial: T at the start, float ``[K, K]``, rows sum to 1; None for the smoothed identity.
        smoothing: share off the diagonal of the smoothed identity, above 0 and below 1.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``initial`` is not a transition matrix, or is missing for "confusion"; in `prepare`,
            the classifier's number of classes is unknown.

    Examples:
        >>> model = tf_mwnet.ReweightedModel(classifier, "s_model --smoothing=0.2")
    """

    options = (
        Option("s_model_init", "transition matrix at the start", choices=("identity", "confusion")),
        Option("smoothing", "share off the diagonal of the identity", above=0, below=1),
    )

    def __init__(
        self,
        s_model_init: str = "identity",
        initial: Sequence[Sequence[float]] | None = None,
        smoothing: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.s_model_init = self.option("s_model_init", s_model_init)
        if s_model_init == "confusion" and initial is None:
            raise UserError("s_model_init is 'confusion' without initial; allowed: with the matrix")
        self.initial = None if initial is None else checked(initial)
        self.smoothing = self.option("smoothing", smoothing)
        self.scores: keras.Variable | None = None

    @classmethod
    def first_stage(cls, arguments: dict[str, Any]) -> str:
        return "erm" if arguments.get("s_model_init") == "confusion" else ""

    @classmethod
    def estimate(cls, outputs: Outputs) -> dict[str, Any]:
        return {"initial": confusion(outputs.train, outputs.labels)}

    def prepare(self, head: Head) -> None:
        super().prepare(head)
        if self.scores is not None:
            return
        if head.num_classes is None:
            raise UserError(f"method s_model got classifier '{head.name}'; allowed: a functional model")
        start = self.initial
        if start is None:
            start = smoothed_identity(head.num_classes, self.smoothing)
        scores = self.add_weight(shape=start.shape, initializer="zeros", name="scores")
        scores.assign(np.log(np.maximum(start, SMALLEST)))
        self.scores = scores

    def transition(self) -> tf.Tensor:
        """Returns the current T, ``[K, K]``."""
        return tf.nn.softmax(tf.convert_to_tensor(self.scores), axis=1)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        logits = losses.full_precision(logits)
        log = tf.nn.log_softmax(tf.cast(tf.convert_to_tensor(self.scores), logits.dtype), axis=1)
        return losses.forward_corrected(logits, labels, log)

    def get_config(self) -> dict[str, Any]:
        initial = None if self.initial is None else self.initial.tolist()
        return super().get_config() | {"initial": initial}
