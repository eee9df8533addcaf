"""Changes of a training batch within its step: mixup, and smoothed labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_mwnet import losses
from tf_mwnet.errors import UserError
from tf_mwnet.methods.base import Method

LARGEST_ALPHA = 1000.0  # a Beta distribution that is all but a point

# logits, labels, rows -> example losses
LossOf = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class Mix(NamedTuple):
    """How the examples of a batch are mixed.

    Attributes:
        share: l, of an example in its own mixed input, 0.5 to 1.
        partner: int ``[b]``, with whom each is mixed.
        back: int ``[b]``, in whose mixed input each has the share 1 - l.
    """

    share: tf.Tensor
    partner: tf.Tensor
    back: tf.Tensor


def draw(alpha: float, size: tf.Tensor, seed: int, step: tf.Tensor, of_meta: bool = False) -> Mix:
    """Draws ``max(l, 1 - l)``, l from Beta(alpha, alpha), and an order of the batch.

    Args:
        alpha: above 0.
        size: b.
        seed, step: of the draw, which is the same each time.
        of_meta: draws those of the meta batch, which are others.
    """
    seeds = tf.stack([tf.cast(seed, tf.int32), tf.cast(step, tf.int32)])
    seeds = tf.random.experimental.stateless_fold_in(seeds, 1) if of_meta else seeds
    gammas = tf.random.stateless_gamma([2], seeds, alpha=alpha)
    share = gammas[0] / tf.reduce_sum(gammas)
    share = tf.where(tf.math.is_finite(share), tf.maximum(share, 1 - share), 1.0)
    partner = tf.argsort(tf.random.stateless_uniform([size], seeds + tf.constant([1, 0])))
    return Mix(share, partner, tf.argsort(partner))


def inputs(mix: Mix, x: Any) -> Any:
    """Mixes inputs: ``l x_i + (1 - l) x_partner(i)``."""

    def mixed(part: tf.Tensor) -> tf.Tensor:
        part = tf.convert_to_tensor(part)
        if part.dtype == tf.uint8:
            part = tf.cast(part, tf.float32)
        if not part.dtype.is_floating:
            raise UserError(f"mixup got inputs of {part.dtype.name}; allowed: images and other floats")
        share = tf.cast(mix.share, part.dtype)
        return share * part + (1 - share) * tf.gather(part, mix.partner)

    return tf.nest.map_structure(mixed, x)


def example_losses(
    mix: Mix | None, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor, loss_of: LossOf
) -> tf.Tensor:
    """Computes the loss of each example's own label, over the mixed inputs that it is part of.

        loss_i = l L(z_i, y_i) + (1 - l) L(z_back(i), y_i)

    The sum over the batch is that of mixup (Zhang et al., ICLR 2018), in another order: so each example
    keeps its own label, weight and record.

    Args:
        mix: None for nothing.
        logits: of the mixed inputs, ``[b, K]``.
        labels, index: of the examples.
        loss_of: see `tf_mwnet.methods.Method.example_losses`.
    """
    own = loss_of(logits, labels, index)
    if mix is None:
        return own
    share = tf.cast(mix.share, own.dtype)
    return share * own + (1 - share) * loss_of(tf.gather(logits, mix.back), labels, index)


def check_smoothing(method: Method, smoothing: float) -> None:
    """Raises ``UserError`` if labels are to be smoothed for a method that has targets of its own."""
    if smoothing and not method.smooths_labels:
        raise UserError(
            f"label_smoothing is {smoothing:g} with {type(method).__name__}, which has targets of its"
            " own; allowed: 0, or another method"
        )


def smoothed(labels: tf.Tensor, logits: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Returns labels as ``(1 - e) y + e / K``, ``[B, K]``; unchanged for e = 0."""
    if not smoothing:
        return labels
    hot = losses.one_hot(labels, losses.full_precision(logits))
    return (1 - smoothing) * hot + smoothing / hot.shape[-1]
