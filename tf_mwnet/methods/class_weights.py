"""Weights by class, and class-balanced batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.errors import UserError, check_range
from tf_mwnet.methods.base import Method
from tf_mwnet.methods.erm import ERM
from tf_mwnet.methods.options import Option
from tf_mwnet.types import Examples, Sampling


class ByClass(Method):
    """``weight_i = table[y_i] / B``; soft labels take the mean of the table under the label.

    Args:
        table: a weight per class, ``[K]``, not negative.
    """

    def __init__(self, table: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = np.asarray(table, np.float64)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        dtype = examples.losses.dtype
        labels = tf.cast(losses.one_hot(examples.labels, examples.logits), dtype)
        weight = tf.linalg.matvec(labels, tf.constant(self.table, dtype))
        return weight / replicas.batch_size(weight, dtype)


def sizes_of(class_sizes: Sequence[int]) -> np.ndarray:
    """Converts class sizes to float64 ``[K]``; an empty class counts as one example."""
    return np.maximum(np.asarray(class_sizes, np.float64), 1)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class ClassBalanced(ByClass):
    """Effective number of samples (Cui et al., CVPR 2019, Proposition 1): mean over classes 1.

    ``weight of class k ~ (1 - beta) / (1 - beta^n_k)``.

    Args:
        class_sizes: training examples of each class as labelled, n_k, ``[K]``.
        beta: 0 (all equal) to below 1 (inverse frequency); 0.9999 here and in MW-Net.
    """

    from_run = ("class_sizes",)
    options = (Option("beta", "0 is equal weights, near 1 inverse frequency", at_least=0, below=1),)

    def __init__(self, class_sizes: Sequence[int], beta: float = 0.9999, **kwargs: Any) -> None:
        beta = self.option("beta", beta)
        table = (1 - beta) / (1 - beta ** sizes_of(class_sizes))
        super().__init__(table / table.mean(), **kwargs)
        self.class_sizes, self.beta = [int(n) for n in class_sizes], beta

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"class_sizes": self.class_sizes}


@keras.saving.register_keras_serializable(package="tf_mwnet")
class Proportion(ByClass):
    """Inverse class frequency (L2RW section 4.1, "Proportion"): ``N / (K n_y)``, mean over examples 1.

    Args:
        class_sizes: training examples of each class as labelled, n_k, ``[K]``.
    """

    from_run = ("class_sizes",)

    def __init__(self, class_sizes: Sequence[int], **kwargs: Any) -> None:
        sizes = sizes_of(class_sizes)
        super().__init__(sizes.sum() / (len(sizes) * sizes), **kwargs)
        self.class_sizes = [int(n) for n in class_sizes]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"class_sizes": self.class_sizes}


@keras.saving.register_keras_serializable(package="tf_mwnet")
class WeightedOracle(ByClass):
    """The share of right labels among those given, per class, known (L2RW section 4.3, "Weighted").

    Scaled so that the weights of the training set have mean 1.

    Args:
        class_sizes: training examples of each class as labelled, ``[K]``.
        clean_share: share of them whose label is right, ``[K]``, 0 to 1.

    Raises:
        UserError: a share is outside 0 to 1, or all are 0.
    """

    from_run = ("class_sizes", "clean_share")

    def __init__(self, class_sizes: Sequence[int], clean_share: Sequence[float], **kwargs: Any) -> None:
        share, sizes = np.asarray(clean_share, np.float64), np.asarray(class_sizes, np.float64)
        for value in share:
            check_range("a share in clean_share", value, 0, 1)
        if not (share * sizes).sum() > 0:
            raise UserError("clean_share is 0 for all classes; allowed: above 0 for one or more")
        super().__init__(share * sizes.sum() / (share * sizes).sum(), **kwargs)
        self.class_sizes = [int(n) for n in class_sizes]
        self.clean_share = [float(v) for v in clean_share]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "class_sizes": self.class_sizes,
            "clean_share": self.clean_share,
        }


@keras.saving.register_keras_serializable(package="tf_mwnet")
class Resample(ERM):
    """Class-balanced batches (L2RW section 4.1, "Resample"): each class is drawn equally often.

    Examples are drawn with replacement; all have weight 1/B.
    """

    sampling = Sampling(balanced=True)
