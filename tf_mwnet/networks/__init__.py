"""Classifier networks, which all return logits, by name; and the weight net."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from tf_mwnet.errors import UserError, choose, quoted
from tf_mwnet.networks.cosine import with_cosine_head
from tf_mwnet.networks.pretrained import resnet50
from tf_mwnet.networks.residual import preact_resnet18, resnet18, resnet32, resnet34, wrn28_10
from tf_mwnet.networks.small import lenet, lenet_sigmoid, linear, mlp, small_cnn, wide_cnn
from tf_mwnet.networks.weight_function import WeightFunction
from tf_mwnet.networks.weight_net import weight_net
from tf_mwnet.types import DataSpec

NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "small_cnn": small_cnn,
    "wide_cnn": wide_cnn,
    "lenet": lenet,
    "lenet_sigmoid": lenet_sigmoid,
    "linear": linear,
    "mlp": mlp,
    "resnet32": resnet32,
    "wrn28_10": wrn28_10,
    "resnet34": resnet34,
    "preact_resnet18": preact_resnet18,
    "resnet18": resnet18,
    "resnet50": resnet50,
}

# Networks that may start from pre-trained weights.
PRETRAINED = ("resnet50",)
# Networks of inputs of any shape.
ANY_SHAPE = ("linear", "mlp")


def default_network(spec: DataSpec) -> str:
    """Returns "small_cnn" for images up to 16 pixels high, "lenet" for 28x28x1, else "resnet32".

    For what is no image, "mlp".
    """
    return network_for(spec.shape)


def network_for(shape: Sequence[int]) -> str:
    """As `default_network`, for inputs of a shape ``(H, W, C)``."""
    if len(shape) != 3:
        return "mlp"
    if shape[0] <= 16:
        return "small_cnn"
    return "lenet" if tuple(shape) == (28, 28, 1) else "resnet32"


def build(name: str, spec: DataSpec, seed: int = 0, **arguments: Any) -> keras.Model:
    """Builds a classifier from normalised inputs, as images ``[B, H, W, C]``, to logits ``[B, K]``.

    Examples:
        >>> from tf_mwnet import data
        >>> splits = data.make_splits(data.load("digits"), data.BiasConfig())
        >>> classifier = build("small_cnn", splits.spec)
        >>> classifier.output_shape
        (None, 10)

    Args:
        name: a name in `NETWORKS`.
        spec: gives the input shape, K, and for pre-trained networks mean and standard deviation.
        seed: seed of the initial values.
        **arguments: further arguments of the network, as ``dropout`` of `wrn28_10`.

    Raises:
        UserError: the name is unknown, or the network does not fit the inputs.
    """
    network = choose("network", name, NETWORKS)
    if len(spec.shape) != 3 and name not in ANY_SHAPE:
        raise UserError(
            f"network '{name}' got inputs of shape {spec.shape}; allowed: images (H, W, C), or"
            f" {quoted(ANY_SHAPE)}"
        )
    return network(spec, seed=seed, **arguments)


__all__ = [
    "NETWORKS",
    "PRETRAINED",
    "WeightFunction",
    "build",
    "default_network",
    "lenet",
    "lenet_sigmoid",
    "linear",
    "mlp",
    "preact_resnet18",
    "resnet18",
    "resnet32",
    "resnet34",
    "resnet50",
    "small_cnn",
    "weight_net",
    "wide_cnn",
    "with_cosine_head",
    "wrn28_10",
]
