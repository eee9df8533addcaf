"""Options of one method: declared on its class, checked and read from text in one place."""

from __future__ import annotations

import dataclasses
import inspect
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from tf_mwnet.errors import KINDS, UserError, choose, flag_error, quoted

if TYPE_CHECKING:
    from tf_mwnet.methods.base import Method


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of one method: a constructor argument that the command line takes too.

    Type and default are those of the constructor's signature: bool, int, float, str, or a tuple of
    floats, whose entries the bounds hold for.

    Attributes:
        name: of the constructor argument, of the attribute, and of the flag.
        help: what it does, one line for ``--help``.
        at_least, at_most: bounds, themselves allowed.
        above, below: bounds, themselves not allowed.
        choices: the texts that are allowed; empty for any.

    Examples:
        >>> Option("q", "exponent of the loss", above=0, at_most=1).check(2.0)
        Traceback (most recent call last):
        tf_mwnet.errors.UserError: q is 2; allowed: above 0, at most 1
    """

    name: str
    help: str
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """The allowed values in words; "" for any."""
        if self.choices:
            return quoted(self.choices)
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        if self.at_least is not None and self.below is not None:
            return f"{self.at_least:g} to below {self.below:g}"
        named = {"at least": self.at_least, "above": self.above}
        named |= {"at most": self.at_most, "below": self.below}
        return ", ".join(f"{word} {bound:g}" for word, bound in named.items() if bound is not None)

    def check(self, value: Any) -> None:
        """Raises ``UserError`` where a value is outside the bounds or not a choice."""
        if self.choices:
            choose(self.name, value, dict.fromkeys(self.choices))
        elif isinstance(value, (tuple, list)):
            for entry in value:
                self._check_number(f"a value in {self.name}", entry)
        elif not isinstance(value, bool | str):
            self._check_number(self.name, value)

    def _check_number(self, name: str, value: float) -> None:
        inside = (
            (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )
        if not inside or not math.isfinite(value):
            shown = value if isinstance(value, int) else f"{value:g}"
            raise UserError(f"{name} is {shown}; allowed: {self.allowed or 'a finite number'}")


def default_of(kind: type[Method], name: str) -> Any:
    """Returns the default of a constructor argument, from the first class that names it.

    Raises:
        TypeError: no constructor of the class or its bases names it, or it has no default.
    """
    for base in inspect.getmro(kind):
        if constructor := vars(base).get("__init__"):
            parameter = inspect.signature(constructor).parameters.get(name)
            if parameter is not None and parameter.default is not parameter.empty:
                return parameter.default
    raise TypeError(f"{kind.__name__} declares the option '{name}' and takes no such argument")


def converted(option: Option, value: Any, default: Any) -> Any:
    """Converts a value to the type of the option's default, and checks it.

    Raises:
        UserError: it has another type, or is not allowed.
    """
    try:
        if isinstance(default, bool):
            if isinstance(value, str) or value not in (0, 1):
                raise ValueError
            value = bool(value)
        elif isinstance(default, int):
            if int(value) != value:
                raise ValueError
            value = int(value)
        elif isinstance(default, float):
            value = float(value)
        elif isinstance(default, tuple):
            value = tuple(float(entry) for entry in value)
            if len(value) != len(default):
                raise ValueError
        elif not isinstance(value, str):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{option.name} is {value!r}; allowed: {_type_name(default)}"
            + (f", {option.allowed}" if option.allowed else "")
        ) from None
    option.check(value)
    return value


def _type_name(default: Any) -> str:
    if isinstance(default, tuple):
        return f"{len(default)} numbers"
    return KINDS.get(type(default).__name__, "a text")


def checked(kind: type[Method], values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts and checks options of a method.

    Args:
        kind: the method's class.
        values: name -> value.

    Raises:
        UserError: the method has no such option, or a value is not allowed.
    """
    known = {option.name: option for option in kind.options}
    for name in values:
        if name not in known:
            allowed = quoted(f"--{n}" for n in known) or "none, it has no options"
            raise UserError(f"method {kind.__name__} has no option '{name}'; allowed: {allowed}")
    return {n: converted(known[n], v, default_of(kind, n)) for n, v in values.items()}


