"""Runs a component's work in the component's process and records it in the store."""

from __future__ import annotations

import contextlib
import inspect
import logging as python_logging
import os
import pathlib
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines.store import Store
from pipelines.work import OUTPUTS, WORK
from tf_mwnet.cli import console, processes
from tf_mwnet.errors import Interrupted, NotANumber, UserError
from tf_mwnet.export.saved_models import library_versions

LAUNCHER = "TF_MWNET_LAUNCHER"  # id of the process that started the component, which ends with it
FAILED = "failed: "  # start of the last line of a component that has failed


def perform(name: str, arguments: Mapping[str, Any]) -> None:
    """Runs a component's work and records it in the store.

    On failure, ends the process with exit code 2, after a line that begins with `FAILED`.

    Args:
        name: the component's name.
        arguments: the arguments of its function; artifacts have a ``uri`` and a ``path``.
    """
    if launcher := os.environ.get(LAUNCHER):
        processes.end_with(int(launcher))
    python_logging.getLogger().handlers.clear()  # the engine's would print each message twice
    console.start_logging()
    takes = inspect.signature(WORK[name]).parameters
    given = {k: v for k, v in arguments.items() if k in takes}
    artifacts = {k: v for k, v in arguments.items() if hasattr(v, "uri")}
    outputs = {k: v for k, v in artifacts.items() if k in OUTPUTS[name]}
    inputs = {k: v.uri for k, v in artifacts.items() if k not in outputs}
    parameters = {}
    for key, value in arguments.items():
        if isinstance(value, list) and any(hasattr(v, "uri") for v in value):
            inputs |= {f"{key}-{i}": v.uri for i, v in enumerate(value)}
        elif key not in artifacts and isinstance(value, str | int | float | list):
            parameters[key] = value
    task: int | None = None
    store: Store | None = None
    try:
        if arguments["home"]:
            store = Store(arguments["home"])
            planned = [v.uri for v in outputs.values()]
            task = store.begin(name, parameters, library_versions(), inputs, planned)
        for output in outputs.values():
            pathlib.Path(output.path).parent.mkdir(parents=True, exist_ok=True)
        with interruptible():
            metrics = WORK[name](**given) or {}
        made = {k: v.uri for k, v in outputs.items()}
        if store and task is not None:
            model = metrics.get("digest", "") if name == "pusher" else ""
            store.finish(task, made, metrics, model)
    except (Exception, Interrupted) as error:
        known = isinstance(error, UserError | NotANumber | OSError | Interrupted)
        text = " ".join((str(error) if known else f"{type(error).__name__}: {error}").split())
        if store and task is not None:
            with contextlib.suppress(Exception):  # with a full disk, this can fail, too
                store.fail(task, text[:500])
        if not known:
            traceback.print_exc()
        sys.exit(console.fail(f"{FAILED}{text[:500]}", 2))


@contextlib.contextmanager
def interruptible(hint: str = "", before_it: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Raises ``Interrupted`` on SIGTERM and SIGINT.

    Args:
        hint: added to the message after the name of the signal.
        before_it: called before raising.
    """

    def ended(number: int, frame: types.FrameType | None) -> None:
        before_it()
        raise Interrupted(number, f"stopped by {signal.Signals(number).name}{hint}")

    before = {number: signal.signal(number, ended) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
