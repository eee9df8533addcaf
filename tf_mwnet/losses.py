"""Losses per example: pure functions of logits ``[B, K]`` and labels, not reduced."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tf_mwnet.errors import UserError

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def claim_symmetric(loss: Loss) -> Loss:
    """Marks a loss as symmetric: ``sum_k loss(z, k)`` is the same for all logits z.

    Under noise ``(1 - p) I + p / K`` its expected gradient is (1 - p) times the one on clean labels
    (RMNW-Net, Theorem 1). The claim is checked where the loss meets a classifier, see
    `check_symmetry`.
    """
    loss.__dict__["symmetric"] = True
    return loss


def check_symmetry(loss: Loss, num_classes: int) -> None:
    """Raises ``UserError`` if a loss that claims to be symmetric is not, for K classes."""
    if not getattr(loss, "symmetric", False):
        return
    logits = np.random.default_rng(0).normal(0, 3, (16, num_classes))
    each = [loss(tf.constant(logits), tf.fill([16], k)) for k in range(num_classes)]
    sums = tf.add_n(each).numpy()
    if not np.ptp(sums) < 1e-6 * np.abs(sums).max():
        name = getattr(loss, "__name__", loss)
        raise UserError(
            f"meta_loss '{name}' claims to be symmetric, but its sum over {num_classes} labels"
            f" goes from {sums.min():.4g} to {sums.max():.4g}; allowed: a constant sum, or no claim"
        )


def full_precision(logits: tf.Tensor) -> tf.Tensor:
    """Converts float16 and bfloat16 to float32; keeps float32 and float64."""
    return tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Computes ``-sum_k y_k log softmax(z)_k``.

    Args:
        logits: float ``[B, K]``.
        labels: integer ``[B]`` or ``[B, 1]`` in 0..K-1, or class probabilities ``[B, K]``.

    Returns:
        float ``[B]`` in nats, at least float32.

    Examples:
        >>> float(cross_entropy(tf.zeros([1, 4]), tf.constant([2]))[0])  # log 4
        1.3862943649291992
    """
    logits = full_precision(logits)
    if are_dense(labels, logits):
        labels = tf.cast(labels, logits.dtype)
        return tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def are_dense(labels: tf.Tensor, logits: tf.Tensor) -> bool:
    """Tells class probabilities ``[B, K]`` from integer labels ``[B]`` or ``[B, 1]``."""
    return labels.shape.rank == 2 and labels.shape[-1] == logits.shape[-1] and logits.shape[-1] != 1


def one_hot(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Converts labels to ``[B, K]`` of the logits' type."""
    if are_dense(labels, logits):
        return tf.cast(labels, logits.dtype)
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    return tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)


