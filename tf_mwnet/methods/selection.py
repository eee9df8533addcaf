"""Weights that select examples of a batch by their losses, or at random.

In the equations B is the batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.errors import UserError
from tf_mwnet.methods.base import Method
from tf_mwnet.methods.class_weights import checked_sizes
from tf_mwnet.methods.draws import are_smallest, draws, follow_quantile
from tf_mwnet.methods.normalise import batch_weights
from tf_mwnet.methods.options import Option
from tf_mwnet.types import Examples, Sampling


@keras.saving.register_keras_serializable(package="tf_mwnet")
class RandomWeights(Method):
    """Random weights: rectified normal draws, divided by their batch sum.

        weight_i = max(z_i, 0) / sum_j max(z_j, 0),    z_i standard normal

    Each draw is a function of the seed, the step and the example's row: several replicas draw the same
    values as one. Examples whose row is unknown share one draw.

    Source: L2RW, "Random".

    Departures: none in the weights, see above for the draws.

    Args:
        num_examples: N, number of training examples, at least 1; above every row that the training
            batches carry. A run fills it in.
        seed: seed of the draws.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``num_examples`` is below 1.

    Examples:
        >>> method = tf_mwnet.methods.RandomWeights(num_examples=len(y))
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
    """

    num_examples: int
    from_run = ("num_examples", "seed")

    def __init__(self, num_examples: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_examples = self.example_count(num_examples)
        self.seed = int(seed)
        self.step = self.add_state((), "int64", "step")

    def observe(self, examples: Examples) -> None:
        self.step.assign(self.step + 1)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        uniform = draws(self.num_examples, self.seed, self.step, examples.losses.dtype)
        normal = tf.math.ndtri(tf.gather(uniform, examples.index))
        return batch_weights(tf.nn.relu(normal), normalise=True)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_examples": self.num_examples, "seed": self.seed}


@keras.saving.register_keras_serializable(package="tf_mwnet")
class SPL(Method):
    """Self-paced learning: trains on the examples with small loss first, and on more of them over time.

        weight_i = [loss_i <= lambda] / B

    The age lambda is a quantile of the losses: that of a share of the examples which grows linearly
    from ``start`` to 1 over the first ``grow`` of the epochs. The quantile over the training set is
    estimated by a moving average over the batches.

    Source: Kumar et al., NeurIPS 2010.

    Departures: the age is a quantile, which grows to 1; theirs is a threshold of the loss, which is
    multiplied by a factor in each iteration until all examples count.

    Args:
        start: share of the examples at the start, 0 to 1; a half in the paper.
        grow: fraction of the epochs after which all examples count, above 0 and at most 1.
        decay: decay of the moving average, 0 to below 1.
        **kwargs: as for `Method`.

    Raises:
        UserError: an argument is out of range.

    Examples:
        >>> model = tf_mwnet.ReweightedModel(classifier, "spl --start=0.3")
    """

    options = (
        Option("start", "share of the examples that count at the start", at_least=0, at_most=1),
        Option("grow", "part of the training after which all count", above=0, at_most=1),
        Option("decay", "of the moving average of the quantile", at_least=0, below=1),
    )

    def __init__(
        self, start: float = 0.5, grow: float = 0.75, decay: float = 0.9, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.start, self.grow = self.option("start", start), self.option("grow", grow)
        self.decay = self.option("decay", decay)
        self.share = self.add_state((), keras.config.floatx(), "share")
        self.share.assign(self.start)
        self.age = self.add_state((), keras.config.floatx(), "age")
        self.age.assign(-1)  # no batch seen yet

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        progress = min(1.0, epoch / (self.grow * epochs))
        self.share.assign(self.start + (1 - self.start) * progress)

    def observe(self, examples: Examples) -> None:
        follow_quantile(self.age, examples.losses, self.share, self.decay)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        values = examples.losses
        everything = tf.convert_to_tensor(self.share) >= 1
        chosen = tf.logical_or(values <= tf.cast(self.age, values.dtype), everything)
        return tf.cast(chosen, values.dtype) / replicas.batch_size(values, values.dtype)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class HardMining(Method):
    """Hard example mining under class imbalance: keeps the hardest examples of the majority classes.

        weight_i = 1 / n  if i has a minority class, or one of the highest losses of the others; else 0

    A class is a minority if it is smaller than the mean class. Of the majority classes, as many examples
    are kept as the batch has of minority classes, and at least one; n is the number of examples that are
    kept. Batches are five times as large as asked for.

    Source: L2RW, MNIST, "Hard mining".

    Departures: the released code ranks by the batch's mean loss, which is one number, and so keeps the
    first examples instead of the hardest.

    Args:
        class_sizes: training examples of each class as labelled, int ``[K]``. A run fills it in.
        **kwargs: as for `Method`.

    Raises:
        UserError: all classes have the same size.

    Examples:
        >>> method = tf_mwnet.methods.HardMining(class_sizes=[500, 50, 5])
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
    """

    from_run = ("class_sizes",)
    sampling = Sampling(batch_factor=5)

    def __init__(self, class_sizes: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.class_sizes = checked_sizes(class_sizes)
        self.is_minority = np.asarray(class_sizes) < np.mean(class_sizes)
        if not self.is_minority.any():
            raise UserError(
                f"method hard_mining got {len(self.class_sizes)} classes of {self.class_sizes[0]}"
                " examples each; allowed: classes that differ in size"
            )

    def example_weights(self, examples: Examples) -> tf.Tensor:
        values = examples.losses
        label = tf.argmax(losses.one_hot(examples.labels, examples.logits), axis=1)
        minority = tf.gather(tf.constant(self.is_minority), label)
        few = replicas.all_sum(tf.reduce_sum(tf.cast(minority, tf.int32)))
        # Minority examples rank last here; at least one of the majority, also if there is no other.
        ranked = tf.where(minority, tf.constant(np.inf, values.dtype), -values)
        hard = tf.logical_and(are_smallest(ranked, tf.maximum(few, 1)), tf.logical_not(minority))
        return batch_weights(tf.cast(tf.logical_or(minority, hard), values.dtype), normalise=True)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"class_sizes": self.class_sizes}
