"""The methods: each decides how much a training example counts, see `Method`.

A method is chosen by name, with options behind it ("gdw --eta=1000"), by a dict
``{"name": ..., **arguments}``, or as an object. To add one, write its class in a file of this package,
with its own options as `options.Option`, and name it in `METHODS`; the command line, the sweeps, the
reports and the contract tests then know it. docs/add_a_method.md goes through an example.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tf_mwnet.errors import UserError, choose, quoted
from tf_mwnet.methods import options
from tf_mwnet.methods.base import Method
from tf_mwnet.methods.class_weights import ClassBalanced, Proportion, Resample, WeightedOracle
from tf_mwnet.methods.clean import GLC, MetaOnly
from tf_mwnet.methods.cmwnet import CMWNet
from tf_mwnet.methods.cmwnet_sl import CMWNetSL
from tf_mwnet.methods.co_teaching import CoTeaching
from tf_mwnet.methods.d2l import D2L
from tf_mwnet.methods.elr import ELR
from tf_mwnet.methods.erm import ERM
from tf_mwnet.methods.frozen import FrozenWeights
from tf_mwnet.methods.fsr import FSR
from tf_mwnet.methods.gdw import GDW
from tf_mwnet.methods.groups import scale_groups
from tf_mwnet.methods.insw import INSW
from tf_mwnet.methods.joint import JointOptimization
from tf_mwnet.methods.l2rw import L2RW
from tf_mwnet.methods.lccn import LCCN
from tf_mwnet.methods.long_tail import LDAM, LogitAdjustment
from tf_mwnet.methods.losses import GCE, MAE, SCE, BootstrapHard, BootstrapSoft, Focal
from tf_mwnet.methods.mentornet import MentorNet
from tf_mwnet.methods.mentornet_dd import MentorNetDD
from tf_mwnet.methods.mlc import MLC
from tf_mwnet.methods.mlnt import MLNT
from tf_mwnet.methods.mwnet import MNW, RMNW, MWNet
from tf_mwnet.methods.normalise import batch_weights
from tf_mwnet.methods.selection import SPL, HardMining, RandomWeights
from tf_mwnet.methods.sop import SOP
from tf_mwnet.methods.transition import Forward, SModel

METHODS: dict[str, type[Method]] = {
    "mwnet": MWNet,
    "l2rw": L2RW,
    "mnw": MNW,
    "rmnw": RMNW,
    "gdw": GDW,
    "insw": INSW,
    "cmwnet": CMWNet,
    "cmwnet_sl": CMWNetSL,
    "fsr": FSR,
    "mlc": MLC,
    "erm": ERM,
    "focal": Focal,
    "class_balanced": ClassBalanced,
    "proportion": Proportion,
    "resample": Resample,
    "hard_mining": HardMining,
    "random": RandomWeights,
    "weighted_oracle": WeightedOracle,
    "bootstrap_hard": BootstrapHard,
    "bootstrap_soft": BootstrapSoft,
    "s_model": SModel,
    "spl": SPL,
    "co_teaching": CoTeaching,
    "mentornet": MentorNet,
    "mentornet_dd": MentorNetDD,
    "forward": Forward,
    "glc": GLC,
    "d2l": D2L,
    "lccn": LCCN,
    "joint_optimization": JointOptimization,
    "mlnt": MLNT,
    "meta_only": MetaOnly,
    "gce": GCE,
    "sce": SCE,
    "mae": MAE,
    "elr": ELR,
    "sop": SOP,
    "logit_adjustment": LogitAdjustment,
    "ldam": LDAM,
}


def get(method: str | dict | Method) -> Method:
    """Returns a method.

    Args:
        method: a name in `METHODS`, options may follow ("gdw --eta=1000"); ``{"name": name,
            **constructor arguments}``; a serialised Keras object; or a `Method`.

    Raises:
        UserError: the name is unknown, an argument without a default is missing, or the value is of
            another type.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, str):
        name, own = parse(method)
        method = {"name": name} | own
    if isinstance(method, dict) and "class_name" in method:
        return keras.saving.deserialize_keras_object(method)
    if isinstance(method, dict) and "name" in method:
        arguments = {k: v for k, v in method.items() if k != "name"}
        kind = choose("method", method["name"], METHODS)
        required = [p.name for p in inspect.signature(kind).parameters.values() if _required(p)]
        if missing := [name for name in required if name not in arguments]:
            raise UserError(f"method '{method['name']}' lacks {quoted(missing)}; allowed: with them")
        return kind(**arguments)
    raise UserError(f"method is {method!r}; allowed: a name, a dict with 'name', or a Method")


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Reads ``"gdw --eta=1000"``: the name of a method and its options, see `options.parse`."""
    return options.parse(text, METHODS)


def with_own_options(name: str, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Parts flags into a method with its own options and the rest, see `options.with_own`."""
    return options.with_own(name, arguments, METHODS[name])


def spelled(name: str, values: Mapping[str, Any]) -> str:
    """Writes a method with its options as `parse` reads it, defaults left out."""
    return options.spelled(name, values, METHODS)


def _required(parameter: inspect.Parameter) -> bool:
    several = (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and parameter.kind not in several


__all__ = [
    "D2L",
    "ELR",
    "ERM",
    "FSR",
    "GCE",
    "GDW",
    "GLC",
    "INSW",
    "L2RW",
    "LCCN",
    "LDAM",
    "MAE",
    "METHODS",
    "MLC",
    "MLNT",
    "MNW",
    "RMNW",
    "SCE",
    "SOP",
    "SPL",
    "BootstrapHard",
    "BootstrapSoft",
    "CMWNet",
    "CMWNetSL",
    "ClassBalanced",
    "CoTeaching",
    "Focal",
    "Forward",
    "FrozenWeights",
    "HardMining",
    "JointOptimization",
    "LogitAdjustment",
    "MWNet",
    "MentorNet",
    "MentorNetDD",
    "MetaOnly",
    "Method",
    "Proportion",
    "RandomWeights",
    "Resample",
    "SModel",
    "WeightedOracle",
    "batch_weights",
    "get",
    "parse",
    "scale_groups",
    "spelled",
    "with_own_options",
]
