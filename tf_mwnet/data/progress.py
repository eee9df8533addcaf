"""Shows how far a piece of work has come."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import tqdm
from absl import logging

EVERY = 20.0  # seconds between lines where there is no terminal


class Bar:
    """How far a piece of work has come: a bar on a terminal, else a line every 20 seconds.

    Args:
        total: number of steps.
        what: the work, in a word or two.
        unit: what a step is, to show steps per second; "" to show none.
        done: steps that were done before.
        keep: whether the bar stays on the terminal at the end, and a last line is written without one.

    Attributes:
        text: shown after the numbers, such as the newest result.
    """

    def __init__(self, total: int, what: str, unit: str = "", done: int = 0, keep: bool = False) -> None:
        self.total, self.what, self.unit, self.done, self.keep = total, what, unit, done, keep
        self.text = ""
        self._first, self._start = done, time.monotonic()
        self._said = self._start
        terminal = sys.stderr.isatty()
        shown = {"unit": f" {unit}"} if unit else {}
        self._bar = tqdm.tqdm(
            total=total, initial=done, desc=what, leave=keep, disable=not terminal, mininterval=0.2,
            dynamic_ncols=True, **shown,
        )  # fmt: skip

    def advance(self, steps: int = 1) -> None:
        """Adds steps that are done."""
        self.done += steps
        if not self._bar.disable:
            self._bar.set_postfix_str(self.text, refresh=False)
            self._bar.update(steps)
        elif time.monotonic() - self._said > EVERY:
            self._say()

    def _say(self) -> None:
        self._said = now = time.monotonic()
        parts = [f"{self.done} of {self.total} {self.unit}".rstrip()]
        if self.unit and now > self._start:
            parts.append(f"{(self.done - self._first) / (now - self._start):.3g} a second")
        logging.info("%s: %s", self.what, ", ".join([*parts, *filter(None, [self.text])]))

    def close(self) -> None:
        """Ends the bar; may be called again."""
        if not self._bar.disable:
            self._bar.set_postfix_str(self.text)
            self._bar.close()
        elif self.keep:
            self._say()
        self.keep = False


@contextlib.contextmanager
def progress(total: int, what: str, unit: str = "", least: int = 0) -> Iterator[Callable[..., None]]:
    """Shows a `Bar` during a piece of work.

    Args:
        total, what, unit: see `Bar`.
        least: number of steps below which nothing is shown.

    Yields:
        A function to call after each step, or with a number of steps.
    """
    if total < least:
        yield lambda steps=1: None
        return
    bar = Bar(total, what, unit)
    try:
        yield bar.advance
    finally:
        bar.close()
