"""MentorNet PD: weights from a small recurrent network that was fitted to a curriculum."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.errors import UserError
from tf_mwnet.methods.base import Method
from tf_mwnet.methods.draws import draws, follow_quantile
from tf_mwnet.methods.options import Option
from tf_mwnet.methods.targets import given
from tf_mwnet.networks.init import Seeds
from tf_mwnet.types import Examples, Head


def mentor_net(num_classes: int, seed: int = 0) -> keras.Model:
    """Builds the network g of MentorNet.

    As in the authors' code: a bidirectional LSTM with one unit in each direction, embeddings of size 2
    for the label and 5 for the percentage (the second is fixed), and 20 tanh units. Full precision, in
    mixed precision too.

    Args:
        num_classes: K.
        seed: seed of the initial values.

    Returns:
        A model of three inputs: loss and loss minus age, float ``[B, 2]``; label, int ``[B]`` in 0..K-1;
        and percentage of the epochs, int ``[B]`` in 0..99. Its output is a logit, ``[B]``.
    """
    seeds, dtype = Seeds(seed), keras.config.floatx()

    def start() -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(seed=seeds())

    pair = keras.Input((2,), dtype=dtype)
    label, percent = keras.Input((), dtype="int64"), keras.Input((), dtype="int64")
    cell = keras.layers.LSTM(
        1, kernel_initializer=start(), recurrent_initializer=start(), unit_forget_bias=False,
        unroll=True, use_cudnn=False, seed=seeds(), dtype=dtype,
    )  # fmt: skip
    steps = keras.layers.Reshape((1, 2), dtype=dtype)(pair)
    state = keras.layers.Bidirectional(cell, dtype=dtype)(steps)
    uniform = keras.initializers.RandomUniform(-0.05, 0.05, seed=seeds())
    of_label = keras.layers.Embedding(num_classes, 2, embeddings_initializer=uniform, dtype=dtype)(label)
    of_percent = keras.layers.Embedding(
        100, 5, embeddings_initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=seeds()),
        trainable=False, dtype=dtype,
    )(percent)  # fmt: skip
    x = keras.layers.Concatenate(dtype=dtype)([of_label, of_percent, state])
    x = keras.layers.Dense(20, activation="tanh", kernel_initializer=start(), dtype=dtype)(x)
    x = keras.layers.Dense(1, kernel_initializer=start(), dtype=dtype)(x)
    return keras.Model([pair, label, percent], keras.layers.Flatten(dtype=dtype)(x)[:, 0], name="mentor")


@functools.lru_cache
def self_paced(num_classes: int, seed: int = 0, size: int = 20000) -> tuple[np.ndarray, ...]:
    """Fits a `mentor_net` to the self-paced curriculum and returns its variables.

    The target is 1 where the loss is at most the age, else 0, for ages of up to 4 nats. The network is
    fitted by binary cross-entropy.

    Source: Jiang et al., ICML 2018, eq. 4 and 5.

    Args:
        num_classes: K.
        seed: seed of the initial values and the data.
        size: number of examples; each is seen 8 times.

    Returns:
        The values for ``set_weights``.
    """
    rng = np.random.default_rng(seed)
    age = rng.uniform(0, 4, size)
    loss = np.where(rng.random(size) < 0.5, rng.uniform(0, 10, size), age * rng.lognormal(0, 0.5, size))
    inputs = [
        np.stack([loss, loss - age], axis=1).astype(keras.config.floatx()),
        rng.integers(num_classes, size=size),
        rng.integers(100, size=size),
    ]

    def fit() -> tuple[np.ndarray, ...]:
        net = mentor_net(num_classes, seed)
        entropy = keras.losses.BinaryCrossentropy(from_logits=True)
        net.compile(keras.optimizers.Adam(0.01), entropy)
        net.fit(inputs, (loss <= age).astype(float), 200, epochs=8, shuffle=False, verbose=0)
        return tuple(net.get_weights())

    # In another thread, which has neither this thread's strategy scope nor its dtype policy.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fit).result()


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MentorNet(Method):
    """MentorNet PD: example weights from a network that was fitted to a predefined curriculum.

        weight_i = v_i d_i / B
        v_i = sigmoid(g(loss_i, loss_i - age, y_i, percentage of the epochs))

    The age is a moving average of a quantile of each batch's losses. g is fitted to the self-paced
    curriculum before training (`self_paced`). In the first epochs, the burn-in, all v are 1. d is 0 or
    1: each step can leave out a random share of the examples.

    Source: Jiang et al., ICML 2018; the authors' commands for the self-paced curriculum.

    Departures from the authors' code: each example is left out independently, where they leave out a
    fixed number; the given label enters the embedding (theirs is always 0).

    Args:
        num_examples: N, number of training examples, at least 1; above every row that the training
            batches carry. A run fills it in.
        percentile: share of the batch with a loss at or below the age, 0 to 1; 0.7 in the authors'
            commands.
        decay: decay of the moving average, 0 to below 1; 0.5 in the authors' trainer.
        burn_in: fraction of the epochs in which all v are 1, 0 to 1; 0 in the authors' commands.
        dropout: shares of the examples to leave out in the first 17 % of the epochs, until 95 %, and in
            the last 5 %, 0 to below 1; none in the authors' commands.
        fixed_percentage: whether g sees the percentage at the end of the burn-in from there on; false
            in the authors' commands.
        seed: seed of the draws and of the network.
        **kwargs: as for `Method`.

    Raises:
        UserError: an argument is out of range; in `prepare`, the classifier's number of classes is
            unknown.

    Examples:
        >>> method = tf_mwnet.methods.MentorNet(num_examples=len(y), percentile=0.6)
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
    """

    num_examples: int
    from_run: tuple[str, ...] = ("num_examples", "seed")
    options: tuple[Option, ...] = (
        Option("percentile", "share of the batch at or below the age", at_least=0, at_most=1),
        Option("decay", "of the moving average of the age", at_least=0, below=1),
        Option("burn_in", "part of the epochs in which all weights are 1", at_least=0, at_most=1),
        Option("dropout", "shares left out: first 17 %, middle, last 5 %", at_least=0, below=1),
        Option("fixed_percentage", "the percentage stays that of the end of the burn-in"),
    )

    def __init__(
        self,
        num_examples: int,
        percentile: float = 0.7,
        decay: float = 0.5,
        burn_in: float = 0.0,
        dropout: tuple[float, float, float] = (0.0, 0.0, 0.0),
        fixed_percentage: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_examples = self.example_count(num_examples)
        self.seed = int(seed)
        self.percentile = self.option("percentile", percentile)
        self.decay, self.burn_in = self.option("decay", decay), self.option("burn_in", burn_in)
        self.dropout = self.option("dropout", dropout)
        self.fixed_percentage = self.option("fixed_percentage", fixed_percentage)
        self.step = self.add_state((), "int64", "step")
        self.percent = self.add_state((), "int64", "percent")
        self.burning = self.add_state((), "int32", "burning")
        self.left_out = self.add_state((), keras.config.floatx(), "left_out")
        self.age = self.add_state((), keras.config.floatx(), "age")
        self.age.assign(-1)  # no batch seen yet
        self.mentor: keras.Model | None = None

    def prepare(self, head: Head) -> None:
        super().prepare(head)
        if self.mentor is not None:
            return
        if head.num_classes is None:
            raise UserError(f"MentorNet got classifier '{head.name}'; allowed: a functional model")
        mentor = mentor_net(head.num_classes, self.seed)
        mentor.set_weights(self_paced(head.num_classes, self.seed))
        mentor.trainable = self.learns
        self.mentor = mentor

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        percent = min(99, 100 * epoch // epochs)
        last = round(100 * self.burn_in) if self.fixed_percentage else 99
        self.percent.assign(min(percent, last))
        self.burning.assign(int(epoch < self.burn_in * epochs))
        self.left_out.assign(self.dropout[int(percent >= 17) + int(percent >= 95)])

    def observe(self, examples: Examples) -> None:
        self.step.assign(self.step + 1)
        label = self.labels(examples)
        follow_quantile(self.age, self._loss(examples, label), self.percentile, self.decay)

    def labels(self, examples: Examples) -> tf.Tensor:
        """Returns the labels to train on, ``[B, K]``."""
        return given(examples)

    def _loss(self, examples: Examples, label: tf.Tensor) -> tf.Tensor:
        return tf.cast(losses.cross_entropy(examples.logits, label), label.dtype)

    def score(self, examples: Examples) -> tf.Tensor:
        """Returns g, the logits of v, ``[B]``."""
        assert self.mentor is not None  # made in `prepare`
        label, dtype = self.labels(examples), self.mentor.variables[0].dtype
        loss = tf.cast(self._loss(examples, label), dtype)
        pair = tf.stack([loss, loss - tf.cast(self.age, dtype)], axis=1)
        percent = tf.fill([tf.shape(loss)[0]], tf.convert_to_tensor(self.percent))
        return self.mentor([pair, tf.argmax(label, axis=1), percent])

    def example_weights(self, examples: Examples) -> tf.Tensor:
        values = tf.cast(tf.sigmoid(self.score(examples)), examples.losses.dtype)
        burning = tf.convert_to_tensor(self.burning) > 0
        values = tf.where(burning, tf.ones_like(values), values)
        uniform = draws(self.num_examples, self.seed, self.step, values.dtype)
        left_out = tf.cast(tf.convert_to_tensor(self.left_out), values.dtype)
        kept = tf.cast(tf.gather(uniform, examples.index) >= left_out, values.dtype)
        return values * kept / replicas.batch_size(values, values.dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_examples": self.num_examples, "seed": self.seed}
