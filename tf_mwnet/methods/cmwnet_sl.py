"""CMW-Net-SL: CMW-Net's weight function between the given label and a soft label, without clean data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.methods.groups import by_group, scale_groups
from tf_mwnet.methods.mwnet import MWNet
from tf_mwnet.methods.options import Option
from tf_mwnet.methods.targets import given
from tf_mwnet.networks.weight_net import weight_net as build_weight_net
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class CMWNetSL(MWNet):
    """CMW-Net-SL: weighs the given label against the prediction of the classifier's moving average.

        objective = 1/B sum_i w_i CE(f_i, y_i) + (1 - w_i) CE(f_i, z_i)
        w_i = V(CE(f_i, y_i))[group of y_i],    z_i = softmax of the moving average's logits

    As losses and weights, both ``[B, K]``: ``-log softmax(f_i)_k``, and ``(w_i y_ik + (1 - w_i) z_ik)``
    over B. No clean data is needed: before each epoch the ``per_class`` examples of each given class
    whose loss under the moving average is smallest become the meta set. The first epochs train plainly.
    With mixup (``mixup`` of `ReweightedModel.compile`) an example has one weight, from the loss of its
    own label in the input where its share is largest.

    Source: Shu et al., TPAMI 2023, CMW-Net-SL, and the authors' code for CIFAR with symmetric noise.

    Departures: the moving average predicts in inference mode, with averaged statistics of batch norm,
    where theirs has those of the batch; the losses that choose the meta set are those at an example's
    last step, where theirs take a pass over the training set after each epoch. Small classes give
    all of their examples, and there are at most as many groups as distinct class sizes, where theirs
    would fail. Theirs learns in every tenth step with Adam at 1e-4 and L2 1e-4, mixes both kinds of
    batches and, with asymmetric noise, stops the average at the drop of the learning rate; but for the
    last, the flagfiles set that. Their code draws the shares of the meta batch from Beta(1, 1)
    whatever alpha is.

    Args:
        class_sizes: training examples of each class as labelled, int ``[K]``. A run fills it in.
        num_examples: N, number of training examples, at least 1; above every row that the training
            batches carry. A run fills it in.
        groups: G, groups of classes of similar size with a weight function each, at least 1; 3 in
            the paper.
        per_class: examples of each class in the meta set, at least 1; 10 in the paper.
        warm_up: part of the epochs that train plainly, 0 to 1, at least one epoch unless 0, and not the
            last one; of 300 epochs 10 for CIFAR-10 and 30 for CIFAR-100 in the authors' code.
        hidden: sizes of V's hidden layers (ReLU).
        seed: seed of the initial values.
        weight_net: a Keras model ``[B, 1] -> [B, G]`` instead of the one built from ``hidden``.
        **kwargs: as for `Method`.

    Raises:
        UserError: a value is out of range.

    Examples:
        >>> method = "cmwnet_sl --warm_up=0.1"
        >>> config = tf_mwnet.Experiment(method=method, compare="erm", mixup=1.0, meta_size=0)
    """

    needs_meta = False
    meta_labels = "noisy"
    draws_meta = True
    replaceable = False
    ema = 0.997
    smooths_labels = False
    from_run = ("hidden", "seed", "class_sizes", "num_examples")
    options = (
        Option("groups", "groups of classes of similar size", at_least=1),
        Option("per_class", "examples of each class in the meta set", at_least=1),
        Option("warm_up", "part of the epochs that train plainly", at_least=0, at_most=1),
    )

    def __init__(
        self,
        class_sizes: Sequence[int],
        num_examples: int,
        groups: int = 3,
        per_class: int = 10,
        warm_up: float = 1 / 30,
        hidden: Sequence[int] = (100,),
        seed: int = 0,
        weight_net: keras.Model | None = None,
        **kwargs: Any,
    ) -> None:
        self.num_examples = self.example_count(num_examples)
        groups = self.option("groups", groups)
        sizes = tuple(int(n) for n in class_sizes)
        count = min(groups, len(set(sizes)))
        weight_net = weight_net or build_weight_net(hidden, seed=seed, outputs=count)
        super().__init__(hidden=hidden, normalise=False, seed=seed, weight_net=weight_net, **kwargs)
        self.class_sizes, self.num_examples, self.groups = sizes, int(num_examples), groups
        self.group_of_class = scale_groups(sizes, count) if count > 1 else None
        self.per_class = self.option("per_class", per_class)
        self.warm_up = self.option("warm_up", warm_up)
        # Losses under the average when an example was last seen; the last row is of unknown examples.
        self.seen = self.add_state((self.num_examples + 1,), keras.config.floatx(), "seen")
        self.seen.assign(np.full(self.num_examples + 1, np.inf))

    def plain_epochs(self, epochs: int) -> int:
        first = max(round(self.warm_up * epochs), 1) if self.warm_up else 0
        return min(first, epochs - 1)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.plain = epoch < self.plain_epochs(epochs)

    def draw_meta(self, labels: np.ndarray) -> np.ndarray:
        seen = keras.ops.convert_to_numpy(self.seen)[:-1]
        rows = []
        for label in np.unique(labels):
            own = np.flatnonzero(labels == label)
            rows.append(own[np.argsort(seen[own], kind="stable")[: self.per_class]])
        return np.sort(np.concatenate(rows))

    def observe(self, examples: Examples) -> None:
        logits = examples.logits if examples.averaged is None else examples.averaged
        values = losses.cross_entropy(losses.full_precision(logits), examples.labels)
        unknown = tf.constant(self.num_examples, examples.index.dtype)
        index = tf.where(examples.index < 0, unknown, examples.index)
        values = replicas.gather(tf.cast(values, self.seen.dtype))
        self.seen.value.scatter_update(tf.IndexedSlices(values, replicas.gather(index)))

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        return -tf.nn.log_softmax(losses.full_precision(logits))

    def weigh(self, examples: Examples) -> tf.Tensor:
        loss = losses.cross_entropy(losses.full_precision(examples.logits), examples.labels)
        loss = tf.cast(loss, examples.losses.dtype)
        if self.plain:
            return tf.ones_like(loss)
        values = self.weight_function(loss)
        if self.group_of_class is None:
            return values
        return by_group(values, examples, self.group_of_class)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        weight = self.weigh(examples)[:, None]
        logits = examples.logits if examples.averaged is None else examples.averaged
        soft = tf.cast(tf.nn.softmax(losses.full_precision(logits)), weight.dtype)
        target = weight * given(examples) + (1 - weight) * soft
        return target / replicas.batch_size(target, target.dtype)

    def label_weight(self, weights: tf.Tensor, examples: Examples) -> tf.Tensor:
        """Returns the weight of each example's given label, ``w_i / B``, ``[B]``."""
        weight = self.weigh(examples)
        return weight / replicas.batch_size(weight, weight.dtype)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["normalise"]  # the mean, whatever a run says
        return config | {"class_sizes": list(self.class_sizes), "num_examples": self.num_examples}
