"""A weight function that was learned elsewhere, on other data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_mwnet.errors import UserError
from tf_mwnet.methods.base import Method
from tf_mwnet.methods.groups import by_group, scale_groups
from tf_mwnet.methods.normalise import batch_weights
from tf_mwnet.networks.weight_function import WeightFunction
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class FrozenWeights(Method):
    """Weights ``V(loss_i)`` with V from a SavedModel: no meta set is needed and nothing is learned.

    Departure: if the file has the course of V over its own training, V follows it: at each share of
    the epochs it is what it was there. The final V fits the losses of the end. At the start, when all
    losses are large, it can give almost every example a weight of zero (docs/results.md, "Transfer").

    Args:
        path: a version folder written by `tf_mwnet.export.export_weight_net`, or any SavedModel
            whose ``serving_default`` maps ``loss [n, 1]`` float32 to ``weight [n, 1]`` float32, or to
            ``[n, G]`` for G groups of classes; or the folder above it, for its highest version.
        normalise: as in `MWNet`; by default as the model card next to the SavedModel says, and True
            without a card.
        replay: follow the course of V, if the file has one; else use the final V.
        class_sizes: training examples of each class, ``[K]``, for a function with groups: the classes
            of the new data are clustered as in `CMWNet`. Unused otherwise.

    Raises:
        UserError: nothing can be loaded from ``path``, the signature differs, or the function has
            groups and ``class_sizes`` are missing or have fewer distinct values.

    Examples:
        >>> frozen = tf_mwnet.methods.FrozenWeights("saved_models/mnist_uniform")
        >>> tf_mwnet.ReweightedModel(classifier, frozen).fit(x, y)
    """

    def __init__(
        self,
        path: str,
        normalise: bool | None = None,
        replay: bool = True,
        class_sizes: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.saved_model = str(path)
        # Held in a tuple: the function's variables are constants, not part of a checkpoint.
        self._function = (WeightFunction(self.saved_model),)
        self.normalise = self._function[0].normalised if normalise is None else bool(normalise)
        self.replay = bool(replay)
        self.progress = None
        if self.replay and self._function[0].has_course:
            self.progress = self.add_state((), "float32", "progress")
        self.class_sizes = [] if class_sizes is None else [int(n) for n in class_sizes]
        groups = self._function[0].groups
        if groups > 1:
            if not self.class_sizes:
                raise UserError(f"weight net '{path}' has {groups} groups; allowed: with class_sizes")
            self.group_of_class = scale_groups(self.class_sizes, groups)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        if self.progress is not None:
            self.progress.assign((epoch + 0.5) / epochs)

    def weight_function(self, loss: tf.Tensor) -> tf.Tensor:
        progress = None if self.progress is None else self.progress.value
        return tf.cast(self._function[0](tf.cast(loss, tf.float32), progress), loss.dtype)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        values = self.weight_function(examples.losses)
        if self.group_of_class is not None:
            values = by_group(values, examples, self.group_of_class)
        return batch_weights(values, self.normalise)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "path": self.saved_model,
            "normalise": self.normalise,
            "replay": self.replay,
            "class_sizes": self.class_sizes or None,
        }
