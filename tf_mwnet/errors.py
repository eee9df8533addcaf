"""What ends a command: input that a person can put right, and what else stops a run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """A bad value from the user; the message names it and what is allowed.

    The command line prints the message as one line and exits with code 2.
    """


class NotANumber(RuntimeError):
    """The training loss is NaN or infinite; the message says at which step."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; ``signal`` says how."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


class WorkerLost(RuntimeError):
    """Another worker ended or does not answer; the message says what can be done."""


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


def integers(name: str, texts: Sequence[str]) -> list[int]:
    """Numbers from a list of texts; raises ``UserError`` where one is none."""
    try:
        return [int(text) for text in texts]
    except ValueError:
        raise UserError(f"{name} are '{','.join(texts)}'; allowed: integers") from None


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raises ``UserError`` unless ``low <= value <= high`` (NaN fails)."""
    if not low <= value <= high:
        allowed = f"at least {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
        raise UserError(f"{name} is {value:g}; allowed: {allowed}")
