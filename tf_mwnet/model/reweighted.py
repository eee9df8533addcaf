"""The model: an ordinary Keras model whose train step weighs its examples."""

from __future__ import annotations

import warnings
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


@keras.saving.register_keras_serializable(package="tf_mwnet")
class ReweightedModel(StepFunctions):
    """Trains a classifier on ``sum(example weights * example losses)``.

    Args:
        classifier: any Keras model ``x -> [B, K]``, built.
        method: a `tf_mwnet.methods.Method`, a name ("mwnet", "erm") or a serialised configuration.
        from_logits: whether the classifier ends in logits (True) or in probabilities.

    Raises:
        UserError: the classifier is not built, ends in a softmax while ``from_logits`` is True, has
            one output, or does not fit the method.

    Attributes:
        classifier: the classifier, to be used and saved on its own.
        method: the method, with what it has learned.
        record: loss, weight and prediction of each training example when it was last seen, see
            `tf_mwnet.model.example_record`; None until `record_examples`.
    """

    def __init__(
        self, classifier: keras.Model, method: Method | str = "mwnet", from_logits=True, **kw: Any
    ) -> None:
        super().__init__(**kw)
        head = classifier_head.inspect(classifier, from_logits)
        self.classifier = classifier
        self.method = methods.get(method)
        self.method.prepare(head)
        self._class_columns = head.num_classes if self.method.class_level else 0
        self.from_logits = from_logits
        self.forward = classifier_head.forward(classifier, self.method.uses_features)
        self.meta_optimizer = None
        self.record = None
        self.scope: list[int] = []
        self.late = False
        self._evaluating = False
        names = ("weighted_loss", "meta_loss")[: 1 + self.method.takes_meta_batches]
        self.means = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    def call(self, inputs, training=False):
        return self.classifier(inputs, training=training)

    # ---------------------------------------------------------------- compiling and fitting

    def compile(
        self,
        optimizer="sgd",
        meta_optimizer="adam",
        metrics=("accuracy",),
        jit_compile=False,
        meta_scope="all",
        meta_every=1,
        meta_warmup=0,
        meta_late=False,
        **kwargs,
    ):
        """As `keras.Model.compile`, without ``loss``: the method supplies it.

        Args:
            optimizer: of the classifier. Its learning rate is also the virtual step's.
            meta_optimizer: of what the method learns; unused where that is nothing.
            metrics: of logits against given labels.
            jit_compile: compile the whole step with XLA. Off by default: on a CPU it costs more
                compile time than it gains.
            meta_scope: the parameters that the virtual step moves: "all"; "last_stage" or "head",
                which leaves the other terms out of the meta gradient, see `tf_mwnet.model.meta_scope`.
            meta_every: steps from one that learns to the next; between them the weights come from
                what has been learned so far. Multiply the meta optimizer's learning rate by it.
            meta_warmup: steps at the start that all learn, whatever ``meta_every`` is.
            meta_late: take the classifier's step with the weights from before the step of what is
                learned, and share its backward pass with the virtual step.

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
        self.scope = scopes.indexes(self.classifier, meta_scope)
        self._meta_every, self._meta_warmup = int(meta_every), int(meta_warmup)
        self.late = bool(meta_late)
        if kwargs.pop("loss", None) is not None:
            raise UserError("compile got a loss; allowed: none, since the method defines the losses")
        super().compile(
            optimizer=optimizer, metrics=list(metrics or []), jit_compile=jit_compile, **kwargs
        )
        learned = self.method.trainable_variables if self.method.learns else []
        self.meta_optimizer = keras.optimizers.get(meta_optimizer) if learned else None
        with self.distribute_strategy.scope():
            # Each optimizer on its own variables: by itself Keras would build the first on both.
            self.optimizer.build(self.trained)
            if self.meta_optimizer is not None:
                scales = keras.optimizers.LossScaleOptimizer
                if isinstance(self.optimizer, scales) and not isinstance(self.meta_optimizer, scales):
                    self.meta_optimizer = scales(self.meta_optimizer)
                self.meta_optimizer.build(learned)
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

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_data=None,
        initial_epoch=0,
        steps_per_epoch=None,
        meta_data=None,
        meta_batch_size=None,
        shuffle=True,
        seed=0,
        **kwargs,
    ):
        """As `keras.Model.fit`, with a meta set.

        Args:
            x, y: arrays, or ``x`` a `tf.data.Dataset` of batches ``(x, y)``. On several workers all
                have the same of it.
            meta_data: ``(x_meta, y_meta)`` arrays or a `tf.data.Dataset` of batches ``(x, y)``; each
                step takes its next batch, from the start again when it ends. Methods for a noisy meta
                set take a class-balanced sample out of the arrays where there is none.
            batch_size: for arrays, of the global batch; 100 by default.
            meta_batch_size: for arrays; as ``batch_size`` by default.
            shuffle: for arrays, whether each epoch has its own order.
            seed: of that order.
            **kwargs: validation_steps, validation_batch_size, validation_freq.

        Raises:
            UserError: the method needs a meta set and has none, or an argument has no meaning here.
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
        """Keeps loss, weight, probability and prediction of each training example, see ``record``.

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

    def to_logits(self, outputs):
        """Outputs of the classifier as logits, ``[B, K]``."""
        if self.from_logits:
            return outputs
        outputs = losses.full_precision(outputs)
        return tf.math.log(tf.maximum(outputs, tf.cast(keras.config.epsilon(), outputs.dtype)))

    def train_step(self, data):
        """One step on ``{"train": Batch, "meta": Batch}``, see `tf_mwnet.model.train_step`."""
        return train_step.train_step(self, data, self._learning)

    @property
    def trained(self):
        """Variables that the classifier's optimizer trains."""
        own = [] if self.method.learns else self.method.trainable_variables
        return [*self.classifier.trainable_variables, *own]

    def test_step(self, data):
        """Loss and metrics of one batch ``(x, y)``."""
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        outputs = self(x, training=False)
        self.update_loss(losses.cross_entropy(self.to_logits(outputs), y))
        return self._without_means(self.compute_metrics(x, y, outputs))

    def evaluate(self, x=None, y=None, batch_size=None, **kwargs):
        """As `keras.Model.evaluate`: loss is the mean cross-entropy, unweighted."""
        self._evaluating = True
        try:
            if strategies.several_workers(self.distribute_strategy) and y is not None:
                x, y = self._for_evaluation((x, y), batch_size), None
            with warnings.catch_warnings():  # Keras's, where it does not know a dataset's length
                warnings.filterwarnings("ignore", "Your input ran out of data")
                return super().evaluate(x, y, batch_size, **kwargs)
        finally:
            self._evaluating = False

    def _for_evaluation(self, data, batch_size):
        """What Keras can evaluate on: streams, and all data on several workers, cut into shares."""
        strategy = self.distribute_strategy
        if callable(data) or (data is not None and strategies.several_workers(strategy)):
            return shares.distribute(inputs.in_order(data, batch_size or 100), strategy)
        return data

    def get_metrics_result(self):
        """As `keras.Model.get_metrics_result`; in evaluation without the means of training."""
        logs = super().get_metrics_result()
        return self._without_means(logs) if self._evaluating else logs

    def _without_means(self, logs):
        return {k: v for k, v in logs.items() if k not in self.means}

    def update_loss(self, values):
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

    def get_compile_config(self):
        if not self.compiled:
            return {}
        return keras.saving.serialize_keras_object(self._resolved_compile)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
