"""ResNet-50 through `keras.applications`."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from keras import layers

from tf_mwnet.errors import UserError
from tf_mwnet.networks.init import Seeds
from tf_mwnet.types import DataSpec

WEIGHTS = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
# The ImageNet weights were trained on BGR images, 0 to 255, less these means.
IMAGENET_BGR = np.array([103.939, 116.779, 123.68], np.float32)


@keras.saving.register_keras_serializable(package="tf_mwnet")
class ImageNetInput(layers.Layer):
    """Converts RGB images normalised by ``(x - mean) / std`` to the input of the ImageNet weights.

    Examples:
        >>> layer = ImageNetInput(mean=[125, 123, 114], std=[63, 62, 67])
        >>> layer(tf.zeros([1, 32, 32, 3]))[0, 0, 0].numpy().round(1)  # blue, green, red
        array([10.1,  6.2,  1.3], dtype=float32)

    Args:
        mean, std: three numbers each, for pixels of 0 to 255.
    """

    def __init__(self, mean: Iterable[float], std: Iterable[float], **kwargs: Any):
        super().__init__(**kwargs)
        self.mean, self.std = [float(v) for v in mean], [float(v) for v in std]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        rgb = x * np.asarray(self.std, np.float32) + np.asarray(self.mean, np.float32)
        return rgb[..., ::-1] - IMAGENET_BGR

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"mean": self.mean, "std": self.std}


def resnet50(
    spec: DataSpec, seed: int = 0, weights: str = "auto", synchronized: bool = False
) -> keras.Model:
    """Builds ResNet-50 (`keras.applications.ResNet50`) with batch norm momentum 0.9 and a new top layer.

    Batch norm's epsilon remains Keras's 1.001e-5, for which the ImageNet weights were converted.

    Args:
        spec: RGB images of at least 32x32 pixels, 0 to 255.
        seed: seed of the top layer, and of all layers if no weights are loaded.
        weights: "auto" loads the ImageNet weights if Keras has them on disk (in ``~/.keras/models``),
            else starts from random ones, and logs which. "none" starts from random ones. Otherwise the
            path of a weights file.
        synchronized: see `init.batch_norm`.

    Raises:
        UserError: the images are smaller or not RGB, or the weights file does not exist.
    """
    if spec.shape[-1] != 3 or min(spec.shape[:2]) < 32:
        raise UserError(f"resnet50 got images of {spec.shape}; allowed: RGB, at least 32x32 pixels")
    path = None
    if weights == "auto":
        home = os.environ.get("KERAS_HOME", "~/.keras")  # as Keras looks for it
        path = pathlib.Path(home).expanduser() / "models" / WEIGHTS
        if not path.is_file():
            logging.warning("resnet50: no ImageNet weights at %s; starting from random ones", path)
            path = None
    elif weights != "none":
        path = pathlib.Path(weights)
        if not path.is_file():
            raise UserError(f"weights file '{path}' is not there; allowed: auto, none, or a file")
    seeds = Seeds(seed)
    body = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=spec.shape, pooling="avg"
    )
    for layer in body.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum, layer.synchronized = 0.9, synchronized
        elif isinstance(layer, layers.Conv2D):
            layer.kernel.assign(seeds.he_normal()(layer.kernel.shape))
    inputs = keras.Input(spec.shape)
    x = inputs
    if path is not None:
        body.load_weights(path)
        logging.info("resnet50: ImageNet weights from %s", path)
        x = ImageNetInput(spec.mean, spec.std)(x)
    return keras.Model(inputs, seeds.dense(spec.num_classes)(body(x)), name="resnet50")
