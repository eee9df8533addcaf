"""Backbones: networks from an image or a text to a vector, from files, libraries and functions."""

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
        size: height and width of the network's images, in pixels; of texts the number of tokens.
        scaling: a name in `scalings.SCALINGS`, or "own" where the network comes with its own.
        pooling: a name in `kinds.POOLINGS`.
        dim: D, the number of features.
        fingerprint: SHA-256 of weights and preprocessing.
        views: V, how many features each example has: of the whole image, then of random parts.
        precision: that it computes in, a policy of Keras.
    """

    name: str
    network: Network
    size: tuple[int, ...]
    scaling: str
    pooling: str
    dim: int
    fingerprint: str
    views: int = 1
    precision: str = "float32"

    @property
    def takes(self) -> str:
        """What an example is: "image" or "text"."""
        return "text" if self.network.of_texts else "image"

    @property
    def size_text(self) -> str:
        """The size for people."""
        return f"{self.size[0]} tokens" if self.network.of_texts else "{}x{} pixels".format(*self.size)

    def prepared(self, images: tf.Tensor, draws: tf.Tensor | None = None) -> Any:
        """Resizes and scales raw images, or splits texts into tokens.

        Args:
            images: ``[b, H, W, C]``, 0 to 255, grey or RGB; or texts ``[b]``.
            draws: ``[b, 4]`` for a random view, see `scalings.view`; None for the whole image.
        """
        if draws is not None:
            images = view(images, draws, (self.size[0], self.size[1]))
        if self.network.own is not None:
            return self.network.own(images)  # a view has its size already
        return SCALINGS[self.scaling](resized(images, (self.size[0], self.size[1])))

    def __call__(self, images: tf.Tensor, draws: tf.Tensor | None = None) -> tf.Tensor:
        """Computes features ``[b, D]``, float32, of raw inputs, see `prepared`."""
        outputs = self.network.apply(self.prepared(images, draws))
        return tf.cast(kinds.pooled(outputs, self.pooling), tf.float32)

    def about(self) -> dict[str, Any]:
        """Returns what is written down with features, values of JSON."""
        further = {} if self.precision == "float32" else {"precision": self.precision}
        if self.views > 1 and self.network.own is not None:
            further["cut"] = "before its own preprocessing"  # once all views were of the whole image
        return further | {
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
    precision: str = "float32",
) -> Backbone:
    """Loads a backbone.

    Args:
        backbone: ``keras_hub:<preset>`` or the folder of one; ``keras_app:<name>`` with ``weights``; a
            ``.keras`` file; a SavedModel folder; a ``.tflite`` file; ``module:function``, which returns
            a `keras.Model`; or a model itself.
        size: side of its square input in pixels, or number of tokens; 0 for the network's own. Networks
            that were built for another size are built anew with the same weights.
        scaling: a name in `scalings.SCALINGS`; "auto": the preset's or library's own, "pixels" for a
            model with a layer that scales, else "signed".
        pooling: a name in `kinds.POOLINGS`; "auto": none for vectors, the mean over places for maps, the
            first token for tokens of an image transformer that has one, else their mean, without
            padding.
        weights: file of the weights, for ``keras_app``.
        views: V, at least 1; of texts 1.
        precision: policy of the layers of a Keras model, "mixed_bfloat16" or "mixed_float16"; others
            compute in their own.

    Raises:
        UserError: there is no such backbone, it takes neither images nor texts, or it gives no feature.
    """
    if scaling != "auto":
        choose("backbone_scaling", scaling, SCALINGS)
    if pooling != "auto":
        choose("backbone_pooling", pooling, dict.fromkeys(POOLINGS))
    if precision != "float32" and isinstance(backbone, keras.Model):
        own = keras.models.clone_model(backbone)  # the user's keeps its policy
        own.set_weights(backbone.get_weights())
        backbone = own
    name, network = kinds.read(backbone, size, weights)
    if network.own is not None and scaling != "auto":
        raise UserError(f"backbone_scaling is {scaling} with '{name}'; allowed: auto, its own")
    if views > 1 and network.of_texts:
        raise UserError(f"views is {views} with '{name}' of texts; allowed: 1")
    if precision != "float32":
        kinds.set_precision(network, precision)
    scaling = ("own" if network.own is not None else network.scaling) if scaling == "auto" else scaling
    pooling = network.pooling if pooling == "auto" else pooling
    made = Backbone(name, network, network.size, scaling, pooling, 0, "", views, precision)
    shape = _try(made).shape
    if len(shape) != 2 or not shape[1]:
        raise UserError(
            f"backbone '{name}' gives {tuple(shape)} for one {made.takes}; allowed: a vector of"
            " features, or --backbone_pooling=mean"
        )
    parts = (network.fingerprint, network.size, scaling, pooling)
    key = repr(parts if precision == "float32" else (*parts, precision)).encode()
    return dataclasses.replace(made, dim=int(shape[1]), fingerprint=hashlib.sha256(key).hexdigest())


def _try(backbone: Backbone) -> np.ndarray:
    """Applies a backbone to one grey image, or one text.

    Raises:
        UserError: it fails.
    """
    try:
        if backbone.network.of_texts:
            return np.asarray(backbone(tf.constant(["a text"])))
        return np.asarray(backbone(tf.fill([1, *backbone.size, 3], 128.0)))
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"backbone '{backbone.name}' fails for one {backbone.takes} of {backbone.size_text}"
            f" ({reason}); allowed: a network from RGB images, or texts, to features"
        ) from error


def short_name(text: str) -> str:
    """Returns a backbone's name without folders: "mobilenet_v2_224", "dinov2_small"."""
    tail = text.partition(":")[2] if ":" in text and not pathlib.Path(text).exists() else text
    return pathlib.Path(tail).stem or text
