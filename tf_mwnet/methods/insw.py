"""Instance weights: one free parameter per training example."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_mwnet import replicas
from tf_mwnet.errors import check_range
from tf_mwnet.methods.base import Method
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class INSW(Method):
    """Learned instance weights: ``softmax(phi)`` over the batch (Hu et al., NeurIPS 2019, section 4.2).

    ``phi`` has one entry per training example, starts at 0, and takes steps of the meta optimizer along
    the meta gradient. Nothing is shared between examples: an entry moves only when its example is in
    the batch (and by the optimizer's momentum), and nothing can be transferred to other data.

    Args:
        num_examples: N, above every row that the training batches carry.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``num_examples`` is below 1.
    """

    learns = True
    needs_meta = True
    from_run = ("num_examples",)
    meta_lr = 0.1  # an entry takes one step per epoch: with 1e-3 the weights would hardly move

    def __init__(self, num_examples: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_range("num_examples", num_examples, 1)
        self.num_examples = int(num_examples)
        self.phi = self.add_weight(shape=(self.num_examples,), initializer="zeros", name="phi")

    def example_weights(self, examples: Examples) -> tf.Tensor:
        phi = tf.convert_to_tensor(self.phi)
        # The largest of all entries, the same on every replica, keeps exp in range.
        largest = tf.stop_gradient(tf.reduce_max(phi))
        values = tf.exp(tf.gather(phi, examples.index) - largest)
        total = replicas.all_sum(tf.reduce_sum(values))
        return tf.cast(tf.math.divide_no_nan(values, total), examples.losses.dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_examples": self.num_examples}
