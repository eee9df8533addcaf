"""Joint optimization of the classifier and the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.errors import UserError
from tf_mwnet.methods.class_weights import checked_sizes
from tf_mwnet.methods.options import Option
from tf_mwnet.methods.targets import SoftTargets, given, predicted
from tf_mwnet.types import Examples, Outputs


@keras.saving.register_keras_serializable(package="tf_mwnet")
class JointOptimization(SoftTargets):
    """Joint optimization: replaces the labels by soft labels from the classifier's own predictions.

        objective = mean_i KL(q_i || p_i) + alpha sum_k c_k log(c_k / mean_i p_ik)
                    + beta mean_i entropy(p_i)

    p is the softmax of the logits, q_i the soft label of example i, and c_k the share of class k. q
    starts as the given label. A run trains for half of its epochs on this objective. After the
    ``warm_up`` it replaces q at the start of each epoch by the mean prediction of the last ``average``
    epochs. For the other half the run starts again and trains on the cross-entropy with the last q.

    As losses and weights, both ``[B, 2K + 1]``:

        losses_i  = (-log p_ik)_k,   (-p_ik)_k,                         entropy(p_i)
        weights_i = (q_ik / B)_k,    (alpha c_k / (B mean_j p_jk))_k,   beta / B

    The second part does not sum to the middle term of the objective, but has its gradient.

    Source: Tanaka et al., CVPR 2018, eq. 3-8 and Algorithm 1, with soft labels.

    Departures: the learning rate follows the run's schedule in both halves; theirs is large and constant
    in the first. c is taken from the given labels; theirs are equal shares.

    Args:
        num_examples: N, number of training examples, at least 1; above every row that the training
            batches carry. A run fills it in.
        class_sizes: training examples of each class as labelled, int ``[K]``. A run fills it in.
        alpha: factor of the term for the class shares, at least 0; 1.2 in the paper.
        beta: factor of the entropy, at least 0; 0.8 in the paper.
        warm_up: fraction of the epochs that use the given labels, 0 to 1; 70 of 200 epochs in the paper.
        average: number of epochs whose predictions are averaged, at least 1; 10 in the authors' code.
        updating: True for the first half: labels are replaced and all three terms count. False for the
            second.
        labels: q at the start, float ``[N, K]``; None for the given labels. They are part of the
            method's state, not of its configuration.
        **kwargs: as for `Method`.

    Raises:
        UserError: a value is out of range, or ``labels`` has another shape; in `prepare`,
            ``class_sizes`` has another length than the classifier's output.

    Examples:
        >>> config = tf_mwnet.Experiment(method="joint_optimization --beta=0.4", compare="erm")
        >>> result = tf_mwnet.run(config)
    """

    from_run = ("num_examples", "class_sizes")
    options = (
        Option("alpha", "factor of the term for the class shares", at_least=0),
        Option("beta", "factor of the entropy", at_least=0),
        Option("warm_up", "part of the epochs with the given labels", at_least=0, at_most=1),
        Option("average", "epochs whose predictions are averaged", at_least=1),
    )

    def __init__(
        self,
        num_examples: int,
        class_sizes: Sequence[int],
        alpha: float = 1.2,
        beta: float = 0.8,
        warm_up: float = 0.35,
        average: int = 10,
        updating: bool = True,
        labels: np.ndarray | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_examples = self.example_count(num_examples)
        self.class_sizes = checked_sizes(class_sizes)
        self.alpha, self.beta = self.option("alpha", alpha), self.option("beta", beta)
        self.warm_up = self.option("warm_up", warm_up)
        self.average = self.option("average", average)
        self.updating = bool(updating)
        shape, floatx = (self.num_examples, len(self.class_sizes)), keras.config.floatx()
        # A row of zeros stands for the given label, or for an example not seen yet.
        self.labels = self.add_state(shape, floatx, "labels")
        if labels is not None:
            if np.shape(labels) != shape:
                raise UserError(f"labels has the shape {np.shape(labels)}; allowed: {shape}")
            self.labels.assign(labels)
        self.epoch = self.add_state((), "int64", "epoch")
        slots = self.average if self.updating else 0
        self.history = self.add_state((slots * shape[0], shape[1]), floatx, "history")

    @classmethod
    def first_stage(cls, arguments: dict[str, Any]) -> str:
        return "joint_optimization"

    @classmethod
    def estimate(cls, outputs: Outputs) -> dict[str, Any]:
        return {"labels": outputs.method.averaged(), "updating": False}

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        if self.updating and 0 < epoch >= self.warm_up * epochs:
            self.labels.assign(self.averaged())
        self.epoch.assign(epoch)

    def averaged(self) -> np.ndarray:
        """Returns the mean prediction of the last epochs, ``[N, K]``; zeros for unseen examples."""
        predictions = self.history.value.numpy().reshape(self.average, *self.labels.shape)
        epochs = predictions.any(axis=2).sum(axis=0)
        return predictions.sum(axis=0) / np.maximum(epochs, 1)[:, None]

    def observe(self, examples: Examples) -> None:
        if not self.updating:
            return
        seen = tf.cast(predicted(examples), self.history.dtype)
        first = (tf.convert_to_tensor(self.epoch) % self.average) * self.num_examples
        rows = replicas.gather(first + examples.index)
        self.history.value.scatter_update(tf.IndexedSlices(replicas.gather(seen), rows))

    def targets(self, examples: Examples) -> tf.Tensor:
        label = given(examples)
        own = tf.gather(tf.convert_to_tensor(self.labels), examples.index)
        own = tf.cast(own, label.dtype)
        return tf.where(tf.reduce_any(own > 0, axis=1, keepdims=True), own, label)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        log = tf.nn.log_softmax(losses.full_precision(logits))
        p = tf.exp(log)
        entropy = -tf.reduce_sum(p * log, axis=1, keepdims=True)
        return tf.concat([-log, -p, entropy], axis=1)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        label = super().example_weights(examples)
        p = predicted(examples)
        size = replicas.batch_size(p, p.dtype)
        mean = replicas.all_sum(tf.reduce_sum(p, axis=0)) / size
        share = np.array(self.class_sizes) / np.sum(self.class_sizes)
        alpha, beta = (self.alpha, self.beta) if self.updating else (0.0, 0.0)
        prior = alpha * tf.constant(share, p.dtype) / tf.maximum(mean, 1e-8) / size
        entropy = tf.fill([tf.shape(p)[0], 1], tf.constant(beta, p.dtype) / size)
        return tf.concat([label, tf.broadcast_to(prior, tf.shape(p)), entropy], axis=1)

    def label_weight(self, weights: tf.Tensor, examples: Examples) -> tf.Tensor:
        """Returns the weight of each example's given label, ``[B]``."""
        return super().label_weight(weights[:, : len(self.class_sizes)], examples)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_examples": self.num_examples,
            "class_sizes": self.class_sizes,
            "updating": self.updating,
        }
