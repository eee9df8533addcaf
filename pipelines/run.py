"""``python -m pipelines.run``: runs the pipeline on this machine.

Takes its own flags and those of ``python -m tf_mwnet.main`` (written --name=value). Components whose
inputs have not changed are not run again; after a failure or a kill, the same command continues.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging as python_logging
import os
import pathlib
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from tf_mwnet.cli import console

console.start()

from absl import logging  # noqa: E402

from pipelines import outcome  # noqa: E402
from pipelines import settings as options  # noqa: E402
from pipelines.store import Store  # noqa: E402
from pipelines.tasks import FAILED, LAUNCHER, interruptible  # noqa: E402
from tf_mwnet.errors import UserError  # noqa: E402
from tf_mwnet.files import check_folder, locked  # noqa: E402

ARTIFACTS = "artifacts"
COLOUR = re.compile(r"\x1b\[\d+m")
BEGIN = re.compile(r"Executing task '([\w-]+)'")
BAR = re.compile(r"\s+[\w+ ]+: +\d+%\|")  # a progress bar
CACHED = re.compile(r"Task ([\w-]+) cache hit")


class _Log(io.TextIOBase):
    """Receives the engine's output: writes all of it to a file, and the useful lines to stderr."""

    def __init__(self, file: TextIO):
        self.file, self.rest, self.note = file, "", ""

    def write(self, text: str) -> int:
        self.file.write(COLOUR.sub("", text))
        self.file.flush()
        *lines, self.rest = (self.rest + COLOUR.sub("", text)).split("\n")
        for line in lines:
            self._line(line)
        return len(text)

    def _line(self, line: str) -> None:
        # Printed, because the engine has removed the handlers of logging.
        if begun := BEGIN.search(line):
            self.note = ""
            print(f"tf_mwnet: {begun[1]} ...", file=sys.stderr, flush=True)
        elif line.lstrip().startswith("tf_mwnet: "):
            note = line.lstrip().removeprefix("tf_mwnet: ")
            if note.startswith(FAILED):
                self.note = note.removeprefix(FAILED)
            print(f"    {note}", file=sys.stderr, flush=True)
        elif BAR.match(line):
            print(f"    {line.strip()}", file=sys.stderr, flush=True)


class _Unchanged(python_logging.Handler):
    """Prints which components are unchanged, which the engine only tells the root logger."""

    def emit(self, record: python_logging.LogRecord) -> None:
        if cached := CACHED.search(record.getMessage()):
            print(f"tf_mwnet: {cached[1]}: unchanged", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _notes_of_cache() -> Iterator[None]:
    root, handler = python_logging.getLogger(), _Unchanged()
    level = root.level
    root.addHandler(handler)
    root.setLevel(python_logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@contextlib.contextmanager
def _alone(home: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of a home folder; raises ``UserError`` if one is there."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(home, wait=False))
        except BlockingIOError:
            raise UserError(f"another run is at work in home '{home}'; allowed: one at a time") from None
        yield


def _tidy(store: Store, home: pathlib.Path) -> None:
    """Removes the remains of interrupted tasks, and artifacts that were changed or damaged.

    Only what the store has listed as its own, and only below the home folder: pushed models, which lie
    elsewhere, and other people's files are never removed.
    """
    for component in store.end_running():
        logging.info("%s was killed; continuing there", component)
    for uri in store.damaged(home / ARTIFACTS):
        logging.warning("'%s' has changed since it was made; making it again", uri)
        if aside := store.remove(uri):
            logging.warning("files that were added to it are in '%s'", aside)
    for uri in store.unfinished():
        path = store.place(uri)
        if home / ARTIFACTS in path.parents and path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            with contextlib.suppress(OSError):  # other outputs of the task
                path.parent.rmdir()


def _end_components(store: Store) -> None:
    """Ends the component that is running, so that it does not outlive this process."""
    for row in store.rows("SELECT pid FROM tasks WHERE state = 'running'"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(row["pid"], signal.SIGTERM)


def _execute(pipeline: Callable[[], Any], home: pathlib.Path) -> None:
    """Runs a pipeline on Kubeflow's local engine.

    Raises:
        RuntimeError: a component has failed.
    """
    from kfp import local

    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=ARTIFACTS,
        enable_caching=True,
        cache_root=str(home / "cache"),
    )
    # The engine works in the home folder. `init` makes the path absolute, as a container would need it;
    # with a relative one the cache, whose keys have the paths of inputs, is still right after a move.
    local.config.LocalExecutionConfig.instance.pipeline_root = ARTIFACTS
    os.environ[LAUNCHER] = str(os.getpid())
    # Components import the packages from where this process imports them.
    modules = [sys.modules[name] for name in ("tf_mwnet", "pipelines")]
    roots = {str(pathlib.Path(inspect.getfile(module)).parents[1]) for module in modules}
    os.environ["PYTHONPATH"] = os.pathsep.join([*sorted(roots), os.environ.get("PYTHONPATH", "")])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with open(home / "log.txt", "a", encoding="utf-8") as file:
        log = _Log(file)
        try:
            with contextlib.chdir(home), contextlib.redirect_stdout(log), _notes_of_cache():
                pipeline()
        except RuntimeError as error:  # with a full disk, the store may lack the reason
            raise RuntimeError(log.note or str(error)) from error


def run(settings: options.Settings) -> str:
    """Runs the pipeline of some settings; returns the text to print.

    Raises:
        UserError: a component has failed; the message has its reason.
    """
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    from pipelines import graph

    home, start = pathlib.Path(settings.home), time.time()
    check_folder("home", home)
    check_folder("push_to", pathlib.Path(settings.push_to))
    pipeline = graph.build(settings)  # finds what is not there, before anything is made or removed
    with _alone(home):
        store = Store(home)
        _tidy(store, home)
        try:
            with interruptible("; the same command continues", lambda: _end_components(store)):
                _execute(pipeline, home)
        except RuntimeError as error:
            store.end_running(str(error) if "finished with status" not in str(error) else "")
            failed = store.rows("SELECT * FROM tasks WHERE started > ? AND state = 'failed'", start)
            if not failed:
                raise UserError(f"{error}; see {home / 'log.txt'}") from error
            last = failed[-1]
            raise UserError(
                f"{last['component']}: {last['error'] or 'failed'}; see {home / 'log.txt'}; the same"
                " command continues from there"
            ) from error
        return outcome.report(store, start, home / "pages")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, see `console.command`."""
    return console.command(
        __doc__,
        options.define_flags(),
        lambda values, left: run(options.read(values, left)),
        arguments,
        more=True,
    )


if __name__ == "__main__":
    sys.exit(main())
