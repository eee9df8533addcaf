"""Flags: an `Experiment` from a command line, and lists and axes of values in flags."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags, logging

from tf_mwnet import features, methods
from tf_mwnet.cli import command_flags, flagfiles
from tf_mwnet.config import ABOUT_THE_FOLDER, Experiment
from tf_mwnet.data import sources
from tf_mwnet.errors import UserError
from tf_mwnet.methods import METHODS, options
from tf_mwnet.runs.saved_run import CONFIG, FORMER, saved_experiment

# The fields that have a flag.
FIELDS = [field for field in dataclasses.fields(Experiment) if field.metadata.get("flag", True)]
# Themes of --help: each begins with a field.
THEMES = {
    "dataset": "Data",
    "backbone": "Features of a pretrained network, in place of the inputs",
    "noise": "Bias, meta set and test set",
    "method": "Methods, weights and the meta step",
    "network": "Classifier and schedule",
    "strategy": "The run, its machines and its folder",
}
# Settings of a command line without any flag.
BARE = {"compare": "erm"}


def define_flags() -> flags.FlagValues:
    """Defines a flag for each field of `Experiment`, separate from absl's global flags."""
    values = command_flags.new_flags()
    for field in FIELDS:
        _define(field, str(field.type), values)
    for name, method in FORMER.items():
        kind = METHODS[method]
        option = next(o for o in kind.options if o.name == name)
        options.define(option, options.default_of(kind, name), values)
    return values


def _define(field: dataclasses.Field[Any], kind: str, values: flags.FlagValues) -> None:
    name, text = field.name, field.metadata["help"]
    default: Any = field.default
    if kind == "bool":
        flags.DEFINE_boolean(name, default, text, flag_values=values)
    elif kind in ("int", "int | None"):
        flags.DEFINE_integer(name, default, text, flag_values=values)
    elif kind == "float":
        flags.DEFINE_float(name, default, text, flag_values=values)
    elif kind.startswith("tuple"):
        flags.DEFINE_string(name, _shown(default), f"{text} (comma separated)", flag_values=values)
    else:
        flags.DEFINE_string(name, default, text, flag_values=values)


def _shown(default: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else str(default)


def help_text(about: str, more: Sequence[flags.Flag] = (), full: bool = False) -> str:
    """Returns ``about`` and all flags by theme, in the order of `Experiment`, with defaults.

    Args:
        about: comes first.
        more: flags of the command alone.
        full: whether the options of methods follow.
    """
    lines = [
        about,
        "Flags (--flagfile=<file> reads them from a file, one per line; later ones win):",
    ]
    shown = [(field.name, field.default, field.metadata["help"]) for field in FIELDS]
    shown += [(flag.name, flag.default, flag.help) for flag in more]
    for name, default, text in shown:
        if name in THEMES:
            lines += ["", THEMES[name], ""]
        lines += command_flags.flag_lines(name, _shown(default), text)
    if not full:
        return "\n".join([*lines, "", "--helpfull also lists the options of methods."])
    lines += ["", "Options of methods, as --method='gdw --eta=1000' or in --compare:", ""]
    return "\n".join([*lines, *options.help_lines(METHODS)])


def fields_of(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the fields of an `Experiment` that flags set, on top of those of a run they resume."""
    if values.auto_resume and (pathlib.Path(values.run_dir) / CONFIG).is_file():
        values["resume"].value = True
        values["resume"].present = 1
    path = pathlib.Path(values.run_dir or "") / CONFIG
    fields: dict[str, Any] = {}
    if values.resume and values.run_dir and path.is_file():  # else `run` says what is wrong
        saved = vars(saved_experiment(path))
        fields = {k: v for k, v in saved.items() if k not in ABOUT_THE_FOLDER}
    for field in FIELDS:
        if not values[field.name].present:
            continue
        value: Any = values[field.name].value
        kind = str(field.type)
        fields[field.name] = _entries(field.name, value, kind) if kind.startswith("tuple") else value
    for method, own in _former(values).items():
        known = fields.setdefault("method_options", {})
        fields["method_options"] = known | {method: {**known.get(method, {}), **own}}
    on_features = fields.get("backbone") or fields.get("features")
    on_features = on_features or sources.has_features(fields.get("dataset", ""), fields.get("data_dir"))
    if on_features and "resume" not in fields:
        fields = features.SETTINGS | fields
    return fields


def _entries(name: str, text: str, kind: str) -> tuple[int | str, ...]:
    entries = names_of(text)
    if "int" not in kind:
        return tuple(entries)
    try:
        return tuple(int(entry) for entry in entries)
    except ValueError:
        raise UserError(f"{name} is '{text}'; allowed: integers between commas") from None


def _former(values: flags.FlagValues) -> dict[str, dict[str, Any]]:
    """Options of methods that are given as flags of a run, as before version 0.2."""
    own: dict[str, dict[str, Any]] = {}
    for name, method in FORMER.items():
        value = values[name].value
        if not values[name].present or (name == "forget_rate" and not value):
            continue  # a forget_rate of 0 stood for the noise rate, which is the default now
        own.setdefault(method, {})[name] = value
        spelled = methods.spelled(method, {name: value})
        logging.info("--%s is now an option of its method: --method='%s'", name, spelled)
    return own


def experiment_of(values: flags.FlagValues) -> Experiment:
    """Returns the experiment that flags ask for; without any, the default method next to erm."""
    return Experiment(**fields_of(values) or BARE)


def parse(arguments: Sequence[str]) -> Experiment:
    """Returns the experiment that a command line asks for.

    Args:
        arguments: after the program's name.

    Raises:
        UserError: a flag is unknown, its value is not allowed, or it asks for help.

    Examples:
        >>> parse(["--flagfile=configs/cifar10_flip.cfg", "--epochs=5"]).network
        'resnet32'
    """
    values = define_flags()
    command_flags.read_flags(values, flagfiles.expand(arguments))
    if values.help or values.helpfull:
        raise UserError("--help is among the flags of a run; allowed: the command's own --help")
    return experiment_of(values)


def names_of(text: str) -> list[str]:
    """Splits a flag's value at commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def axes_of(lines: Sequence[str], what: str = "set") -> dict[str, list[str]]:
    """Returns flag -> values to try, from lines ``<flag>=<values between commas>``.

    Raises:
        UserError: a line is not of that form, or two are of one flag; ``what`` is its name in the
            message.
    """
    axes: dict[str, list[str]] = {}
    for line in lines:
        name, equals, values = line.partition("=")
        if not equals or not names_of(values):
            raise UserError(f"{what} is '{line}'; allowed: <flag>=<values between commas>")
        if name in axes:
            raise UserError(f"{what} has '{name}' twice; allowed: all its values between commas")
        axes[name] = names_of(values)
    return axes
