"""Features of a pretrained network, in place of the inputs: training then takes seconds.

A *backbone* maps an input to a vector. It is applied to each example once; what it gives is kept in a
folder, and every method, meta set, record, report and audit works on it as on any other data.

Examples:
    >>> import keras
    >>> from tf_mwnet import data, features
    >>> body = [keras.layers.Conv2D(8, 3), keras.layers.GlobalAveragePooling2D()]
    >>> network = keras.Sequential([keras.Input((8, 8, 3)), *body])
    >>> backbone = features.load(network, scaling="unit")
    >>> source = features.embed(data.load("digits"), backbone, folder="")
    >>> source.train.x.shape, source.train.raw.shape
    ((1797, 8), (1797, 8, 8, 1))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_mwnet.features.backbones import Backbone, load
    from tf_mwnet.features.embedding import embed, folder_of, given

__all__ = ["SETTINGS", "Backbone", "embed", "folder_of", "given", "load"]

# What a training on features takes unless it is set: what a command line does with --backbone or
# --features; in Python ``Experiment(backbone=..., **features.SETTINGS)``.
SETTINGS: dict[str, Any] = {
    "epochs": 20,
    "lr": 1.0,
    "lr_drops": (10, 15),
    "l2": 0.0,
    "meta_loss": "scaled_gce",
}

_HOMES = {"Backbone": "backbones", "load": "backbones"}  # others: embedding


def __getattr__(name: str) -> Any:
    # When they are first used, so that the command can hide TensorFlow's notes while it is imported.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'embedding')}")
    return getattr(module, name)
