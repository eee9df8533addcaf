"""Processes and threads that a command starts."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from tf_mwnet.cli import console


def end_with(process: int) -> None:
    """Starts a thread that ends this process soon after another one, by its id, has ended."""

    def watch() -> None:
        while True:
            time.sleep(0.5)
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def begin_process(parent: int) -> None:
    """Begins a process of a pool, which ends with the one that started it.

    A new process imports first the module of the function that it begins with, so this one must not
    import TensorFlow.
    """
    end_with(parent)
    console.start()


@contextlib.contextmanager
def every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Calls a function now and then in a thread, for as long as the context lasts."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def threads(count: int) -> dict[str, str]:
    """Returns the environment variables that set the threads of TensorFlow in a process to start."""
    return dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(count))
