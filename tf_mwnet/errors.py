"""Errors that end a command: bad input, and what else stops a run."""

from __future__ import annotations

import contextlib
import difflib
import re
import shlex
import signal
import threading
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
LARGEST = 2**31 - 1  # of counts and sizes: what NumPy and TensorFlow take everywhere


class UserError(ValueError):
    """Bad input from the user; the message names the bad value and what is allowed.

    The command line prints the message as one line and exits with code 2.
    """


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Raises a `UserError` from within TensorFlow's pipelines and traced steps without what wraps it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        for line in str(error).splitlines():
            if match := re.search(r"(?:UserError|Unreadable): (.*)", line):
                raise UserError(match.group(1).strip()) from None
        raise


class NotANumber(RuntimeError):
    """The training loss is NaN or infinite; the message says at which step."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; ``signal`` is the signal's number."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number


_received: list[int] = []  # signals that came since `signals_noted`


@contextlib.contextmanager
def signals_noted() -> Iterator[None]:
    """Notes SIGINT and SIGTERM, which `check_signals`, or the end of this context, raises.

    Nothing is raised in a handler, where it could hit any line. A second signal ends the process at
    once. What is ignored when the process begins, as SIGINT is behind `nohup` or in the background of a
    script, stays so. Outside of the main thread the caller handles signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: types.FrameType | None) -> None:
        if _received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        _received.append(number)

    _received.clear()
    heeded = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    check_signals()


def check_signals() -> None:
    """Raises ``Interrupted`` if a signal has been noted."""
    if _received:
        number = _received[0]
        _received.clear()
        raise Interrupted(number, f"stopped by {signal.Signals(number).name}")


class WorkerLost(RuntimeError):
    """Another worker ended or does not answer; the message says how to go on."""


def quoted(names: Iterable[object]) -> str:
    """Joins names with commas, for a message."""
    return ", ".join(str(n) for n in names)


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Returns ``table[name]``.

    Args:
        kind: what the names are, for the message ("method", "network").
        name: the requested name.
        table: name -> value.

    Raises:
        UserError: ``name`` is not in ``table``; the message lists its names and suggests a close one.
    """
    if name in table:
        return table[name]
    close = difflib.get_close_matches(name, list(table), n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    raise UserError(f"unknown {kind} '{name}'{hint}; allowed: {quoted(table)}")


KINDS = {"int": "an integer", "float": "a number", "bool": "true or false"}


def flag_error(error: Exception, kinds: Mapping[str, str]) -> str:
    """Says what is wrong with a flag's value in absl's error, "" if it is about something else.

    Args:
        error: as absl has raised it.
        kinds: name of a flag -> its type, as absl names it.
    """
    match = re.match(r"flag --(\w+)=(.*)", str(error), re.DOTALL)
    if not match or match[1] not in kinds:
        return ""
    value = match[2].removesuffix(f": {error.__context__}")
    return f"{match[1]} is '{value}'; allowed: {KINDS.get(kinds[match[1]], 'a value of another kind')}"


def words(name: str, text: str) -> list[str]:
    """Splits a text as a shell would; raises ``UserError`` if a quote is not closed."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{name} is {text!r} ({error}); allowed: quotes in pairs") from None


def integers(name: str, texts: Sequence[str]) -> list[int]:
    """Converts texts to integers; raises ``UserError`` if one is not an integer."""
    try:
        return [int(text) for text in texts]
    except ValueError:
        raise UserError(f"{name} are '{','.join(texts)}'; allowed: integers") from None


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raises ``UserError`` unless ``low <= value <= high`` (NaN fails)."""
    if low <= value <= high:
        return
    if high < LARGEST:
        allowed = f"{low:g} to {high:g}"
    else:
        allowed = f"at most {high}" if value > high else f"at least {low:g}"
    shown = value if isinstance(value, int) else f"{value:g}"
    raise UserError(f"{name} is {shown}; allowed: {allowed}")
