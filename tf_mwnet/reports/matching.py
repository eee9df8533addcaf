"""Which settings of a run matter to a method: two runs alike in them are one experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_mwnet.config import DEFAULTS, Experiment, fields_about
from tf_mwnet.experiment.resolve import with_bias, with_sizes
from tf_mwnet.methods import METHODS
from tf_mwnet.methods.options import filled
from tf_mwnet.model.meta_scope import fast_steps
from tf_mwnet.runs.saved_run import is_own

# What does not change the result of a method, apart from rounding and chance.
APART = (*fields_about("folder", "machines", "afterwards", "place", "seed", "method"), "jit_compile")
LEARNING = fields_about("learning")
FINE_TUNING = fields_about("fine_tuning")
# What not every method depends on.
_FROM_RUN = {name for kind in METHODS.values() for name in kind.from_run} - set(fields_about("seed"))
OF_METHODS = (*LEARNING, *FINE_TUNING, "lr_drops", *sorted(_FROM_RUN))
TRANSFER = ("weight_net", "weight_net_replay")


def relevant(config: Mapping[str, Any], method: str) -> list[str]:
    """Returns the names of all fields that change the result of a method, in a run so configured."""
    kind = METHODS[method]
    left_out = set(APART)
    if not config["then_fine_tune"]:
        left_out |= set(FINE_TUNING)
    if config["schedule"] != "step":
        left_out.add("lr_drops")
    if not kind.learns:
        left_out |= set(LEARNING)
    elif config["weight_net"] and kind.replaceable:
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
    own = is_own(asked.dataset)
    config = dataclasses.replace(asked, method=method, compare="")
    config = with_bias(config, asked.dataset == "digits", not own, asked.imbalance_factor)
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
    for name in relevant(dataclasses.asdict(asked), method):
        value, used = wanted[name], ran.get(name, DEFAULTS[name])
        used = tuple(used) if isinstance(used, list) else used
        if value is not None and value != used and not (name == "meta_lr" and not used):
            return False
    return True


def base(method: str) -> str:
    """Returns the method of a row: "gdw" of "gdw+FT" and of "gdw --eta=10"."""
    return method.partition(" ")[0].partition("+")[0]


def settings(ran: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what makes a row of a run an experiment of its own: all that matters but the seeds.

    Values that a run works out by itself count as what they were worked out from, so that another seed
    does not make another experiment.

    Args:
        ran: a row of `compare.read_run`.

    Returns:
        Field or option of the method -> value, which can be hashed.
    """
    method, known = str(ran["method"]), DEFAULTS | dict(ran)
    kind = METHODS[base(method)]
    values = {name: known[name] for name in relevant(known, base(method))}
    if "+" in method:
        values |= {name: known[name] for name in fields_about("afterwards")}
    values["dataset"] = known["dataset"]
    if is_own(known["dataset"]):
        values["data_dir"] = known["data_dir"]
    if size := ran.get("train_examples"):
        one_pass = known["steps_per_epoch"] == -(-size // known["batch_size"])
        values["steps_per_epoch"] = 0 if one_pass else known["steps_per_epoch"]
    if known["speed"] == "fast":
        for name, steps in fast_steps(known["epochs"] * known["steps_per_epoch"]).items():
            if values.get(name) in (0, steps):  # not asked for
                values.pop(name, None)
    if "meta_lr" in values:
        values["meta_lr"] = known["meta_lr"] or kind.meta_lr
    values |= filled(kind, known["method_options"].get(base(method), {}))
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


def seeds(ran: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns the seeds of a row."""
    return tuple((DEFAULTS | dict(ran))[name] for name in fields_about("seed"))
