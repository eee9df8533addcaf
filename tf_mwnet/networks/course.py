"""A weight function over the course of the training in which it was learned."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_mwnet.errors import UserError


class Course(tf.Module):
    """Maps loss and progress of training to a weight: a table with linear interpolation.

    A weight function changes while it is learned, as the losses that it sees shrink. The function at the
    end of training fits small losses and can be wrong for the large ones at the start. Another training
    can follow the course of the function instead, from start to end.

    Examples:
        >>> course = Course(np.array([0, 1, 2]), np.array([[0.2, 0.4, 0.6], [0.8, 0.4, 0.0]]))
        >>> at_the_end = tf.constant([[1.0]])
        >>> course(tf.constant([[0.5]]), at_the_end).numpy()
        array([[0.6]], dtype=float32)

    Args:
        losses: P losses in nats, float32 ``[P]``, from 0 and equally spaced.
        weights: the function at the end of each of E epochs, float32 ``[E, P]``, or ``[E, P, G]`` for G
            groups of classes.

    Raises:
        UserError: the shapes do not match, or the losses do not start at 0 or are not equally spaced.
    """

    def __init__(self, losses: np.ndarray, weights: np.ndarray):
        super().__init__()
        losses, weights = np.asarray(losses, np.float32), np.asarray(weights, np.float32)
        if weights.ndim not in (2, 3) or losses.ndim != 1 or weights.shape[1] != len(losses):
            raise UserError(
                f"weights of shape {weights.shape} for losses of shape {losses.shape}; allowed: [E, P]"
                " or [E, P, G] for [P]"
            )
        steps = np.diff(losses)
        if len(losses) < 2 or losses[0] != 0 or not np.allclose(steps, steps[0], rtol=1e-3):
            raise UserError(
                f"{len(losses)} losses from {losses[:1]}; allowed: two or more from 0, equally far apart"
            )
        self.step = float(losses[-1]) / (len(losses) - 1)
        table = weights if weights.ndim == 3 else weights[..., None]
        self.table = tf.Variable(table, trainable=False, name="course")

    def __call__(self, loss: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        """Returns weights ``[n, G]``, 0 to 1. Above the largest loss, those of the largest loss.

        Args:
            loss: ``[n, 1]``, in nats.
            progress: completed share of the training, 0 to 1, ``[n, 1]``. The table's epoch e of E is
                the function at (e + 1) / E; below 1 / E the first epoch's function is used.
        """
        epochs, points, _ = self.table.shape
        early, late, mix = _between(progress[:, 0] * epochs - 1, epochs)
        below, above, share = _between(loss[:, 0] / self.step, points)

        def at(epoch: tf.Tensor) -> tf.Tensor:
            low = tf.gather_nd(self.table, tf.stack([epoch, below], axis=1))
            high = tf.gather_nd(self.table, tf.stack([epoch, above], axis=1))
            return low + share * (high - low)

        first, second = at(early), at(late)
        return first + mix * (second - first)


def _between(place: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns both neighbours of each place in a list of ``count``, and the second's share, ``[n, 1]``.

    A place that is NaN gets valid neighbours and a share of NaN.
    """
    place = tf.clip_by_value(place, 0.0, float(count - 1))
    low = tf.floor(tf.where(tf.math.is_nan(place), 0.0, place))
    part = (place - low)[:, None]
    low = tf.cast(low, tf.int32)
    return low, tf.minimum(low + 1, count - 1), part
