"""Tells whether a finished run had the settings of a command."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_mwnet.config import DEFAULTS, Experiment, fields_about
from tf_mwnet.experiment.resolve import with_bias, with_sizes
from tf_mwnet.methods import METHODS, MWNet
from tf_mwnet.methods.options import filled

# Own data, of which labels are right and how large its meta set is only the run knows.
OWN = ("folder", "npz", "records")
# What does not change the result of a method, apart from rounding and chance.
APART = (*fields_about("folder", "machines", "place", "seed", "method"), "jit_compile")
LEARNING = fields_about("learning")
FINE_TUNING = fields_about("fine_tuning")
TRANSFER = ("weight_net", "weight_net_replay")


def relevant(asked: Experiment, method: str) -> list[str]:
    """Returns the names of all fields that change the result of a method, in a run as asked for."""
    kind = METHODS[method]
    left_out = set(APART)
    if not asked.then_fine_tune:
        left_out |= set(FINE_TUNING)
    if asked.schedule != "step":
        left_out.add("lr_drops")
    if not kind.learns:
        left_out |= set(LEARNING)
    elif asked.weight_net and issubclass(kind, MWNet):
        left_out |= set(LEARNING) - set(TRANSFER)
    # Constructor arguments of methods that take them.
    taken = {name for other in METHODS.values() for name in other.from_run}
    left_out |= taken - set(kind.from_run)
    return [name for name in DEFAULTS if name not in left_out]


def resolved(asked: Experiment, ran: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Resolves "auto" and the zeros that stand for a default as a run on the same data would.

    Args:
        asked: the settings of a command.
        ran: a row of `compare.read_run`.
        method: the one of interest.

    Returns:
        Field -> value; None where it depends on something that is not known of the run.
    """
    own = asked.dataset in OWN
    config = dataclasses.replace(asked, method=method, compare="")
    config = with_bias(config, asked.dataset == "digits", clean=not own)
    shape, size = ran.get("shape"), ran.get("train_examples")
    meta_size = ran["meta_size"] if own else 0 if asked.weight_net else config.meta_size
    full = with_sizes(config, shape or (1, 1, 1), size or 1, meta_size)
    values = dataclasses.asdict(full)
    if shape is None:
        values |= {k: None for k in ("network", "augment") if getattr(asked, k) == "auto"}
    if size is None and not asked.steps_per_epoch:
        values["steps_per_epoch"] = None
    if own and asked.meta_labels == "auto":
        values["meta_labels"] = None
    return values


def matches(asked: Experiment, ran: Mapping[str, Any], method: str) -> bool:
    """Tells whether a run had the settings of a command, in all fields that matter to a method.

    Args:
        asked: the settings of the command.
        ran: a row of `compare.read_run`.
        method: its name.
    """
    kind, used_options = METHODS[method], ran["method_options"].get(method, {})
    if filled(kind, asked.options_of(method)) != filled(kind, used_options):
        return False
    wanted = resolved(asked, ran, method)
    for name in relevant(asked, method):
        value, used = wanted[name], ran.get(name, DEFAULTS[name])
        used = tuple(used) if isinstance(used, list) else used
        if value is not None and value != used and not (name == "meta_lr" and not used):
            return False
    return True
