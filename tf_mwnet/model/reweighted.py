"""`ReweightedModel`: an ordinary Keras model whose train step weights its examples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import keras
import tensorflow as tf

from tf_mwnet import losses, methods, strategies
from tf_mwnet.data import shares
from tf_mwnet.errors import UserError
from tf_mwnet.methods.base import EpochHook, Method
from tf_mwnet.model import classifier_head, example_record, inputs, train_step
from tf_mwnet.model import meta_scope as scopes
from tf_mwnet.model.step_functions import StepFunctions
from tf_mwnet.types import Batch


@keras.saving.register_keras_serializable(package="tf_mwnet")
class ReweightedModel(StepFunctions):
    """Trains a classifier on ``sum(example weights * example losses)``.

    Args:
        classifier: any built Keras model ``x -> [B, K]``.
        method: a `tf_mwnet.methods.Method`, a name ("mwnet", "erm", "gdw --eta=1000"), a dict with
            "name", or a serialised configuration.
        from_logits: whether the classifier returns logits (True) or probabilities.

    Raises:
        UserError: the classifier is not built, ends in a softmax while ``from_logits`` is True, has
            one output, or does not fit the method.

    Attributes:
        classifier: the classifier, which can be used and saved without this model.
        method: the method, with everything it has learned.
        record: loss, weight and prediction of each training example when it was last seen, see
            `tf_mwnet.model.example_record`; None until `record_examples`.

    Examples:
        >>> model = tf_mwnet.ReweightedModel(classifier, "mwnet")
        >>> model.compile(
        ...     optimizer=tf_mwnet.optimizers.SGD(0.1, momentum=0.9),
        ...     meta_optimizer=tf_mwnet.optimizers.Adam(1e-3),
        ... )
        >>> model.fit(x, y, meta_data=(x_meta, y_meta), epochs=60)
        >>> model.classifier.predict(x_test)
    """

    def __init__(
        self,
        classifier: keras.Model,
        method: Method | str | dict[str, Any] = "mwnet",
        from_logits: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        head = classifier_head.inspect(classifier, from_logits)
        self.classifier = classifier
        self.method = methods.get(method)
        self.method.prepare(head)
        # Class-level methods need a known number of classes: `prepare` has refused others.
        self._class_columns = (head.num_classes or 0) if self.method.class_level else 0
        self.from_logits = from_logits
        self.forward = classifier_head.forward(classifier, self.method.uses_features)
        self.meta_optimizer: keras.optimizers.Optimizer | None = None
        self.record: tf.Variable | None = None
        self.scope: list[int] = []
        self.late = False
        self._evaluating = False
        names = ("weighted_loss", "meta_loss")[: 1 + self.method.takes_meta_batches]
        self.means = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Applies the classifier: ``x -> [B, K]``."""
        return self.classifier(inputs, training=training)

    # ---------------------------------------------------------------- compiling and fitting

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "sgd",
        meta_optimizer: str | keras.optimizers.Optimizer = "adam",
        metrics: Sequence[Any] | None = ("accuracy",),
        jit_compile: bool = False,
        meta_scope: str = "all",
        meta_every: int = 1,
        meta_warmup: int = 0,
        meta_late: bool = False,
        **kwargs: Any,
    ) -> None:
        """Configures training as `keras.Model.compile` does, without ``loss``: the method defines it.

        Args:
            optimizer: of the classifier. Its learning rate is also the size of the virtual step.
            meta_optimizer: of what the method learns; unused if the method learns nothing.
            metrics: of logits against given labels.
            jit_compile: whether XLA compiles the whole step. Off by default: on a CPU compiling takes
                longer than it saves.
            meta_scope: the parameters that the virtual step moves: "all", "last_stage" or "head". The
                others' terms are left out of the meta gradient, see `tf_mwnet.model.meta_scope`.
            meta_every: learn the weights in every n-th step only; in between they follow from what
                has been learned so far. Multiply the meta optimizer's learning rate by it.
            meta_warmup: the first steps, which all learn whatever ``meta_every`` is.
            meta_late: update the classifier with the weights from before the update of what is
                learned, so that the virtual and the real step share one backward pass.
            **kwargs: as for `keras.Model.compile`.

        Raises:
            UserError: a value is not allowed, or does not fit the method or classifier.
        """
        scopes.check_every(self.method, meta_every)
        scopes.check_late(self.method, meta_late, meta_scope)
        self.check_workers(jit_compile, kwargs.get("steps_per_execution", 1))
        if meta_every > 1 and kwargs.get("steps_per_execution", 1) != 1:
            raise UserError(
                f"meta_every is {meta_every} with steps_per_execution"
                f" {kwargs['steps_per_execution']}; allowed: one of them above 1"
            )
        if kwargs.pop("loss", None) is not None:
            raise UserError("compile got a loss; allowed: none, since the method defines the losses")
        self.scope = scopes.indexes(self.classifier, meta_scope)
        self._meta_every, self._meta_warmup = int(meta_every), int(meta_warmup)
        self.late = bool(meta_late)
        super().compile(
            optimizer=optimizer, metrics=list(metrics or []), jit_compile=jit_compile, **kwargs
        )
        self._build_optimizers(meta_optimizer)
        self._resolved_compile = kwargs | {
            "optimizer": self.optimizer,
            "meta_optimizer": self.meta_optimizer,
            "metrics": list(metrics or []),
            "jit_compile": jit_compile,
            "meta_scope": meta_scope,
            "meta_every": meta_every,
            "meta_warmup": meta_warmup,
            "meta_late": meta_late,
        }

    def _build_optimizers(self, meta_optimizer: str | keras.optimizers.Optimizer) -> None:
        """Builds each optimizer on its own variables; Keras would build the first one on both."""
        learned = self.method.trainable_variables if self.method.learns else []
        self.meta_optimizer = None
        with self.distribute_strategy.scope():
            self.optimizer.build(self.trained)
            if learned:
                meta = keras.optimizers.get(meta_optimizer)
                scales = keras.optimizers.LossScaleOptimizer
                if isinstance(self.optimizer, scales) and not isinstance(meta, scales):
                    meta = scales(meta)
                meta.build(learned)
                self.meta_optimizer = meta

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        validation_data: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        meta_data: Any = None,
        meta_batch_size: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does, with a meta set.

        Args:
            x, y: arrays, or ``x`` a `tf.data.Dataset` of batches ``(x, y)``. With several workers,
                the same on all of them.
            batch_size: for arrays, of the global batch; 100 by default.
            meta_data: ``(x_meta, y_meta)`` arrays or a `tf.data.Dataset` of batches ``(x, y)``. Each
                step takes the next batch, from the start again at the end. Without it, methods made
                for a noisy meta set hold out a class-balanced sample of the arrays.
            meta_batch_size: for arrays; ``batch_size`` by default.
            shuffle: for arrays, whether each epoch has another order.
            seed: of that order.
            epochs, verbose, callbacks, validation_data, initial_epoch, steps_per_epoch: as in Keras.
            **kwargs: validation_steps, validation_batch_size, validation_freq.

        Returns:
            Keras's history: a list per metric with a value per epoch.

        Raises:
            UserError: the method needs a meta set and there is none, or an argument is meaningless here.
        """
        for name in ("sample_weight", "class_weight", "validation_split"):
            value = kwargs.pop(name, None)
            if value is not None and not (isinstance(value, float) and value == 0):
                raise UserError(f"fit got {name}; allowed: none, the method sets the example weights")
        size = batch_size or 100
        stream, steps, num_examples = inputs.pairs(
            self.method, x, y, meta_data, size, meta_batch_size or size, shuffle, seed
        )
        if num_examples:
            self.record_examples(num_examples)
        dataset = shares.distribute(stream, self.distribute_strategy)
        if isinstance(dataset, tf.data.Dataset):
            self.build_metrics(dataset.element_spec["train"].y)
        self._turn = int(self.optimizer.iterations.value.numpy())  # of a mirrored variable too
        if isinstance(validation_data, (tuple, list)) and len(validation_data) == 2:
            size = kwargs.setdefault("validation_batch_size", size)
        return super().fit(
            dataset,
            epochs=epochs,
            verbose=verbose,
            callbacks=[EpochHook(), *(callbacks or [])],
            validation_data=self._for_evaluation(validation_data, size),
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch or steps,
            shuffle=False,  # the stream has shuffled
            **kwargs,
        )

    def record_examples(self, num_examples: int) -> None:
        """Makes room for `record`: loss, weight, probability and prediction of each training example.

        Args:
            num_examples: N, above every index that the training batches carry.
        """
        self.method.check_rows(num_examples)
        if self.record is not None and self.record.shape[0] == num_examples + 1:
            return
        self.train_function = None  # traced with the record it had
        with self.distribute_strategy.scope():
            self.record = example_record.create(num_examples, self._class_columns)

    # ---------------------------------------------------------------- the step

    def to_logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Converts outputs of the classifier to logits, ``[B, K]``."""
        if self.from_logits:
            return outputs
        outputs = losses.full_precision(outputs)
        return tf.math.log(tf.maximum(outputs, tf.cast(keras.config.epsilon(), outputs.dtype)))

    def train_step(self, data: dict[str, Batch]) -> dict[str, tf.Tensor]:
        """Takes one step on ``{"train": Batch, "meta": Batch}``, see `tf_mwnet.model.train_step`."""
        return train_step.train_step(self, data, self._learning)

    @property
    def trained(self) -> list[keras.Variable]:
        """The variables that the classifier's optimizer trains."""
        own = [] if self.method.learns else self.method.trainable_variables
        return [*self.classifier.trainable_variables, *own]

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Updates loss and metrics by one batch ``(x, y)``."""
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        outputs = self(x, training=False)
        self.update_loss(losses.cross_entropy(self.to_logits(outputs), y))
        return self._without_means(self.compute_metrics(x, y, outputs))

    def evaluate(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, **kwargs: Any
    ) -> Any:
        """Evaluates as `keras.Model.evaluate` does: the loss is the unweighted mean cross-entropy."""
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

    # ---------------------------------------------------------------- saving

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "method": keras.saving.serialize_keras_object(self.method),
            "from_logits": self.from_logits,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        for part in ("classifier", "method"):
            config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)

    def get_compile_config(self) -> dict[str, Any]:
        if not self.compiled:
            return {}
        return keras.saving.serialize_keras_object(self._resolved_compile)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
