"""`ReweightedModel`: an ordinary Keras model whose train step weights its examples."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import methods
from tf_mwnet.data import shares, streams
from tf_mwnet.errors import UserError, check_range, user_errors
from tf_mwnet.methods.base import EpochHook, Method
from tf_mwnet.model import (
    classifier_head,
    compiling,
    example_record,
    examples,
    inputs,
    mixing,
    train_step,
)
from tf_mwnet.model import meta_scope as scopes
from tf_mwnet.model.averaging import Averages, GradientAverage
from tf_mwnet.model.copies import copied
from tf_mwnet.model.saved import Saved
from tf_mwnet.types import Batch


@keras.saving.register_keras_serializable(package="tf_mwnet")
class ReweightedModel(Saved):
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
        # Of a subclassed classifier the number of classes is not known: then changes are not recorded.
        self.class_columns = (head.num_classes or 0) if self.method.records_class_changes else 0
        self.from_logits = from_logits
        self.forward = classifier_head.forward(classifier, self.method.uses_features)
        self.meta_optimizer: keras.optimizers.Optimizer | None = None
        self.record: tf.Variable | None = None
        self.scope: list[int] = []
        self.layer_names = [layer.name for layer in compiling.all_layers(classifier)]
        self._num_classes = head.num_classes
        self.late = False
        self.averages: Averages | None = None
        self.meta_average: GradientAverage | None = None
        self.evaluates_average = False
        self.mixup = self.meta_mixup = self.label_smoothing = self.grad_clip = 0.0
        self.mixup_seed = 0
        self._evaluating = self._checked = self._traced = False
        names = ("weighted_loss", "meta_loss")[: 1 + self.method.takes_meta_batches]
        self.means = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Applies the classifier, outside of training its average if ``ema`` is set: ``x -> [B, K]``."""
        if self.averages is not None and self.evaluates_average and not training:
            return self.averages.outputs(self.classifier, inputs)
        return self.classifier(inputs, training=training)

    # ---------------------------------------------------------------- compiling and fitting

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "sgd",
        meta_optimizer: str | keras.optimizers.Optimizer = "adam",
        metrics: Any = ("accuracy",),
        jit_compile: bool = False,
        meta_scope: str = "all",
        meta_every: int = 1,
        meta_start: int = 0,
        meta_warmup: int = 0,
        meta_late: bool = False,
        meta_ema: float = 0.0,
        mixup: float = 0.0,
        meta_mixup: float = 0.0,
        mixup_seed: int = 0,
        label_smoothing: float = 0.0,
        grad_clip: float = 0.0,
        ema: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Configures training as `keras.Model.compile` does, without ``loss``: the method defines it.

        Args:
            optimizer: of the classifier. Its learning rate is also the size of the virtual step.
            meta_optimizer: of what the method learns; unused if the method learns nothing.
            metrics: of logits against given labels, one or several.
            jit_compile: whether XLA compiles the whole step. Off by default: on a CPU compiling takes
                longer than it saves.
            meta_scope: the parameters that the virtual step moves: "all", "last_stage" or "head". The
                others' terms are left out of the meta gradient, see `tf_mwnet.model.meta_scope`.
            meta_every: learn the weights in every n-th step only; in between they follow from what
                has been learned so far. Raise the meta optimizer's learning rate, see
                `tf_mwnet.experiment.rates.factor`.
            meta_start: number of first steps that do not learn.
            meta_warmup: number of steps after them that all learn, whatever ``meta_every`` is.
            meta_late: update the classifier with the weights from before the update of what is
                learned, so that the virtual and the real step share one backward pass.
            meta_ema: momentum of a moving average of the meta loss's gradient, 0 to below 1; 0 for
                each meta batch's own, see `tf_mwnet.model.averaging.GradientAverage`.
            mixup: alpha of mixup (Zhang et al., ICLR 2018), not negative; 0 for none. See
                `tf_mwnet.model.mixing`.
            meta_mixup: the same of the meta batches, whose mixed loss then has both labels.
            mixup_seed: of their draws, which also depend on the number of the step.
            label_smoothing: e, 0 to below 1: labels to train on are ``(1 - e) y + e / K``.
            grad_clip: largest norm of the gradient of the whole classifier; 0 for any.
            ema: momentum of a moving average of the classifier, 0 to below 1, which evaluation and
                prediction then use (`averages`); 0 for none, or for a method that uses one, its own
                momentum and evaluation of the classifier itself.
            **kwargs: as for `keras.Model.compile`.

        Raises:
            UserError: a value is not allowed, or does not fit the method or classifier.
        """
        at_once = kwargs.get("steps_per_execution", 1)
        scopes.check_turns(self.method, meta_every, meta_start, at_once)
        scopes.check_ema(self.method, meta_ema)
        scopes.check_late(self.method, meta_late, meta_scope)
        mixing.check_smoothing(self.method, label_smoothing)
        compiling.check_learned(self.method)
        self.check_workers(jit_compile, at_once)
        if kwargs.pop("loss", None) is not None:
            raise UserError("compile got a loss; allowed: none, since the method defines the losses")
        compiling.two_optimizers(optimizer, meta_optimizer)
        if self.method.learns:
            compiling.plain_kernels(compiling.all_layers(self.classifier))
        self._meta_scope, self.scope = meta_scope, scopes.indexes(self.classifier, meta_scope)
        self._meta_every, self._meta_warmup = int(meta_every), int(meta_warmup)
        self._meta_start = int(meta_start)
        self.late = bool(meta_late)
        for name, value in (("mixup", mixup), ("meta_mixup", meta_mixup)):
            check_range(name, value, 0, mixing.LARGEST_ALPHA)
        check_range("grad_clip", grad_clip, 0)
        for name, value in (("label_smoothing", label_smoothing), ("ema", ema), ("meta_ema", meta_ema)):
            if not 0 <= value < 1:
                raise UserError(f"{name} is {value}; allowed: 0 to below 1")
        self.mixup, self.meta_mixup = float(mixup), float(meta_mixup)
        self.mixup_seed = int(mixup_seed)
        self.label_smoothing, self.grad_clip = float(label_smoothing), float(grad_clip)
        with self.distribute_strategy.scope():
            momentum = ema or self.method.ema
            self.averages = Averages(self.classifier, momentum) if momentum else None
            self.meta_average = GradientAverage(self.classifier, meta_ema) if meta_ema else None
            self.evaluates_average = bool(ema)
        metrics = compiling.metrics(metrics)
        super().compile(optimizer=optimizer, metrics=metrics, jit_compile=jit_compile, **kwargs)
        compiling.check_velocity(self.method.look_ahead, self.optimizer)
        self._build_optimizers(meta_optimizer)
        self._resolved_compile = kwargs | {
            "optimizer": self.optimizer,
            "meta_optimizer": self.meta_optimizer,
            "metrics": metrics,
            "jit_compile": jit_compile,
            "meta_scope": meta_scope,
            "meta_every": meta_every,
            "meta_start": meta_start,
            "meta_warmup": meta_warmup,
            "meta_late": meta_late,
            "meta_ema": meta_ema,
            "mixup": mixup,
            "meta_mixup": meta_mixup,
            "mixup_seed": mixup_seed,
            "label_smoothing": label_smoothing,
            "grad_clip": grad_clip,
            "ema": ema,
        }

    def _build_optimizers(self, meta_optimizer: str | keras.optimizers.Optimizer) -> None:
        """Builds each optimizer on its own variables; Keras would build the first one on both."""
        learned = self.method.trainable_variables if self.method.learns else []
        self.meta_optimizer = None
        self._built_for = self._traced_for = frozenset(map(id, self.trained))
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
        callbacks: Any = None,
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
            x, y: arrays, or ``x`` a `tf.data.Dataset` or `keras.utils.PyDataset` of batches ``(x, y)``.
                Labels are integers ``[N]`` or class probabilities ``[N, K]``. With several workers, the
                same on all of them.
            batch_size: for arrays, of the global batch; 100 by default.
            meta_data: ``(x_meta, y_meta)`` arrays or a dataset of batches ``(x, y)``. Each step takes
                the next batch, from the start again at the end. Without it, methods that draw their own
                do so, and others made for a noisy meta set hold out a class-balanced sample of the
                arrays.
            meta_batch_size: for arrays; ``batch_size`` by default.
            shuffle: for arrays, whether each epoch has another order.
            seed: of that order, which also depends on the number of steps that the optimizer has taken:
                a second call goes on where the first one ended.
            callbacks: one, or several.
            epochs, verbose, validation_data, initial_epoch, steps_per_epoch: as in Keras.
            **kwargs: validation_steps, validation_batch_size, validation_freq.

        Returns:
            Keras's history: a list per metric with a value per epoch.

        Raises:
            UserError: `compile` was not called; the method needs a meta set and there is none; an
                argument is meaningless here; a label is not allowed; the classifier does not return
                what ``from_logits`` says; or the meta gradient cannot be taken through one of its
                layers.
        """
        for name in ("sample_weight", "class_weight", "validation_split"):
            value = kwargs.pop(name, None)
            if value is not None and not (isinstance(value, float) and value == 0):
                raise UserError(f"fit got {name}; allowed: none, the method sets the example weights")
        whole = compiling.whole
        batch_size, meta_batch_size = (
            value if value is None else whole(name, value, 1)
            for name, value in (("batch_size", batch_size), ("meta_batch_size", meta_batch_size))
        )
        epochs, seed = whole("epochs", epochs), whole("seed", seed, -(2**63))
        size = batch_size or 100
        self._follow_trainable()
        self._begin()
        stream, steps, num_examples, draws = inputs.pairs(
            self.method, x, y, meta_data, size, meta_batch_size or size, shuffle, seed,
            self._num_classes, self._known_inputs, lambda: self._first_step,
            whole_passes=steps_per_epoch is None, anew=self.steps_per_execution > 1,
        )  # fmt: skip
        if num_examples:
            self.record_examples(num_examples)
        steps = steps_per_epoch or steps
        further = compiling.callbacks(callbacks)
        if draws is not None:
            further = [draws, *further]
        at_once = self.steps_per_execution
        if steps and num_examples and (draws is not None or steps % at_once):
            stream, steps = streams.epochs(stream, steps), None  # else Keras may take more than steps
        if steps and steps % at_once:
            raise UserError(
                f"steps_per_epoch is {steps} with steps_per_execution {at_once}; allowed: a multiple"
                " of it"
            )
        dataset = shares.distribute(stream, self.distribute_strategy)
        if isinstance(dataset, tf.data.Dataset):
            self.build_metrics(dataset.element_spec["train"].y)
        self._check_outputs(stream)
        if isinstance(validation_data, (tuple, list)) and len(validation_data) == 2:
            size = kwargs.setdefault("validation_batch_size", size)
            validation_data = self._labelled("validation_data", *validation_data)
        # A dataset is read anew in each epoch, by a step that also counts itself.
        here = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: self._begin())
        with user_errors(), warnings.catch_warnings():
            if steps is None:  # Keras's, where it does not know a dataset's length
                warnings.filterwarnings("ignore", "Your input ran out of data")
            return super().fit(
                dataset,
                epochs=epochs,
                verbose=verbose,
                callbacks=[EpochHook(), here, *further],
                validation_data=self._for_evaluation(validation_data, size),
                initial_epoch=initial_epoch,
                steps_per_epoch=steps,
                shuffle=False,  # the stream has shuffled
                **kwargs,
            )

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
        meta_data: Any = None,
    ) -> Any:
        """Takes one step on a batch of arrays, as `keras.Model.train_on_batch`, with a meta batch.

        Args:
            x, y, meta_data: arrays as for `fit`, each used whole.
            sample_weight, class_weight: none; the method sets the weights.
            return_dict: whether to return a dictionary.

        Returns:
            The metrics, as Keras returns them.

        Raises:
            UserError: see `fit`.
        """
        if sample_weight is not None or class_weight is not None:
            raise UserError("train_on_batch got weights; allowed: none, the method sets them")
        if "num_examples" in self.method.from_run:
            raise UserError(
                f"{type(self.method).__name__} keeps numbers of each example, and a batch alone does not"
                " say which examples it has; allowed: fit"
            )
        needed = self.method.takes_meta_batches
        if needed and not (isinstance(meta_data, (tuple, list)) and len(meta_data) == 2):
            raise UserError(f"{type(self.method).__name__} needs meta_data; allowed: arrays (x, y)")
        self._follow_trainable()
        data = {"train": inputs.batch(*self._labelled("x", x, y))}
        if needed:
            data["meta"] = inputs.batch(*self._labelled("meta_data", *meta_data))
        self.build_metrics(data["train"].y)
        self.make_train_function()
        self._begin()
        self.reset_metrics()
        assert self.train_function is not None
        logs = self.train_function(iter([data]))
        logs = {name: float(value) for name, value in logs.items()}
        return logs if return_dict else list(logs.values())

    def _check_outputs(self, stream: shares.Stream) -> None:
        """Checks what a classifier returns that could not be called before there was data."""
        if not self._known_inputs and not self._checked:
            x = tf.nest.map_structure(lambda part: part[:2], next(iter(stream()))["train"].x)
            outputs = keras.ops.convert_to_numpy(self.classifier(x, training=False))
            classifier_head.check_outputs(self.classifier.name, outputs, self.from_logits)
            self._checked = True

    def _begin(self) -> None:
        self._turn = self._first_step = compiling.steps_taken(self.optimizer)

    def _follow_trainable(self) -> None:
        """Follows layers that were frozen since ``compile``, or since the last step was traced."""
        if not self.compiled:
            raise UserError("the model is not compiled; allowed: compile(optimizer=...), then fit")
        compiling.check_trained(self._built_for, self.trained, self.layer_names)
        if (now := frozenset(map(id, self.trained))) != self._traced_for:
            self.scope = scopes.indexes(self.classifier, self._meta_scope)
            self._traced_for, self.train_function = now, None

    def final_classifier(self) -> keras.Model:
        """Returns the classifier that is evaluated: with ``ema`` a copy that has the averages.

        Raises:
            UserError: there has to be a copy, and cannot be, see `copies.copied`.
        """
        if self.averages is None or not self.evaluates_average:
            return self.classifier
        copy = copied(self.classifier)
        self.averages.copy_to(copy)
        return copy

    def _labelled(self, name: str, x: Any, y: Any) -> tuple[Any, np.ndarray]:
        """Checks arrays, see `examples.labelled`."""
        return examples.labelled(name, x, y, self._num_classes, self._known_inputs)[:2]

    @property
    def _known_inputs(self) -> list[keras.KerasTensor]:
        """What the classifier takes; none if it is subclassed."""
        return getattr(self.classifier, "inputs", None) or []

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
            self.record = example_record.create(num_examples, self.class_columns)

    # ---------------------------------------------------------------- the step

    def train_step(self, data: dict[str, Batch]) -> dict[str, tf.Tensor]:
        """Takes one step on ``{"train": Batch, "meta": Batch}``, see `tf_mwnet.model.train_step`."""
        if tf.executing_eagerly() and not self._traced:
            self._traced = True  # a graph shows what has no second derivative, eager tensors do not
            once = tf.function(lambda: train_step.train_step(self, data), autograph=False)
            once.get_concrete_function()
        return train_step.train_step(self, data, self._learning)

    def _is_plain(self) -> bool:
        return self.method.plain

    @property
    def trained(self) -> list[keras.Variable]:
        """The variables that the classifier's optimizer trains."""
        own = [] if self.method.learns else self.method.trainable_variables
        return [*self.classifier.trainable_variables, *own]
