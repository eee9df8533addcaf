"""Backbones: networks from an image to a vector, from files, libraries and functions."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet.errors import UserError, choose
from tf_mwnet.features import kinds
from tf_mwnet.features.kinds import POOLINGS, Network
from tf_mwnet.features.scalings import SCALINGS, resized, view


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network from raw inputs to features, made by `load`.

    Attributes:
        name: as it was asked for, without folders.
        network: from scaled images to features.
        size: height and width of the network's images, in pixels.
        scaling: a name in `scalings.SCALINGS`, or "own" where the network comes with its own.
        pooling: a name in `kinds.POOLINGS`.
        dim: D, the number of features.
        fingerprint: SHA-256 of weights and preprocessing.
        views: V, how many features each example has: of the whole image, then of random parts.
    """

    name: str
    network: Network
    size: tuple[int, int]
    scaling: str
    pooling: str
    dim: int
    fingerprint: str
    views: int = 1

    def prepared(self, images: tf.Tensor, draws: tf.Tensor | None = None) -> tf.Tensor:
        """Resizes and scales raw images.

        Args:
            images: ``[b, H, W, C]``, 0 to 255, grey or RGB.
            draws: ``[b, 4]`` for a random view, see `scalings.view`; None for the whole image.
        """
        if self.network.own is not None:
            return self.network.own(images)
        images = resized(images, self.size) if draws is None else view(images, draws, self.size)
        return SCALINGS[self.scaling](images)

    def __call__(self, images: tf.Tensor, draws: tf.Tensor | None = None) -> tf.Tensor:
        """Computes features ``[b, D]``, float32, of raw images, see `prepared`."""
        outputs = self.network.apply(self.prepared(images, draws))
        return tf.cast(kinds.pooled(outputs, self.pooling), tf.float32)

    def about(self) -> dict[str, Any]:
        """Returns what is written down with features, values of JSON."""
        return {
            "backbone": self.name,
            "size": list(self.size),
            "scaling": self.scaling,
            "pooling": self.pooling,
            "dim": self.dim,
            "views": self.views,
            "fingerprint": self.fingerprint,
        }


def load(
    backbone: str | keras.Model | Callable[[], keras.Model],
    size: int = 0,
    scaling: str = "auto",
    pooling: str = "auto",
    weights: str = "",
    views: int = 1,
) -> Backbone:
    """Loads a backbone.

    Args:
        backbone: ``keras_hub:<preset>`` or the folder of one; ``keras_app:<name>`` with ``weights``; a
            ``.keras`` file; a SavedModel folder; a ``.tflite`` file; ``module:function``, which returns
            a `keras.Model`; or a model itself.
        size: side of its square input in pixels; 0 for the network's own. Networks that were built for
            another size are built anew with the same weights.
        scaling: a name in `scalings.SCALINGS`; "auto": the preset's or library's own, "pixels" for a
            model with a layer that scales, else "signed".
        pooling: a name in `kinds.POOLINGS`; "auto": none for vectors, the mean over places for maps, the
            first token for tokens of a transformer that has one, else their mean.
        weights: file of the weights, for ``keras_app``.
        views: V, at least 1.

    Raises:
        UserError: there is no such backbone, its input is no image, or it gives no feature.
    """
    if scaling != "auto":
        choose("backbone_scaling", scaling, SCALINGS)
    if pooling != "auto":
        choose("backbone_pooling", pooling, dict.fromkeys(POOLINGS))
    name, network = kinds.read(backbone, size, weights)
    if network.own is not None and scaling != "auto":
        raise UserError(f"backbone_scaling is {scaling} with '{name}'; allowed: auto, its own")
    scaling = ("own" if network.own is not None else network.scaling) if scaling == "auto" else scaling
    pooling = network.pooling if pooling == "auto" else pooling
    made = Backbone(name, network, network.size, scaling, pooling, 0, "", views)
    shape = _try(made).shape
    if len(shape) != 2 or not shape[1]:
        raise UserError(
            f"backbone '{name}' gives {tuple(shape)} for one image; allowed: a vector of features, or"
            " --backbone_pooling=mean"
        )
    key = repr((network.fingerprint, network.size, scaling, pooling)).encode()
    return dataclasses.replace(made, dim=int(shape[1]), fingerprint=hashlib.sha256(key).hexdigest())


def _try(backbone: Backbone) -> np.ndarray:
    """Applies a backbone to one grey image.

    Raises:
        UserError: it fails.
    """
    height, width = backbone.size
    try:
        return np.asarray(backbone(tf.fill([1, height, width, 3], 128.0)))
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"backbone '{backbone.name}' fails for an image of {height}x{width} pixels ({reason});"
            " allowed: a network from RGB images to features"
        ) from error


def short_name(text: str) -> str:
    """Returns a backbone's name without folders: "mobilenet_v2_224", "dinov2_small"."""
    tail = text.partition(":")[2] if ":" in text and not pathlib.Path(text).exists() else text
    return pathlib.Path(tail).stem or text
