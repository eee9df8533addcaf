"""Learned example weights for noisy labels and class imbalance, in TensorFlow and Keras 3.

* `ReweightedModel` wraps any Keras classifier; its ``fit`` takes a meta set.
* `methods` decide how much an example counts (`methods.MWNet`, `methods.ERM`).
* `data` makes noisy and long-tailed splits and streams of batch pairs.
* `features` are those of a pretrained network, in place of images.
* `Experiment` and `run` do what ``python -m tf_mwnet.main`` does.
* `audit` finds the labels of a run's data that look wrong.
* `WeightFunction` loads an exported weight net.

Data flows one way, and imports follow it: a package imports only packages to its left
(``tests/test_architecture.py``).

    types errors replicas -> files strategies losses optimizers meta -> data networks -> features
      -> methods -> model -> config -> runs -> cli -> export figures -> serve -> experiment
      -> audit -> reports -> sweep -> benchmark -> main -> pipelines

The names are imported when they are first used, so that ``import tf_mwnet`` is quick. It turns on
TensorFlow's oneDNN kernels (x86), unless ``TF_ENABLE_ONEDNN_OPTS`` is set: import it before TensorFlow.
"""

from __future__ import annotations

import importlib
import logging
import os
import platform
import sys
from typing import TYPE_CHECKING, Any

from tf_mwnet.audit import audit

if TYPE_CHECKING:
    from tf_mwnet import data, export, features, losses, methods, networks, optimizers
    from tf_mwnet.config import Experiment
    from tf_mwnet.errors import UserError
    from tf_mwnet.experiment.runner import Result, run
    from tf_mwnet.model.reweighted import ReweightedModel
    from tf_mwnet.networks.weight_function import WeightFunction

__version__ = "0.2.0.dev0"

__all__ = [
    "Experiment",
    "Result",
    "ReweightedModel",
    "UserError",
    "WeightFunction",
    "__version__",
    "audit",
    "data",
    "export",
    "features",
    "losses",
    "methods",
    "networks",
    "optimizers",
    "run",
]

# Where the names of `__all__` that are not imported above come from; other names are submodules.
_HOMES = {
    "Experiment": "config",
    "Result": "experiment.runner",
    "ReweightedModel": "model.reweighted",
    "UserError": "errors",
    "WeightFunction": "networks.weight_function",
    "run": "experiment.runner",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)


def _turn_on_onednn() -> None:
    """Turns on the oneDNN kernels, which TensorFlow leaves off on processors without AVX-512 VNNI."""
    if platform.machine().lower() not in ("x86_64", "amd64") or "TF_ENABLE_ONEDNN_OPTS" in os.environ:
        return
    if "tensorflow" not in sys.modules:
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
        return
    try:
        from tensorflow.python.util import _pywrap_util_port as port  # the only place that tells
    except ImportError:
        return
    if not port.IsMklEnabled():
        logging.getLogger(__name__).warning(
            "tf_mwnet: TensorFlow was imported first and runs without its oneDNN kernels: on a CPU a"
            " convolutional network trains half as fast. Import tf_mwnet first, or set"
            " TF_ENABLE_ONEDNN_OPTS=1"
        )


_turn_on_onednn()