def filled(kind: type[Method], values: Mapping[str, Any]) -> dict[str, Any]:
    """Completes options of a method by the defaults of the others, in the order of the class.

    An option that a run has a value for (`Method.from_run`) is left out unless it is given.
    """
    defaults = {o.name: default_of(kind, o.name) for o in kind.options if o.name not in kind.from_run}
    merged = defaults | dict(values)
    return {o.name: merged[o.name] for o in kind.options if o.name in merged}


def parse(text: str, table: Mapping[str, type[Method]]) -> tuple[str, dict[str, Any]]:
    """Reads ``"gdw --eta=1000 --nozero_mean"``: the name of a method and its options.

    Args:
        text: a name, and options as flags.
        table: name -> class of the method.

    Raises:
        UserError: the method is unknown, has no such option, or a value is not allowed.
    """
    try:
        name, *arguments = shlex.split(text)
    except ValueError as error:  # nothing, or a quote that is not closed
        raise UserError(
            f"method is '{text}'; allowed: a name, and its options as --name=value"
        ) from error
    kind = choose("method", name, table)
    if not arguments:
        return name, {}
    values = flags.FlagValues()
    for option in kind.options:
        define(option, default_of(kind, option.name), values)
    try:
        rest = values(["method", *arguments])[1:]
    except flags.Error as error:
        known = quoted(f"--{option.name}" for option in kind.options) or "none, it has no options"
        if isinstance(error, flags.UnrecognizedFlagError):
            reason = f"method {name} has no option '{error.flagname}'; allowed: {known}"
            raise UserError(reason) from None
        about = flag_error(error, {n: values[n].flag_type() for n in values})
        reason = " ".join(str(error).split())
        raise UserError(about or f"method {name}: {reason}; allowed: {known}") from None
    if rest:
        raise UserError(f"method is '{text}'; allowed: {name}, and its options as --name=value")
    given = {o.name: values[o.name].value for o in kind.options if values[o.name].present}
    return name, checked(kind, {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()})


def define(option: Option, default: Any, values: flags.FlagValues) -> None:
    """Defines the flag of an option."""
    if isinstance(default, tuple):
        flags.DEFINE_list(option.name, [str(v) for v in default], option.help, flag_values=values)
        return
    kinds: dict[type, Callable[..., Any]] = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
    }
    of_kind = kinds.get(type(default), flags.DEFINE_string)
    of_kind(option.name, default, option.help, flag_values=values)


def with_own(name: str, arguments: Sequence[str], kind: type[Method]) -> tuple[str, list[str]]:
    """Puts the flags that are a method's own options behind its name, as `parse` reads them.

    Args:
        name: of the method.
        arguments: flags, of the method and of a run.
        kind: the method's class.

    Returns:
        ``"gdw --eta=1000"`` and the flags that are not options of the method.
    """
    names = {option.name for option in kind.options}
    names |= {f"no{n}" for n in names if isinstance(default_of(kind, n), bool)}
    own = [a for a in arguments if a.lstrip("-").partition("=")[0] in names]
    return shlex.join([name, *own]), [a for a in arguments if a not in own]


def spelled(name: str, values: Mapping[str, Any], table: Mapping[str, type[Method]]) -> str:
    """Writes a method and its options as `parse` reads them, without those at their defaults."""
    words = [name]
    for option, value in values.items():
        default = default_of(table[name], option)
        value = tuple(value) if isinstance(default, tuple) else value
        if value != default:
            words.append(f"--{option}={text_of(value)}")
    return shlex.join(words)


def text_of(value: Any) -> str:
    """Writes an option's value as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(map(text_of, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def default_text(kind: type[Method], name: str) -> str:
    """Writes an option's default for people: 1 / 30 as 0.03333."""
    value = default_of(kind, name)
    return f"{value:.4g}" if isinstance(value, float) else text_of(value)


def help_lines(table: Mapping[str, type[Method]]) -> Sequence[str]:
    """Lists the options of all methods for ``--help``."""
    lines = []
    for name, kind in table.items():
        for option in kind.options:
            allowed = f" ({option.allowed})" if option.allowed else ""
            lines.append(f"  {name} --{option.name}={default_text(kind, option.name)}")
            lines.append(f"      {option.help}{allowed}")
    return lines
