"""Weights that select examples of a batch by their losses, or at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.errors import UserError, check_range
from tf_mwnet.methods.base import Method
from tf_mwnet.methods.draws import are_smallest, draws, follow_quantile
from tf_mwnet.methods.normalise import batch_weights
from tf_mwnet.methods.options import Option
from tf_mwnet.types import Examples, Sampling


@keras.saving.register_keras_serializable(package="tf_mwnet")
class RandomWeights(Method):
    """Random weights: ``max(z_i, 0)`` divided by its batch sum, z standard normal (L2RW eq. 16).

    Each draw is a function of seed, step and the example's row, so that several replicas draw the same
    as one. Examples of unknown row share a draw.

    Args:
        num_examples: N, above every row that the training batches carry.
        seed: of the draws.
    """

    num_examples: int
    from_run = ("num_examples", "seed")

    def __init__(self, num_examples: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_range("num_examples", num_examples, 1)
        self.num_examples, self.seed = int(num_examples), int(seed)
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
    """Self-paced learning (Kumar et al., NeurIPS 2010): weight 1/B below a loss lambda.

    The age lambda follows a quantile of the losses. Its share of the examples grows linearly from
    ``start`` to 1 over the first ``grow`` of the epochs. A moving average over batches approximates the
    quantile of the training set.

    Args:
        start: share of the examples at the start, 0 to 1; a half in the paper.
        grow: part of the training after which all examples count, above 0, at most 1.
        decay: of the moving average, 0 to below 1.
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
    """Hard example mining under imbalance (L2RW section 4.1, "Hard mining").

    From a batch that is five times as large, all examples of minority classes and the same number of
    majority examples with the highest losses get equal weights; the others get 0. A minority class is
    smaller than the mean.

    Args:
        class_sizes: training examples of each class as labelled, ``[K]``.

    Raises:
        UserError: all classes have the same size.
    """

    from_run = ("class_sizes",)
    sampling = Sampling(batch_factor=5)

    def __init__(self, class_sizes: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.class_sizes = [int(n) for n in class_sizes]
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
