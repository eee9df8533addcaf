"""The flags of a command: reads them, and lists them for --help."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Sequence

from absl import flags

from tf_mwnet.cli import flagfiles
from tf_mwnet.errors import UserError, flag_error

# Flags of every command, which --help does not list.
HELP = {"help", "helpfull"}


def read_flags(values: flags.FlagValues, arguments: Sequence[str], more: bool = False) -> list[str]:
    """Sets flags from a command line; returns the arguments that are left.

    Args:
        values: the command's flags.
        arguments: the command line without the program's name.
        more: whether other flags are allowed; they are left.

    Raises:
        UserError: a flag is unknown, a value has another type, or an argument is not a flag.
    """
    try:
        left = values(["command", *arguments], known_only=more)[1:]
    except flags.Error as error:
        raise UserError(_about(error, values, arguments)) from error
    for argument in left:
        if not (more and argument.startswith("-")):
            raise UserError(f"unknown argument '{argument}'; allowed: flags, as --name=value")
    return left


def _about(error: flags.Error, values: flags.FlagValues, arguments: Sequence[str]) -> str:
    """Says what is wrong with a flag, and in which flagfile it is."""
    name = match[1] if (match := re.match(r"flag --(\w+)", str(error))) else ""
    if isinstance(error, flags.UnrecognizedFlagError):
        name = error.flagname
    found = [a for a in arguments if a.lstrip("-").partition("=")[0] in (name, f"no{name}")]
    file = flagfiles.file_of(found[-1]) if found else ""
    where = f" in flagfile '{file}'" if file else ""
    if isinstance(error, flags.UnrecognizedFlagError):
        close = difflib.get_close_matches(name, list(values), n=1)
        hint = f" (did you mean '--{close[0]}'?)" if close else ""
        if method := _method_with(name, arguments):
            hint = f" (of method {method} it is an option: --method='{method} --{name}=...')"
        return f"unknown flag '--{name}'{where}{hint}; allowed: those that --help lists"
    about, allowed, kind = flag_error(error, {n: values[n].flag_type() for n in values}).partition(";")
    return f"{about}{where}{allowed}{kind}" if about else " ".join(str(error).split())


def _method_with(option: str, arguments: Sequence[str]) -> str:
    """Returns a method that has an option, if possible one that the arguments name; or ""."""
    from tf_mwnet.methods import METHODS

    own = [name for name, kind in METHODS.items() if any(o.name == option for o in kind.options)]
    named = [name for name in own if any(name in a.replace("=", " ").split() for a in arguments)]
    return next(iter(named + own), "")


def new_flags() -> flags.FlagValues:
    """Creates the flags of a command, separate from absl's global ones, with --help."""
    values = flags.FlagValues()
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    flags.DEFINE_boolean("helpfull", False, "show all of it", flag_values=values)
    return values


def flags_text(values: flags.FlagValues) -> str:
    """Lists flags with their defaults and help, as --help shows them."""
    lines = ["Flags (--flagfile=<file> reads them from a file, one per line; later ones win):", ""]
    for name in sorted({values[name].name for name in values} - HELP):
        flag = values[name]
        default = str(flag.default_as_str).strip("'") if flag.default not in (None, []) else ""
        lines += flag_lines(flag.name, default, flag.help or "")
    return "\n".join(lines)


def flag_lines(name: str, default: str, text: str) -> list[str]:
    """Formats a flag for --help."""
    indent = " " * 6
    return [
        f"  --{name}={default}",
        *textwrap.wrap(" ".join(text.split()), 90, initial_indent=indent, subsequent_indent=indent),
    ]
