"""Fast sample reweighting: L2RW without clean data, on a meta set of what a step helps most."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.methods.base import Method
from tf_mwnet.methods.normalise import batch_weights
from tf_mwnet.methods.options import Option
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class FSR(Method):
    """Fast sample reweighting: weights from the meta gradient, a meta set out of the training set.

        w_hat = w - a (m v + 1/B sum_i grad l_i(w))
        weight_i = max(-G_i, 0) / sum_j max(-G_j, 0),    or without clipping  -G_i - min_j(-G_j) + 1/B

    over its sum. v is the momentum of the classifier's optimizer and G the meta gradient at weights of
    1/B. Each step also takes the margin ``l_i(w) - l_i(w_hat)`` of its examples; before each epoch the
    ``per_class`` examples of each given class with the largest margin become the meta set. Nothing but
    that is learned. ``meta_scope="last_stage"`` takes the step on a part of the classifier, as theirs.

    Source: Zhang and Pfister, ICCV 2021, and the authors' code (ieg/models/fsr.py).

    Departures: written after the code; the paper was not at hand. The size of the virtual step is the
    learning rate, where theirs is 0.1 throughout; L2 is not part of it, nor of the meta loss. A pass of
    meta batches covers the meta set; theirs are drawn anew with equal shares of the classes. Weights
    that would all be 0 are equal. The loss on the average prediction of each example, an option there,
    is left out.

    Args:
        num_examples: N, number of training examples, at least 1; above every row that the training
            batches carry. A run fills it in.
        per_class: examples of each class in the meta set, at least 1; 100 for CIFAR-10 in their code.
        clip: take max(-G, 0) of the gradient, theirs for wrong labels; else the second form above, which
            leaves no weight at 0, theirs for a long tail.
        decay: of the moving average of the margins, 0 to below 1; 0 in their code.
        momentum: m, 0 to below 1; 0.9 in their code.
        start: part of the epochs before which weights are 1 / B, 0 to 1; 0.8 for a long tail there.
        **kwargs: as for `Method`.

    Raises:
        UserError: a value is out of range.

    Examples:
        >>> config = tf_mwnet.Experiment(method="fsr", compare="erm", meta_size=0)
    """

    learns = True
    meta_labels = "noisy"
    draws_meta = True
    sees_virtual = True
    from_run = ("num_examples",)
    options = (
        Option("per_class", "examples of each class in the meta set", at_least=1),
        Option("clip", "take weights of 0 where the meta gradient is positive"),
        Option("decay", "of the moving average of the margins", at_least=0, below=1),
        Option(
            "momentum", "factor of the optimizer's momentum in the virtual step", at_least=0, below=1
        ),
        Option("start", "part of the epochs with equal weights", at_least=0, at_most=1),
    )

    def __init__(
        self,
        num_examples: int,
        per_class: int = 100,
        clip: bool = True,
        decay: float = 0.0,
        momentum: float = 0.9,
        start: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_examples = self.example_count(num_examples)
        self.clip = self.option("clip", clip)
        self.per_class, self.decay = self.option("per_class", per_class), self.option("decay", decay)
        self.momentum = self.look_ahead = self.option("momentum", momentum)
        self.start = self.option("start", start)
        floatx, size = keras.config.floatx(), self.num_examples + 1  # the last row: unknown examples
        self.margins = self.add_state((size,), floatx, "margins")
        self.seen = self.add_state((size,), floatx, "seen")
        self.begun = self.add_state((), floatx, "begun")
        self.begun.assign(1)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.begun.assign(float(epoch >= self.start * epochs))

    def draw_meta(self, labels: np.ndarray) -> np.ndarray:
        margins, seen = (keras.ops.convert_to_numpy(v)[:-1] for v in (self.margins, self.seen))
        order = np.lexsort((-margins, -seen))  # those never seen last
        rows = [order[labels[order] == label][: self.per_class] for label in np.unique(labels)]
        return np.sort(np.concatenate(rows))

    def observe_virtual(self, examples: Examples, logits: tf.Tensor) -> None:
        before, after = (
            losses.cross_entropy(losses.full_precision(z), examples.labels)
            for z in (examples.logits, logits)
        )
        unknown = tf.constant(self.num_examples, examples.index.dtype)
        index = replicas.gather(tf.where(examples.index < 0, unknown, examples.index))
        now = replicas.gather(tf.cast(before - after, self.margins.dtype))
        now = self.decay * tf.gather(tf.convert_to_tensor(self.margins), index) + (1 - self.decay) * now
        self.margins.value.scatter_update(tf.IndexedSlices(now, index))
        self.seen.value.scatter_update(tf.IndexedSlices(tf.ones_like(now), index))

    def example_weights(self, examples: Examples) -> tf.Tensor:
        values = examples.losses
        return tf.ones_like(values) / replicas.batch_size(values, values.dtype)

    def learn(
        self,
        gradient: tf.Tensor | None,
        examples: Examples,
        optimizer: keras.optimizers.Optimizer | None,
    ) -> tf.Tensor:
        assert gradient is not None
        equal = self.example_weights(examples)
        if self.clip:
            values = tf.nn.relu(-gradient)
        else:
            values = -gradient - tf.reduce_min(replicas.gather(-gradient)) + equal
        weights = batch_weights(values, normalise=True)
        some = replicas.all_sum(tf.reduce_sum(weights)) > 0
        return tf.where(tf.logical_and(some, tf.convert_to_tensor(self.begun) > 0), weights, equal)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_examples": self.num_examples}
