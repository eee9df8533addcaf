"""The one exception for input that a person can put right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """A bad value from the user; the message names it and what is allowed.

    The command line prints the message as one line and exits with code 2.
    """


def quoted(names: Iterable[object]) -> str:
    return ", ".join(str(n) for n in names)


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Returns ``table[name]``.

    Args:
        kind: what is chosen, for the message ("method", "network").
        name: the name asked for.
        table: names and what they stand for.

    Raises:
        UserError: ``name`` is not in ``table``; the message lists the names that are.
    """
    if name in table:
        return table[name]
    close = difflib.get_close_matches(name, list(table), n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    raise UserError(f"unknown {kind} '{name}'{hint}; allowed: {quoted(table)}")


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raises ``UserError`` unless ``low <= value <= high`` (NaN fails)."""
    if not low <= value <= high:
        allowed = f"at least {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
        raise UserError(f"{name} is {value:g}; allowed: {allowed}")
