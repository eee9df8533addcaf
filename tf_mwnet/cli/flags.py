"""Flags: an `Experiment` from a command line, and lists and axes of values in flags."""

from __future__ import annotations

import dataclasses
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags, logging

from tf_mwnet import methods
from tf_mwnet.cli import console, flagfiles
from tf_mwnet.config import ABOUT_THE_FOLDER, CONFIG, FORMER, Experiment, saved_fields
from tf_mwnet.errors import UserError
from tf_mwnet.methods import METHODS, options

# The fields that have a flag.
FIELDS = [field for field in dataclasses.fields(Experiment) if field.metadata.get("flag", True)]
# What a command without flags does beside the defaults.
BARE = {"compare": "erm"}


def define_flags() -> flags.FlagValues:
    """A flag for each field of `Experiment`, apart from absl's global ones."""
    values = flags.FlagValues()
    for field in FIELDS:
        text, default = field.metadata["help"], field.default
        kind = field.type
        arguments = {"flag_values": values}
        if kind == "bool":
            flags.DEFINE_boolean(field.name, default, text, **arguments)
        elif kind in ("int", "int | None"):
            flags.DEFINE_integer(field.name, default, text, **arguments)
        elif kind == "float":
            flags.DEFINE_float(field.name, default, text, **arguments)
        elif kind.startswith("tuple"):
            shown = ",".join(map(str, default))
            flags.DEFINE_string(field.name, shown, f"{text} (comma separated)", **arguments)
        else:
            flags.DEFINE_string(field.name, default, text, **arguments)
    for name, method in FORMER.items():
        kind = METHODS[method]
        option = next(o for o in kind.options if o.name == name)
        options.define(option, options.default_of(kind, name), values)
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    return values


def help_text(about: str) -> str:
    """``about``, and all flags in the order of `Experiment`, with their defaults."""
    lines = [
        about,
        "Flags (--flagfile=<file> reads them from a file, a flag per line; later ones win):",
        "",
    ]
    for field in FIELDS:
        default = field.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        shown = "" if default is None else str(shown).lower() if isinstance(default, bool) else shown
        lines.append(f"  --{field.name}={shown}")
        lines += textwrap.wrap(
            field.metadata["help"], 90, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    lines += ["", "Options of methods, as --method='gdw --eta=1000' or in compare:", ""]
    lines += options.help_lines(METHODS)
    return "\n".join(lines)


def _tuple_of(name: str, text: str, kind: str) -> tuple:
    parts = [p.strip() for p in text.split(",") if p.strip()]
    if "int" not in kind:
        return tuple(parts)
    try:
        return tuple(int(p) for p in parts)
    except ValueError:
        raise UserError(f"{name} is '{text}'; allowed: integers between commas") from None


def given(values: flags.FlagValues) -> dict[str, Any]:
    """The fields of an `Experiment` that flags set, or the run that they resume has."""
    if values.auto_resume and (pathlib.Path(values.run_dir) / CONFIG).is_file():
        values["resume"].value = True
        values["resume"].present = 1
    path = pathlib.Path(values.run_dir or "") / CONFIG
    found = {}
    if values.resume and values.run_dir and path.is_file():  # else `run` says what is wrong
        found = {k: v for k, v in saved_fields(path).items() if k not in ABOUT_THE_FOLDER}
    for field in FIELDS:
        flag = values[field.name]
        if flag.present and field.type.startswith("tuple"):
            found[field.name] = _tuple_of(field.name, flag.value, field.type)
        elif flag.present:
            found[field.name] = flag.value
    if former := _former(values):
        own = dict(found.get("method_options", {}))
        for method, given_options in former.items():
            own[method] = dict(own.get(method, {})) | given_options
        found["method_options"] = own
    return found


def _former(values: flags.FlagValues) -> dict[str, dict[str, Any]]:
    """Options of methods that were given as flags of their own, as before version 0.2."""
    own: dict[str, dict[str, Any]] = {}
    for name, method in FORMER.items():
        if not values[name].present or (name == "forget_rate" and not values[name].value):
            continue  # a forget_rate of 0 stood for the noise rate, as no option does now
        own.setdefault(method, {})[name] = values[name].value
        spelled = methods.spelled(method, {name: values[name].value})
        logging.info("--%s is now an option of the method: --method='%s'", name, spelled)
    return own


def experiment_of(values: flags.FlagValues) -> Experiment:
    """The experiment that flags ask for: without any, plain training beside the default method."""
    return Experiment(**given(values) or BARE)


def parse(arguments: Sequence[str]) -> Experiment:
    """The experiment that a command line asks for.

    Args:
        arguments: after the program's name.

    Raises:
        UserError: a flag is unknown or its value is not allowed, or it asks for help.
    """
    values = define_flags()
    console.read_flags(values, flagfiles.expand(arguments))
    if values.help:
        raise UserError("--help is among the flags of a run; allowed: the command's own --help")
    return experiment_of(values)


def names_of(text: str) -> list[str]:
    """The names between commas in a flag."""
    return [part.strip() for part in text.split(",") if part.strip()]


def axes_of(lines: Sequence[str], what: str = "set") -> dict[str, list[str]]:
    """Flag -> values to try, of lines ``<flag>=<values between commas>``.

    Raises:
        UserError: a line is not of that form; ``what`` is its name in the message.
    """
    axes = {}
    for line in lines:
        name, equals, values = line.partition("=")
        if not equals or not names_of(values):
            raise UserError(f"{what} is '{line}'; allowed: <flag>=<values between commas>")
        axes[name] = names_of(values)
    return axes
