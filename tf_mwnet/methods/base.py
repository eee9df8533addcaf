"""The contract of a method: three small functions on top of the meta gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses
from tf_mwnet.errors import UserError, check_range, choose
from tf_mwnet.meta import dense
from tf_mwnet.methods.options import Option, converted, default_of
from tf_mwnet.methods.probe import Probe
from tf_mwnet.types import EACH_ONCE, Examples, Head, Outputs

T = TypeVar("T")

# For methods that weight the losses of examples, whichever these are.
LOSS = Option("loss", "loss to train on", choices=tuple(losses.TRAINING))


class Method(keras.layers.Layer):
    """Decides how much each training example counts.

    The training objective is ``sum(example_weights * example_losses)``, two tensors of the same shape,
    ``[B]`` or ``[B, K]``. `tf_mwnet.ReweightedModel` owns the train step; a method supplies

    * `example_losses`: differentiable with respect to the logits;
    * `example_weights`: computed from constants;
    * `learn`: takes the gradient G of the meta loss with respect to the weights, updates what the
      method learns, and returns the weights of the real step. By default the method's trainable
      variables take one step of the meta optimizer along G, sent back through `example_weights`.

    A method with other state updates it in `observe`, called once a step before `example_weights`, and
    in `begin_epoch`; `add_state` creates it. Trainable variables of a method that does not learn from a
    meta set are trained together with the classifier, by its optimizer.

    A method gets what it needs to know of the data (class sizes, number of examples) in its
    constructor, and what it needs to know of the classifier in `prepare`.

    It is a Keras layer so that its variables are tracked, saved and distributed with the model. On
    several replicas each function sees its replica's share of the batch; sums over the batch go through
    `tf_mwnet.replicas`.

    Args:
        meta_loss: the loss of a meta example: a name in `losses.LOSSES`, or a function of logits
            ``[B, K]`` and labels that returns ``[B]``.
        loss: the loss of a training example, a name in `losses.TRAINING`; for methods that do not
            define their own.

    Attributes:
        learns: whether the method learns in each step, by `learn`.
        needs_meta: whether a run must have a meta set for it.
        meta_gradient: where the gradient of the meta loss that `learn` gets is taken: "virtual", after
            a virtual step; "current", at the current parameters, which is cheaper and the same if
            ``example_weights`` are 0; "none", for a method that learns in another way.
        meta_labels: "clean" or "noisy": what the method is made for, and a run's default.
        options: the method's own options, see `options.Option`.
        from_run: names of the constructor arguments that a run fills in, from its configuration
            (``hidden``, ``seed``) or its training set (``num_examples``, ``class_sizes``).
        meta_lr: the learning rate of the meta optimizer that a run uses by default.
        replaceable: whether a weight function that was learned elsewhere can take the method's place,
            see `methods.FrozenWeights`.
        draws_meta: whether the method chooses its meta set among the training examples before each
            epoch, by `draw_meta`. A run then gives it no other; `ReweightedModel.fit` does, if asked to.
        ema: momentum of a moving average of the classifier that the method uses (`Examples.averaged`),
            unless ``compile`` gets another; 0 for none.
        look_ahead: m of a virtual step that goes on with the optimizer's momentum v: by
            ``-a (m v + g)``; 0 for the plain ``-a g``.
        sees_virtual: whether `observe_virtual` is called.
        plain: whether the epoch that has begun trains plainly: without learning and without mixup. For
            `begin_epoch` to set.
        continues: whether a run that trains another method first (`first_stage`) goes on with its
            classifier instead of a fresh one.
        records_class_changes: whether the change of each class's weight in a step is recorded; weights
            are then ``[B, K]``.
        smooths_labels: whether labels may be smoothed (``--label_smoothing``): a method that has targets
            of its own does not see that of ``example_losses``.
        uses_features: whether `Examples` carries the classifier's features.
        num_examples: N if the method keeps something for each training example, so that it can only be
            trained on arrays or on batches that carry their rows; else None.
        class_sizes: training examples of each class, ``[K]``, of a method that was made for them.
        num_classes: K of a method that was made for so many classes, else None.
        trains_on: what a run trains on: "train", "meta", or "both", the meta set last.
        sampling: how the training batches are drawn.
        peer: a second network that is trained on the same batches, or None. Losses and weights are
            then ``[B, 2]``, the classifier first.
        cosine_scale: scale of the cosines in which a run lets the classifier end, in place of a dense
            layer; None for the classifier as it is.
        shifts_logits: whether training shifts the logits by the class sizes, so that they are not to
            be shifted once more afterwards.
        group_of_class: int64 ``[K]`` if there is a weight function per group of classes, else None.

    Raises:
        UserError: ``meta_loss`` or ``loss`` is unknown.

    Examples:
        >>> class Confident(tf_mwnet.methods.Method):
        ...     def example_weights(self, examples):
        ...         p = tf.exp(-examples.losses)  # the probability of the given label
        ...         return p / tf_mwnet.replicas.all_sum(tf.reduce_sum(p))
        >>> model = tf_mwnet.ReweightedModel(classifier, Confident())
    """

    learns = False
    needs_meta = False
    meta_gradient = "virtual"
    meta_labels = "clean"
    options: tuple[Option, ...] = ()
    from_run: tuple[str, ...] = ()
    meta_lr = 1e-3
    replaceable = False
    draws_meta = False
    ema = 0.0
    look_ahead = 0.0
    sees_virtual = False
    plain = False
    continues = False
    records_class_changes = False
    smooths_labels = True
    uses_features = False
    num_examples: int | None = None
    class_sizes: Sequence[int] = ()
    num_classes: int | None = None
    trains_on = "train"
    sampling = EACH_ONCE
    peer: keras.Model | None = None
    group_of_class: np.ndarray | None = None
    cosine_scale: float | None = None
    shifts_logits = False

    def __init__(
        self, meta_loss: str | Callable = "cross_entropy", loss: str = "cross_entropy", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        choose("loss", loss, losses.TRAINING)
        self.loss = loss
        self._meta_loss = meta_loss
        known = losses.LOSSES
        self.meta_loss = meta_loss if callable(meta_loss) else choose("meta_loss", meta_loss, known)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        if callable(self._meta_loss):
            loss = keras.saving.serialize_keras_object(self._meta_loss)
        else:
            loss = self._meta_loss
        own = {option.name: getattr(self, option.name) for option in self.options}
        own = {name: list(v) if isinstance(v, tuple) else v for name, v in own.items()}
        own |= {"loss": self.loss} if self.loss != "cross_entropy" else {}
        return super().get_config() | {"meta_loss": loss} | own

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        if isinstance(config.get("meta_loss"), dict):
            config["meta_loss"] = keras.saving.deserialize_keras_object(config["meta_loss"])
        return cls(**config)

    def option(self, name: str, value: T) -> T:
        """Converts and checks the value of one of `options`; for constructors.

        Raises:
            UserError: the value is not allowed.
        """
        declared = next(option for option in self.options if option.name == name)
        return converted(declared, value, default_of(type(self), name))

    @property
    def takes_meta_batches(self) -> bool:
        """Whether each step takes a meta batch next to the training batch."""
        return self.learns and self.meta_gradient != "none"

    @classmethod
    def first_stage(cls, arguments: dict) -> str:
        """Returns the name of a method that a run trains first, for half of its epochs; "" for none.

        Args:
            arguments: the method's options, as far as they are set.
        """
        return ""

    @classmethod
    def estimate(cls, outputs: Outputs) -> dict[str, Any]:
        """Returns constructor arguments from the predictions of the first stage's classifier."""
        raise NotImplementedError

    def prepare(self, head: Head) -> None:
        """Checks that the method fits the classifier, and builds what depends on it; called once.

        Args:
            head: the classifier's last layers.

        Raises:
            UserError: it does not fit: another number of classes, a meta loss that claims to be
                symmetric and is not, or a classifier without features for a method that uses them.
        """
        if self.uses_features and None in (head.num_features, head.num_classes):
            raise UserError(
                f"{type(self).__name__} got classifier '{head.name}'; allowed: a Sequential or"
                " functional model that ends in a dense layer, whose input are the features"
            )
        if head.num_classes is None:
            return
        sizes = () if self.class_sizes is None else self.class_sizes
        count = len(sizes) or self.num_classes
        if count not in (None, head.num_classes):
            what = f"class_sizes has {count} entries" if len(sizes) else f"num_classes is {count}"
            raise UserError(f"{what}; allowed: {head.num_classes}, the classifier's outputs")
        losses.check_symmetry(self.meta_loss, head.num_classes)

    @staticmethod
    def example_count(num_examples: int) -> int:
        """Returns N of a method that keeps something for each example; raises ``UserError`` below 1."""
        check_range("num_examples", num_examples, 1)
        return int(num_examples)

    def add_state(self, shape: tuple[int, ...], dtype: str, name: str) -> keras.Variable:
        """Creates a variable of zeros that no optimizer updates; all replicas assign the same value."""
        return self.add_weight(
            shape=shape,
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            name=name,
            aggregation="only_first_replica",
        )

    def plain_epochs(self, epochs: int) -> int:
        """Returns how many of the first epochs, of so many in all, train plainly; none by default."""
        return 0

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Starts an epoch; called before each one.

        Args:
            epoch: 0-based.
            epochs: of the whole training.
        """

    def draw_meta(self, labels: np.ndarray) -> np.ndarray:
        """Chooses the meta set of an epoch, see ``draws_meta``; called after `begin_epoch`.

        A function of the method's state alone, which a resumed run restores and all replicas share.

        Args:
            labels: given labels of the training set, int64 ``[N]``.

        Returns:
            Rows of the training set, int64 ``[n]``, at least one.
        """
        raise NotImplementedError

    def observe(self, examples: Examples) -> None:
        """Updates the method's state; called once a step, before `example_weights`."""

    def observe_virtual(self, examples: Examples, logits: tf.Tensor) -> None:
        """Updates the method's state from the batch's logits ``[B, K]`` after the virtual step.

        Called in each step that learns, before `learn`, if ``sees_virtual``.
        """

    def check_rows(self, num_examples: int | None) -> None:
        """Raises ``UserError`` if the method was made for another number of training examples.

        Args:
            num_examples: N, or None for batches that do not carry their rows.
        """
        if self.num_examples not in (None, num_examples):
            got = "a dataset without rows" if num_examples is None else f"{num_examples} examples"
            raise UserError(
                f"{type(self).__name__} was made for {self.num_examples} training examples and got"
                f" {got}; allowed: arrays of that size"
            )

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Computes the losses of a batch; differentiable with respect to the logits.

        Args:
            logits: ``[B, K]``.
            labels: given labels, integer ``[B]`` or class probabilities ``[B, K]``.
            index: int64 ``[B]``, each example's row in the training set, for a method that keeps
                something for each of them (a target, say); -1 where it is unknown, None outside
                of training.

        Returns:
            ``[B]``, or more columns for some methods, see `Examples`.
        """
        return losses.TRAINING[self.loss](logits, labels)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        """Computes weights in the shape of ``examples.losses``.

        They include the division by the batch size: plain training has ``1 / B``, B that of the global
        batch.
        """
        raise NotImplementedError

    def further_gradient(self, examples: Examples, probe: Probe) -> list[tf.Tensor] | None:
        """Computes a term to add to the gradient of the weighted losses; None for nothing.

        For an objective that is not a weighted sum of example losses.

        Args:
            examples: the batch.
            probe: the classifier on it.

        Returns:
            This replica's share, one tensor for each of ``probe.parameters``.
        """
        return None

    def learn(
        self,
        gradient: tf.Tensor | None,
        examples: Examples,
        optimizer: keras.optimizers.Optimizer | None,
    ) -> tf.Tensor:
        """Learns from G and returns the new weights.

        Args:
            gradient: G, in the shape of ``examples.losses``. Under mixed_float16 it is multiplied by
                the loss scale of ``optimizer``, which divides by it. None if ``meta_gradient`` is
                "none".
            examples: the batch that G belongs to.
            optimizer: the user's ``meta_optimizer``, built on ``self.trainable_variables``; None if
                there are none.
        """
        assert optimizer is not None  # the model makes one for a method with variables
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            weights = self.example_weights(examples)
        values = [v.value for v in variables]
        slopes = tape.gradient(weights, values, output_gradients=gradient)
        optimizer.apply(dense(slopes, values), variables)
        return self.example_weights(examples)

    def label_weight(self, weights: tf.Tensor, examples: Examples) -> tf.Tensor:
        """Reduces the weights to one per example, ``[B]``, for the record.

        The mean over the classes for class-level weights.
        """
        return weights if weights.shape.rank == 1 else tf.reduce_mean(weights, axis=1)

    def weight_function(self, loss: tf.Tensor) -> tf.Tensor | None:
        """Maps losses ``[n]`` to unnormalised weights ``[n]``, or ``[n, G]`` for G groups of classes.

        None if the weight is not a function of the loss alone.
        """
        return None


class EpochHook(keras.callbacks.Callback):
    """Calls `Method.begin_epoch` of the model's method."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model.method.begin_epoch(epoch, self.params["epochs"])


def weight_curve(
    method: Method, top: float = 12.0, points: int = 121
) -> tuple[np.ndarray, np.ndarray] | None:
    """Evaluates a method's weight function on a grid of losses.

    Args:
        method: any method.
        top: largest loss, in nats.
        points: number of losses, from 0.

    Returns:
        Losses ``[points]`` and weights ``[points]``, or ``[points, G]`` for a function with G groups of
        classes; None if the method has no weight function.
    """
    grid = np.linspace(0, top, points, dtype=np.float32)
    values = method.weight_function(tf.constant(grid))
    return None if values is None else (grid, np.asarray(values))
