"""Learned example weights for noisy labels and class imbalance, in TensorFlow and Keras 3.

Data flows one way, and imports follow it:

    types -> data, networks, losses -> meta -> methods -> model -> callbacks -> reports, export
          -> config, experiment -> audit, main

* `ReweightedModel` wraps any Keras classifier; its ``fit`` takes a meta set.
* `methods` holds what decides how much an example counts (`methods.MWNet`, `methods.ERM`).
* `data` makes noisy and long-tailed splits and streams of batch pairs.
* `Experiment` and `run` do what ``python -m tf_mwnet.main`` does.
* `audit` says which labels of a run's data look wrong.
* `WeightFunction` loads an exported weight net.

The names are imported when they are first used, so that ``import tf_mwnet`` is quick.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_MODULES = ("audit", "data", "export", "losses", "methods", "networks", "optimizers")
_NAMES = {
    "Experiment": "config",
    "Result": "experiment",
    "ReweightedModel": "model",
    "UserError": "errors",
    "WeightFunction": "networks",
    "run": "experiment",
}

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