@claim_symmetric
def mean_absolute_error(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Computes ``sum_k |u_k - y_k|``, u = softmax(z): ``2 (1 - u_y)`` for an integer label; 0 to 2.

    Symmetric: summed over all labels it is 2 (K - 1). Ghosh et al. (AAAI 2017).
    """
    logits = full_precision(logits)
    return tf.reduce_sum(tf.abs(tf.nn.softmax(logits) - one_hot(labels, logits)), axis=-1)


def generalised_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, q: float | tf.Tensor = 0.7
) -> tf.Tensor:
    """Computes ``(1 - u_y^q) / q`` (Zhang and Sabuncu, NeurIPS 2018, eq. 6): cross-entropy as q -> 0."""
    return (1 - tf.exp(-q * cross_entropy(logits, labels))) / q


def scaled_generalised_cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Computes the generalised cross-entropy with ``q = log 7 / log K``, and 1 up to seven classes.

    The slope of a label's term in its logit has the factor ``u_y^q``. With one q for any K it vanishes
    at the start, where u_y is 1 / K, as K grows; with this one it is a seventh there. With ten classes
    q is 0.85, with a hundred 0.42. Not from a paper.
    """
    logits = full_precision(logits)
    classes = tf.cast(tf.maximum(tf.shape(logits)[-1], 7), logits.dtype)
    return generalised_cross_entropy(logits, labels, math.log(7) / tf.math.log(classes))


def symmetric_cross_entropy(
    logits: tf.Tensor,
    labels: tf.Tensor,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
) -> tf.Tensor:
    """Computes ``alpha CE + beta RCE`` (Wang et al., ICCV 2019).

    RCE is the reverse cross-entropy ``-sum_k u_k log y_k`` with ``log 0 = log_zero``. Only this part
    is symmetric in the sense of `claim_symmetric`.
    """
    logits = full_precision(logits)
    reverse = -log_zero * (1 - tf.reduce_sum(tf.nn.softmax(logits) * one_hot(labels, logits), axis=-1))
    return alpha * cross_entropy(logits, labels) + beta * reverse


@claim_symmetric
def normalised_cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Computes ``log u_y / sum_k log u_k``, 0 to 1 (Ma et al., ICML 2020, eq. 5). Symmetric: sum 1."""
    log = tf.nn.log_softmax(full_precision(logits))
    return tf.reduce_sum(one_hot(labels, log) * log, axis=-1) / tf.reduce_sum(log, axis=-1)


def focal(logits: tf.Tensor, labels: tf.Tensor, gamma: float = 2.0) -> tf.Tensor:
    """Computes ``-(1 - u_y)^gamma log u_y`` (Lin et al., ICCV 2017, eq. 4)."""
    loss = cross_entropy(logits, labels)
    # 1 - exp(-l) without cancellation; the tiny floor keeps the power's slope finite at l = 0.
    rest = tf.maximum(-tf.math.expm1(-loss), 1e-12)
    return rest**gamma * loss


def bootstrap_soft(logits: tf.Tensor, labels: tf.Tensor, beta: float = 0.95) -> tf.Tensor:
    """Computes ``-sum_k (beta y_k + (1 - beta) u_k) log u_k`` (Reed et al., 2015, eq. 6).

    The prediction u in the target is differentiated too, which adds an entropy penalty.
    """
    logits = full_precision(logits)
    log = tf.nn.log_softmax(logits)
    return -tf.reduce_sum((beta * one_hot(labels, log) + (1 - beta) * tf.exp(log)) * log, axis=-1)


def bootstrap_hard(logits: tf.Tensor, labels: tf.Tensor, beta: float = 0.8) -> tf.Tensor:
    """Computes ``-sum_k (beta y_k + (1 - beta) z_k) log u_k``, z the prediction (Reed et al., eq. 7)."""
    logits = full_precision(logits)
    of_predicted = cross_entropy(logits, tf.argmax(logits, axis=-1))
    return beta * cross_entropy(logits, labels) + (1 - beta) * of_predicted


def forward_corrected(logits: tf.Tensor, labels: tf.Tensor, log_transition: tf.Tensor) -> tf.Tensor:
    """Computes ``-log sum_k u_k T[k, y]``, the cross-entropy of the prediction corrupted by T.

    Args:
        logits: ``[B, K]``.
        labels: integer ``[B]`` or class probabilities ``[B, K]``.
        log_transition: log T, ``[K, K]``, row = true class, of the logits' type.
    """
    log = tf.nn.log_softmax(full_precision(logits))
    noisy = tf.reduce_logsumexp(log[:, :, None] + log_transition[None], axis=1)
    return -tf.reduce_sum(one_hot(labels, noisy) * noisy, axis=-1)


# Meta losses, and losses to train on, by name: logits [B, K], labels -> [B].
LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "mae": mean_absolute_error,
    "gce": generalised_cross_entropy,
    "scaled_gce": scaled_generalised_cross_entropy,
    "sce": symmetric_cross_entropy,
    "nce": normalised_cross_entropy,
}
TRAINING: dict[str, Loss] = LOSSES | {"focal": focal}
