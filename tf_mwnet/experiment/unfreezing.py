"""Trains backbone and head together, after a method has trained the head on features."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import replicas
from tf_mwnet.config import Experiment
from tf_mwnet.data.streams import normalise
from tf_mwnet.errors import UserError
from tf_mwnet.experiment import resolve, training
from tf_mwnet.features import Backbone
from tf_mwnet.files import load_arrays
from tf_mwnet.methods import METHODS, Method
from tf_mwnet.model.copies import copied
from tf_mwnet.model.reweighted import ReweightedModel
from tf_mwnet.types import DataSpec, Examples, LabelledSet, Splits

EPOCHS = 5  # the last of the head's training, whose weights are averaged


class FixedWeights(Method):
    """Weights that are known for each example; losses and batches are those of another method.

    Args:
        weights: of the N training examples, 1 for plain training, ``[N]``.
        like: the method whose example losses are used where they are ``[B]``, and whose sampling; by
            default, and where a loss is not one number an example, the cross-entropy is.
        **kwargs: as for `Method`.
    """

    def __init__(self, weights: np.ndarray, like: Method | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_examples = len(weights)
        self.given = tf.constant(weights, tf.float32)
        # Not the method itself, whose variables would then be trained.
        self.losses_of = None if like is None else like.example_losses
        self.sampling = Method.sampling if like is None else like.sampling

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        own = None if self.losses_of is None else self.losses_of(logits, labels, index)
        if own is None or own.shape.rank != 1:
            return super().example_losses(logits, labels, index)
        return own

    def example_weights(self, examples: Examples) -> tf.Tensor:
        weights = tf.cast(tf.gather(self.given, examples.index), examples.losses.dtype)
        return weights / replicas.batch_size(weights, weights.dtype)


class Encoder(keras.layers.Layer):
    """A backbone as a layer, from raw images to features; its normalisation layers stay as they are."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(name="backbone")
        self.module, self.backbone = backbone.network.module, backbone
        self.built = True

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.backbone(images)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (shape[0], self.backbone.dim)


class Standardise(keras.layers.Layer):
    """Takes features as the head was trained on them."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(name="standardise")
        self.spec = spec
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return normalise(x, self.spec)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape


def check(config: Experiment, splits: Splits) -> None:
    """Raises ``UserError`` if the run has no backbone that can be trained."""
    encoder = splits.spec.encoder
    if encoder is None or not splits.spec.raw_dtype:
        raise UserError(
            f"then_unfreeze is {config.then_unfreeze} without a backbone; allowed: with --backbone"
        )
    if encoder.network.of_texts:
        raise UserError(f"then_unfreeze is {config.then_unfreeze} with texts; allowed: with images")
    if not isinstance(encoder.network.module, keras.layers.Layer):
        raise UserError(
            f"then_unfreeze is {config.then_unfreeze} with backbone '{encoder.name}', which is no Keras"
            " model; allowed: keras_hub, keras_app, a .keras file or a function"
        )
    for name in config.methods:
        if METHODS[name].trains_on == "meta":
            raise UserError(
                f"then_unfreeze is {config.then_unfreeze} with method '{name}', which has no weights of"
                " training examples; allowed: other methods"
            )
        if METHODS[name].further_gradient is not Method.further_gradient:
            raise UserError(
                f"then_unfreeze is {config.then_unfreeze} with method '{name}', whose objective is more"
                " than weighted losses; allowed: other methods"
            )


def learned_weights(folder: pathlib.Path, size: int) -> np.ndarray:
    """Averages the recorded weights of the last epochs, ``[N]``; of an example never seen then, 1.

    Args:
        folder: of the trained method.
        size: N.
    """
    total, count = np.zeros(size), np.zeros(size)
    for path in sorted((folder / "examples").glob("epoch_*.npz"))[-EPOCHS:]:
        weights = load_arrays(path)["weight"][:size].astype(float)
        seen = np.isfinite(weights)
        total[seen] += weights[seen]
        count[seen] += 1
    return np.divide(total, count, out=np.ones(size), where=count > 0)


def raw(splits: Splits) -> Splits:
    """Returns splits whose inputs are what the features were computed from."""

    def part(examples: LabelledSet | None) -> Any:
        return (
            None if examples is None else dataclasses.replace(examples, x=examples.originals, raw=None)
        )

    spec, channels = splits.spec, splits.spec.raw_shape[-1]
    spec = DataSpec(
        name=spec.name,
        shape=spec.raw_shape,
        dtype=spec.raw_dtype,
        class_names=spec.class_names,
        mean=np.zeros(channels, np.float32),
        std=np.ones(channels, np.float32),
    )
    return dataclasses.replace(
        splits, spec=spec, train=part(splits.train), meta=None, test=part(splits.test), validation=None
    )


def unfreeze(
    config: Experiment,
    splits: Splits,
    folder: pathlib.Path,
    model: ReweightedModel,
    strategy: tf.distribute.Strategy,
) -> tuple[ReweightedModel, DataSpec]:
    """Trains backbone and head together with the example weights that the head's training ended with.

    Args:
        config: the run's, see ``then_unfreeze``.
        splits: its data, with features.
        folder: of the trained method; the files go to ``unfrozen`` below it.
        model: of the head.
        strategy: to train under.

    Returns:
        The trained model, from raw inputs, and their description.
    """
    spec, head = splits.spec, model.final_classifier()
    whole = raw(splits)
    steps = -(-len(splits.train) // config.batch_size)
    config = dataclasses.replace(
        config, epochs=config.then_unfreeze, steps_per_epoch=steps, lr=config.unfreeze_lr,
        schedule="cosine", lr_drops=(), augment="none", early_stopping=0,
    )  # fmt: skip
    weights = learned_weights(folder, len(splits.train))

    def make(_: DataSpec) -> keras.Model:
        inputs = keras.Input(whole.spec.shape, dtype="float32")
        outputs = Standardise(spec)(Encoder(_fresh(config, spec))(inputs))
        return keras.Model(inputs, copied(head)(outputs), name=f"unfrozen_{head.name}")

    def method() -> Method:
        return FixedWeights(weights, model.method)

    trained = training.train(config, whole, "erm", folder / "unfrozen", make, strategy, method=method)
    return trained, whole.spec


def _fresh(config: Experiment, spec: DataSpec) -> Backbone:
    """Returns a backbone with variables of its own, so that each method starts from the first ones."""
    if (loaded := resolve.backbone_of(config)) is not None:
        return loaded
    encoder: Backbone = spec.encoder
    other = copied(encoder.network.module)
    network = dataclasses.replace(
        encoder.network, module=other, apply=lambda images: other(images, training=False)
    )
    return dataclasses.replace(encoder, network=network)
