"""Flags: an `Experiment` from a command line, and lists and axes of values in flags."""

from __future__ import annotations

import dataclasses
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags

from tf_mwnet.cli import console, flagfiles
from tf_mwnet.config import ABOUT_THE_FOLDER, CONFIG, Experiment, saved_fields
from tf_mwnet.errors import UserError

# What a command without flags does beside the defaults.
BARE = {"compare": "erm"}


def define_flags() -> flags.FlagValues:
    """A flag for each field of `Experiment`, apart from absl's global ones."""
    values = flags.FlagValues()
    for field in dataclasses.fields(Experiment):
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
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    return values


def help_text(about: str) -> str:
    """``about``, and all flags in the order of `Experiment`, with their defaults."""
    lines = [
        about,
        "Flags (--flagfile=<file> reads them from a file, a flag per line; later ones win):",
        "",
    ]
    for field in dataclasses.fields(Experiment):
        default = field.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        shown = "" if default is None else str(shown).lower() if isinstance(default, bool) else shown
        lines.append(f"  --{field.name}={shown}")
        lines += textwrap.wrap(
            field.metadata["help"], 90, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
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
    for field in dataclasses.fields(Experiment):
        flag = values[field.name]
        if flag.present and field.type.startswith("tuple"):
            found[field.name] = _tuple_of(field.name, flag.value, field.type)
        elif flag.present:
            found[field.name] = flag.value
    return found


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
