"""Weights that depend only on the class, and class-balanced batches.

In the equations y_i is the given label of example i, n_k the number of training examples labelled k,
N their sum, K the number of classes, and B the batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.errors import UserError, check_range
from tf_mwnet.methods.base import LOSS, Method
from tf_mwnet.methods.erm import ERM
from tf_mwnet.methods.options import Option
from tf_mwnet.types import Examples, Sampling


class ByClass(Method):
    """Base of the methods with one fixed weight per class.

        weight_i = table[y_i] / B

    A soft label takes the mean of the table under the label.

    Args:
        table: a weight per class, float ``[K]``, not negative.
        **kwargs: as for `Method`.
    """

    def __init__(self, table: Sequence[float] | np.ndarray, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = np.asarray(table, np.float64)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        weight = of_labels(self.table, examples)
        return weight / replicas.batch_size(weight, weight.dtype)


def of_labels(table: np.ndarray, examples: Examples) -> tf.Tensor:
    """Looks up the given labels in a table of classes ``[K]``; returns ``[B]`` of the losses' dtype."""
    labels = tf.cast(losses.one_hot(examples.labels, examples.logits), examples.losses.dtype)
    return tf.linalg.matvec(labels, tf.constant(table, labels.dtype))


def by_effective_number(class_sizes: Sequence[int], beta: float) -> np.ndarray:
    """Returns the inverse of each class's effective number of samples, ``[K]``, mean 1."""
    table = (1 - beta) / (1 - beta ** sizes_of(class_sizes))
    return table / table.mean()


def checked_sizes(class_sizes: Sequence[int]) -> list[int]:
    """Returns class sizes as integers; raises ``UserError`` if one is below 0."""
    for size in class_sizes:
        check_range("class size", size, 0)
    return [int(size) for size in class_sizes]


def sizes_of(class_sizes: Sequence[int]) -> np.ndarray:
    """Returns class sizes as float64 ``[K]``; an empty class counts as one example to get a weight."""
    return np.maximum(np.asarray(class_sizes, np.float64), 1)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class ClassBalanced(ByClass):
    """Class-balanced weights: the inverse of a class's effective number of samples.

        table_k ~ (1 - beta) / (1 - beta^n_k),    weight_i = table[y_i] / B

    The table is scaled to a mean of 1 over the classes.

    Source: Cui et al., CVPR 2019, Proposition 1; with ``loss="focal"`` the class-balanced focal loss.

    Departures: the focal loss is that of a softmax; theirs has a sigmoid for each class.

    Args:
        class_sizes: n_k, training examples of each class as labelled, int ``[K]``. A run fills it in.
        beta: 0 (equal weights) to below 1 (inverse frequency); 0.9999 here and in MW-Net.
        **kwargs: as for `Method`.

    Raises:
        UserError: ``beta`` is out of range.

    Examples:
        >>> method = tf_mwnet.methods.ClassBalanced(class_sizes=[500, 50, 5], beta=0.999)
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
    """

    from_run = ("class_sizes",)
    options = (
        Option("beta", "0 is equal weights, near 1 inverse frequency", at_least=0, below=1),
        LOSS,
    )

    def __init__(self, class_sizes: Sequence[int], beta: float = 0.9999, **kwargs: Any) -> None:
        beta = self.option("beta", beta)
        super().__init__(by_effective_number(class_sizes, beta), **kwargs)
        self.class_sizes, self.beta = checked_sizes(class_sizes), beta

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"class_sizes": self.class_sizes}


@keras.saving.register_keras_serializable(package="tf_mwnet")
class Proportion(ByClass):
    """Weights by inverse class frequency.

        table_k = N / (K n_k),    weight_i = table[y_i] / B

    The table has a mean of 1 over the training examples.

    Source: L2RW, MNIST, "Proportion".

    Departures: the released code takes 1 - n_k / N itself, of two classes, so that its steps are longer
    the less the classes differ in size: alike at 200:1, ten times at 20:1.

    Args:
        class_sizes: n_k, training examples of each class as labelled, int ``[K]``. A run fills it in.
        **kwargs: as for `Method`.

    Examples:
        >>> method = tf_mwnet.methods.Proportion(class_sizes=[500, 50, 5])
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
    """

    from_run = ("class_sizes",)
    options = (LOSS,)

    def __init__(self, class_sizes: Sequence[int], **kwargs: Any) -> None:
        sizes = sizes_of(class_sizes)
        super().__init__(sizes.sum() / (len(sizes) * sizes), **kwargs)
        self.class_sizes = checked_sizes(class_sizes)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"class_sizes": self.class_sizes}


@keras.saving.register_keras_serializable(package="tf_mwnet")
class WeightedOracle(ByClass):
    """Weights by the known share of correct labels in each class.

        table_k ~ share_k,    weight_i = table[y_i] / B

    The table is scaled to a mean of 1 over the training examples. It needs the true labels: this is a
    reference for experiments with synthetic noise.

    Source: L2RW, CIFAR, "Weighted".

    Departures: none known; the released code does not have it.

    Args:
        class_sizes: n_k, training examples of each class as labelled, int ``[K]``. A run fills it in.
        clean_share: share_k, share of these examples whose label is correct, float ``[K]``, 0 to 1. A
            run fills it in.
        **kwargs: as for `Method`.

    Raises:
        UserError: a share is outside 0 to 1, or all are 0.

    Examples:
        >>> method = tf_mwnet.methods.WeightedOracle(class_sizes=[300, 300], clean_share=[0.9, 0.6])
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
    """

    from_run = ("class_sizes", "clean_share")

    def __init__(self, class_sizes: Sequence[int], clean_share: Sequence[float], **kwargs: Any) -> None:
        share, sizes = np.asarray(clean_share, np.float64), np.asarray(class_sizes, np.float64)
        for value in share:
            check_range("a share in clean_share", value, 0, 1)
        if not (share * sizes).sum() > 0:
            raise UserError("clean_share is 0 for all classes; allowed: above 0 for one or more")
        super().__init__(share * sizes.sum() / (share * sizes).sum(), **kwargs)
        self.class_sizes = checked_sizes(class_sizes)
        self.clean_share = [float(v) for v in clean_share]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "class_sizes": self.class_sizes,
            "clean_share": self.clean_share,
        }


@keras.saving.register_keras_serializable(package="tf_mwnet")
class Resample(ERM):
    """Class-balanced batches: each class is drawn equally often, with replacement.

        weight_i = 1 / B

    Source: L2RW, MNIST, "Resample".

    Departures: none.

    Args:
        **kwargs: as for `Method`.

    Examples:
        >>> result = tf_mwnet.run(tf_mwnet.Experiment(method="resample", compare="erm"))
    """

    sampling = Sampling(balanced=True)
