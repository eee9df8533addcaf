"""MentorNet: a small recurrent network that knows a curriculum of examples."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.errors import UserError, check_range
from tf_mwnet.meta import dense
from tf_mwnet.methods.base import Method
from tf_mwnet.methods.draws import draws, follow_quantile
from tf_mwnet.methods.options import Option
from tf_mwnet.methods.targets import given
from tf_mwnet.networks.init import Seeds
from tf_mwnet.types import Examples, Head


def mentor_net(num_classes: int, seed: int = 0) -> keras.Model:
    """Builds the mentor: ``(loss and difference [B, 2], label [B], percentage of epochs [B])`` -> logit.

    As in the authors' code: a bidirectional LSTM of one unit each way; embeddings of 2 and 5 for label
    and percentage (the second is fixed); 20 tanh units. Full precision also in mixed precision.
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
    """Weights of a `mentor_net` fitted to the self-paced curriculum (Jiang et al., eq. 4 and 5).

    The target is 1 where the loss is at most the age, else 0, for ages of up to 4 nats; the loss is
    binary cross-entropy.

    Args:
        num_classes: K.
        seed: of initial values and data.
        size: number of examples, seen 8 times.
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
    """MentorNet PD: weights v / B from a network fitted to a curriculum (Jiang et al., ICML 2018).

    v = g(loss, loss - age, label, percentage of the epochs), the age a moving average of the batches'
    loss at a quantile; g is fitted before training to the self-paced curriculum. In the first epochs
    all v are 1. Some examples, drawn again in each step, are left out.

    Departures from the authors' code: each example is dropped independently, instead of a fixed number;
    the label enters the embedding (theirs is always 0), as does the percentage after the burn-in.

    Args:
        num_examples: N, above every row that the training batches carry.
        percentile: share of the batch at or below the age, 0 to 1; 0.7 in the authors' commands.
        decay: of the moving average, 0 to below 1; 0.9 in the authors' code.
        burn_in: part of the epochs in which all v are 1, 0 to 1; 0.18 in the authors' code.
        dropout: share left out in these and after them, 0 to below 1; 0.5 and 0.05 in their commands.
        seed: of draws and network.
    """

    num_examples: int
    from_run: tuple[str, ...] = ("num_examples", "seed")
    options: tuple[Option, ...] = (
        Option("percentile", "share of the batch at or below the age", at_least=0, at_most=1),
        Option("decay", "of the moving average of the age", at_least=0, below=1),
        Option("burn_in", "part of the epochs in which all weights are 1", at_least=0, at_most=1),
        Option("dropout", "share left out in these epochs, and after them", at_least=0, below=1),
    )

    def __init__(
        self,
        num_examples: int,
        percentile: float = 0.7,
        decay: float = 0.9,
        burn_in: float = 0.18,
        dropout: tuple[float, float] = (0.5, 0.05),
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_range("num_examples", num_examples, 1)
        self.num_examples, self.seed = int(num_examples), int(seed)
        self.percentile = self.option("percentile", percentile)
        self.decay, self.burn_in = self.option("decay", decay), self.option("burn_in", burn_in)
        self.dropout = self.option("dropout", dropout)
        self.step = self.add_state((), "int64", "step")
        self.percent = self.add_state((), "int64", "percent")
        self.burning = self.add_state((), "int32", "burning")
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
        self.percent.assign(min(99, 100 * epoch // epochs))
        self.burning.assign(int(epoch < self.burn_in * epochs))

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
        """Computes the logits of v, ``[B]``."""
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
        rate = tf.where(burning, *(tf.constant(r, values.dtype) for r in self.dropout))
        kept = tf.cast(tf.gather(uniform, examples.index) >= rate, values.dtype)
        return values * kept / replicas.batch_size(values, values.dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_examples": self.num_examples, "seed": self.seed}


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MentorNetDD(MentorNet):
    """MentorNet DD: the curriculum is learned from data (Jiang et al., ICML 2018, section 3.2).

    g starts as in `MentorNet` and learns to tell right labels from wrong ones, by their cross-entropy,
    on examples whose truth is known: the meta set is part of the training set, and a fixed share of it
    has wrong labels, drawn uniformly from the other classes.

    Departure: g is trained together with the classifier, instead of once from the losses of an earlier
    training.

    Args:
        num_untrusted: rows from this on are trusted examples.
        num_trusted: their number.
        wrong_share: of them, 0 to 1; a run passes the noise rate that was put in, or 0.2.
        **kwargs: as for `MentorNet`, without ``num_examples``.
    """

    learns = True
    needs_meta = True
    meta_gradient = "none"
    trains_on = "both"
    from_run = ("num_untrusted", "num_trusted", "wrong_share", "seed")
    options = (
        *MentorNet.options,
        Option(
            "wrong_share", "of the meta set; by default the noise rate put in", at_least=0, at_most=1
        ),
    )

    def __init__(
        self, num_untrusted: int, num_trusted: int, wrong_share: float = 0.4, **kwargs: Any
    ) -> None:
        check_range("num_untrusted", num_untrusted, 0)
        check_range("num_trusted", num_trusted, 1)
        super().__init__(num_untrusted + num_trusted, **kwargs)
        self.num_untrusted, self.num_trusted = int(num_untrusted), int(num_trusted)
        self.wrong_share = self.option("wrong_share", wrong_share)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Computes ``-log p_k``, ``[B, K]``: the weights choose the labels."""
        return -tf.nn.log_softmax(losses.full_precision(logits))

    def _trusted(self, examples: Examples) -> tf.Tensor:
        return examples.index >= self.num_untrusted

    def _wrong(self, examples: Examples) -> tf.Tensor:
        """Tells which examples get a wrong label, bool ``[B]``."""
        uniform = draws(self.num_examples, self.seed, -1, examples.losses.dtype)
        wrong = tf.gather(uniform, examples.index) < self.wrong_share
        return tf.logical_and(wrong, self._trusted(examples))

    def labels(self, examples: Examples) -> tf.Tensor:
        label = given(examples)
        count = label.shape[1]
        uniform = draws(self.num_examples, self.seed, -2, label.dtype)
        shift = 1 + tf.cast(tf.gather(uniform, examples.index) * (count - 1), tf.int64)
        other = tf.one_hot((tf.argmax(label, axis=1) + shift) % count, count, dtype=label.dtype)
        return tf.where(self._wrong(examples)[:, None], other, label)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        return super().example_weights(examples)[:, None] * self.labels(examples)

    def learn(
        self,
        gradient: tf.Tensor | None,
        examples: Examples,
        optimizer: keras.optimizers.Optimizer | None,
    ) -> tf.Tensor:
        assert optimizer is not None
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            score = self.score(examples)
            right = tf.cast(tf.logical_not(self._wrong(examples)), score.dtype)
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(right, score)
            trusted = tf.cast(self._trusted(examples), score.dtype)
            count = tf.maximum(replicas.all_sum(tf.reduce_sum(trusted)), 1)
            loss = tf.reduce_sum(trusted * entropy) / count
            scaled = optimizer.scale_loss(loss)
        slopes = tape.gradient(scaled, [v.value for v in variables])
        optimizer.apply(dense(slopes, variables), variables)
        return self.example_weights(examples)

    def label_weight(self, weights: tf.Tensor, examples: Examples) -> tf.Tensor:
        """Returns the weight of the given label."""
        return tf.reduce_sum(weights * given(examples), axis=1)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("num_examples")
        names = ("num_untrusted", "num_trusted")
        return config | {name: getattr(self, name) for name in names}
