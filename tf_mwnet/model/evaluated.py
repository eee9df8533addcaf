"""The evaluation of a model: Keras's, with the mean cross-entropy as its loss."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import tensorflow as tf

from tf_mwnet import losses, strategies
from tf_mwnet.data import shares
from tf_mwnet.errors import UserError
from tf_mwnet.model import inputs
from tf_mwnet.model.step_functions import StepFunctions


class Evaluated(StepFunctions):
    """A model whose outputs are logits or probabilities, evaluated on given labels.

    Attributes:
        from_logits: whether the outputs are logits.
        means: metrics of training alone, by name.
    """

    from_logits: bool
    means: dict[str, keras.metrics.Mean]
    _evaluating = False

    def to_logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Converts outputs of the classifier to logits, ``[B, K]``."""
        if self.from_logits:
            return outputs
        outputs = losses.full_precision(outputs)
        return tf.math.log(tf.maximum(outputs, tf.cast(keras.config.epsilon(), outputs.dtype)))

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Updates loss and metrics by one batch ``(x, y)``."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        _check_no_weights(weight)
        outputs = self(x, training=False)
        self.update_loss(losses.cross_entropy(self.to_logits(outputs), y))
        return self._without_means(self.compute_metrics(x, y, outputs))

    def evaluate(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, **kwargs: Any
    ) -> Any:
        """Evaluates as `keras.Model.evaluate` does: the loss is the unweighted mean cross-entropy.

        Raises:
            UserError: there are sample weights.
        """
        _check_no_weights(kwargs.get("sample_weight"))
        self._evaluating = True
        try:
            if strategies.several_workers(self.distribute_strategy) and y is not None:
                x, y = self._for_evaluation((x, y), batch_size), None
            with warnings.catch_warnings():  # Keras's, where it does not know a dataset's length
                warnings.filterwarnings("ignore", "Your input ran out of data")
                return super().evaluate(x, y, batch_size, **kwargs)
        finally:
            self._evaluating = False

    def _for_evaluation(self, data: Any, batch_size: int | None) -> Any:
        """Converts data to what Keras can evaluate on; on several workers each gets its share."""
        if isinstance(data, (tuple, list)) and len(data) > 2:
            _check_no_weights(data[2])
        strategy = self.distribute_strategy
        if callable(data) or (data is not None and strategies.several_workers(strategy)):
            return shares.distribute(inputs.in_order(data, batch_size or 100), strategy)
        return data

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns the metrics as Keras does; in evaluation without the means of training."""
        logs = super().get_metrics_result()
        return self._without_means(logs) if self._evaluating else logs

    def _without_means(self, logs: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in logs.items() if k not in self.means}

    def update_loss(self, values: tf.Tensor) -> None:
        """Adds cross-entropies ``[B]`` to the metric "loss"."""
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(values)


def _check_no_weights(weight: Any) -> None:
    if weight is not None:
        raise UserError("evaluation got sample weights; allowed: (x, y), whose loss is the plain mean")
