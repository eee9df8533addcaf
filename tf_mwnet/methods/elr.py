"""Early-learning regularisation."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.methods.erm import ERM
from tf_mwnet.methods.options import Option
from tf_mwnet.methods.targets import clipped, predicted
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class ELR(ERM):
    """Early-learning regularisation: keeps the prediction of each example near its own moving average.

        t_i <- beta t_i + (1 - beta) p_i / sum_k p_ik
        loss_i = -log softmax(z_i)_{y_i} + lambda log(1 - sum_k t_ik p_ik)

    z are the logits and p their softmax, clipped to 1e-4 .. 1 - 1e-4; t starts at 0, and no gradient
    goes through it. The second term is lowest, and below 0, where the prediction agrees with what it was
    before wrong labels were learned.

    Source: Liu et al., NeurIPS 2020, eq. 6 and 9, and their code.

    Departures: none of ELR; ELR+, which adds a second network, mixup and weight averaging, is left out.

    Args:
        num_examples: N, number of training examples, at least 1; above every row that the training
            batches carry. A run fills it in.
        num_classes: K. A run fills it in.
        beta: of the moving average, 0 to below 1; 0.7 for CIFAR-10 (0.9 with asymmetric noise), 0.9 for
            CIFAR-100.
        strength: lambda, at least 0; 3 for CIFAR-10 (1 with asymmetric noise), 7 for CIFAR-100.
        **kwargs: as for `Method`.

    Raises:
        UserError: a value is out of range.

    Examples:
        >>> config = tf_mwnet.Experiment(method="elr --beta=0.9 --strength=7", compare="erm")
    """

    from_run = ("num_examples", "num_classes")
    options = (
        Option("beta", "of the moving average of predictions", at_least=0, below=1),
        Option("strength", "lambda, factor of the regulariser", at_least=0),
    )

    def __init__(
        self,
        num_examples: int,
        num_classes: int,
        beta: float = 0.7,
        strength: float = 3.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_examples = self.example_count(num_examples)
        self.num_classes = int(num_classes)
        self.beta, self.strength = self.option("beta", beta), self.option("strength", strength)
        shape = (self.num_examples, self.num_classes)
        self.average = self.add_state(shape, keras.config.floatx(), "average")

    def _averaged(self, p: tf.Tensor, index: tf.Tensor | None) -> tf.Tensor:
        """Returns t of a batch with the prediction p ``[B, K]`` taken in."""
        p = tf.stop_gradient(p / tf.reduce_sum(p, axis=1, keepdims=True))
        if index is None:
            return (1 - self.beta) * p
        before = tf.gather(tf.convert_to_tensor(self.average), index)
        return self.beta * tf.cast(before, p.dtype) + (1 - self.beta) * p

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        p = clipped(tf.nn.softmax(losses.full_precision(logits)))
        agreement = tf.reduce_sum(self._averaged(p, index) * p, axis=1)
        return losses.cross_entropy(logits, labels) + self.strength * tf.math.log(1 - agreement)

    def observe(self, examples: Examples) -> None:
        now = self._averaged(clipped(predicted(examples)), examples.index)
        now = replicas.gather(tf.cast(now, self.average.dtype))
        self.average.value.scatter_update(tf.IndexedSlices(now, replicas.gather(examples.index)))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_examples": self.num_examples,
            "num_classes": self.num_classes,
        }
