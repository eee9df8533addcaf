"""Shows how far a piece of work has come."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import tqdm
from absl import logging


@contextlib.contextmanager
def progress(total: int, what: str, unit: str = "") -> Iterator[Callable[..., None]]:
    """Shows how far a piece of work has come: a bar on a terminal, else a line every 20 seconds.

    Args:
        total: number of steps.
        what: the work, in a word or two.
        unit: what a step is, to show steps per second; "" to show none.

    Yields:
        A function to call after each step, or with a number of steps.
    """
    done, start = 0, time.monotonic()
    said = start
    shown = {"unit": f" {unit}"} if unit else {}
    bar = tqdm.tqdm(total=total, desc=what, leave=False, disable=not sys.stderr.isatty(), **shown)
    with bar:

        def advance(steps: int = 1) -> None:
            nonlocal done, said
            done += steps
            bar.update(steps)
            now = time.monotonic()
            if bar.disable and now - said > 20:
                said = now
                rate = f", {done / (now - start):.0f} {unit} a second" if unit else ""
                logging.info("%s: %d of %d%s", what, done, total, rate)

        yield advance
