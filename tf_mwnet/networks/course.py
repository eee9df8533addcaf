"""A weight function over the training in which it was learned."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_mwnet.errors import UserError


class Course(tf.Module):
    """Loss and progress of training -> weight, linear between the losses and epochs of a table.

    Weight functions change while they are learned, with the losses that they see: what is right for the
    small losses at the end of a training can be wrong for those at its start. The course of a function
    is what another training can follow from start to end.

    Args:
        losses: P losses in nats, float32 ``[P]``, from 0 and equally far apart.
        weights: the function at the end of each of E epochs, float32 ``[E, P]``, or ``[E, P, G]`` for G
            groups of classes.

    Raises:
        UserError: the shapes do not fit, or the losses are not as above.
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
        """Weights ``[n, G]``, 0 to 1; those of the last row of the table above its largest loss.

        Args:
            loss: ``[n, 1]``.
            progress: share of the training that is done, 0 to 1, ``[n, 1]``. The function of epoch e of
                E stands at (e + 1) / E; before 1 / E there is that of the first.
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
    """The two neighbours of each place in a list of ``count``, and the second one's part ``[n, 1]``.

    A place that is no number has neighbours all the same, and a part that is none.
    """
    place = tf.clip_by_value(place, 0.0, float(count - 1))
    low = tf.floor(tf.where(tf.math.is_nan(place), 0.0, place))
    part = (place - low)[:, None]
    low = tf.cast(low, tf.int32)
    return low, tf.minimum(low + 1, count - 1), part
