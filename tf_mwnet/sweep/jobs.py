"""Runs the jobs of a sweep in separate processes, several at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import pathlib
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING

from absl import logging

from tf_mwnet.cli import console, processes
from tf_mwnet.cli.flags import parse
from tf_mwnet.config import Experiment
from tf_mwnet.data.progress import EVERY
from tf_mwnet.errors import Interrupted, NotANumber, UserError
from tf_mwnet.runs.saved_run import CONFIG, RESULT, read_metrics, saved_experiment

if TYPE_CHECKING:
    from tf_mwnet.experiment.resolve import LastData

# TensorFlow keeps some memory after each run, so pools are replaced now and then. A pool whose processes
# end after a number of tasks can deadlock in Python 3.11 (CPython issue 115634).
RUNS_PER_PROCESS = 20


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        folder: of the run.
        setting: its name.
        method: its name.
        label: its name with its options: "s_model (confusion)".
        flags: of `tf_mwnet.main`, without ``run_dir``.
    """

    folder: pathlib.Path
    setting: str
    method: str
    label: str
    flags: tuple[str, ...]

    def config(self) -> Experiment:
        """Returns the run's configuration; raises ``UserError`` for a bad flag."""
        started = (self.folder / "config.json").is_file()
        more = [f"--run_dir={self.folder}"] + (["--resume"] if started else [])
        return parse([*self.flags, *more])


# A job, what went wrong or "", and seconds.
Outcome = tuple[Job, str, float]
Engine = Callable[[Sequence[Job]], Iterator[Outcome]]


@functools.cache
def _last_data() -> LastData:
    """Returns what this process keeps from one run to the next."""
    from tf_mwnet.experiment.resolve import LastData

    return LastData()


def work(job: Job) -> Outcome:
    """Does one run in a process of its own or after others, whose data it takes if it is the same."""
    import keras

    from tf_mwnet.experiment.runner import run

    console.start_logging()
    logging.set_verbosity(logging.ERROR)
    start = time.perf_counter()
    try:
        config = job.config()
        run(config, _last_data().of(config))
        problem = ""
    except UserError as error:
        problem = f"left out: {error}"
    except NotANumber as error:
        problem = f"failed: {error}"
    except (Interrupted, KeyboardInterrupt):
        os._exit(1)  # returning would begin the next run
    except Exception as error:  # the others go on; the same command tries this one again
        problem = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        with contextlib.suppress(OSError):
            text = "".join(traceback.format_exception(error))
            (job.folder / "error.log").write_text(text, "utf-8")
    keras.backend.clear_session()
    return job, problem, time.perf_counter() - start


# Told what has gone wrong so far, and how long all will take, in words.
Told = Callable[[Mapping[Job, str], str], object]


def execute(jobs: Sequence[Job], engine: Engine, tell: Told | None = None) -> dict[Job, str]:
    """Does the runs that are not finished; returns those without a result, and why.

    Args:
        jobs: see `plan.plan`.
        engine: does them, as `Processes` or `ray_tasks.Tasks`.
        tell: called at the start, now and then, and after each run.
    """
    todo = [job for job in jobs if not (job.folder / RESULT).is_file()]
    if done := len(jobs) - len(todo):
        logging.info("%d of %d runs are finished already", done, len(jobs))
    watch = _Watch(todo, tell)
    start = time.perf_counter()
    with processes.every(EVERY, watch.look):
        for count, (job, problem, seconds) in enumerate(engine(todo) if todo else (), start=1):
            left = (time.perf_counter() - start) / count * (len(todo) - count)
            words = "" if count == len(todo) else how_long(left)
            logging.info(
                "%d of %d: %s %s (%.0f s)%s",
                count, len(todo), job.folder.name, problem or "done", seconds, words and f"; {words}",
            )  # fmt: skip
            watch.note(job, problem, words)
    return watch.problems


def how_long(seconds: float) -> str:
    """Says how long all that is left will take."""
    return "under 1 min left" if seconds < 60 else f"about {seconds / 60:.0f} min left"


class _Watch:
    """Says how far the runs are that go on now, wherever they do."""

    def __init__(self, jobs: Sequence[Job], tell: Told | None) -> None:
        self.said = {job: how_far(job.folder) for job in jobs}  # of a run that was interrupted before
        self.problems, self.left = dict[Job, str](), ""
        self.tell, self.lock = tell, threading.Lock()
        self._tell()

    def look(self) -> None:
        """Logs what has changed; a thread does, now and then."""
        for job, before in self.said.items():
            now = how_far(job.folder)
            if now and now != before:
                logging.info("%s: %s", job.folder.name, now)
            self.said[job] = now
        self._tell()

    def note(self, job: Job, problem: str, left: str) -> None:
        """Takes note of the end of a run, and of how long all will take."""
        if problem:
            self.problems[job] = problem
        self.left = left
        self._tell()

    def _tell(self) -> None:
        if self.tell is not None:
            with self.lock:
                self.tell(dict(self.problems), self.left)


def how_far(folder: pathlib.Path) -> str:
    """Says how far an unfinished run is, "mwnet, epoch 3 of 60"; "" if it is not known."""
    files = {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.csv")}
    if not files or (folder / RESULT).is_file():
        return ""
    newest = max(files, key=lambda path: files[path])
    try:
        epochs = saved_experiment(folder / CONFIG).epochs
        return f"{newest.parent.name}, epoch {len(read_metrics(newest))} of {epochs}"
    except (OSError, ValueError):  # it is being replaced
        return ""


@dataclasses.dataclass(frozen=True)
class Processes:
    """Does runs in processes of this machine.

    Attributes:
        count: runs at a time, which share the processor's cores.
    """

    count: int = 1

    def __call__(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        context, size = multiprocessing.get_context("spawn"), RUNS_PER_PROCESS * self.count
        with _environment(max(1, (os.cpu_count() or 1) // self.count)):
            for part in (jobs[i : i + size] for i in range(0, len(jobs), size)):
                with _ended(
                    ProcessPoolExecutor(self.count, context, processes.begin_process, (os.getpid(),))
                ) as pool:
                    for future in as_completed([pool.submit(work, job) for job in part]):
                        yield future.result()


def environment_of(threads: int) -> dict[str, str]:
    """Returns what a process of a sweep has in its environment: its threads, and no progress bars.

    Nor does Python's helper warn of semaphores where a sweep is stopped.
    """
    unheard = "ignore::UserWarning:multiprocessing.resource_tracker"
    return processes.threads(threads) | {"TQDM_DISABLE": "1", "PYTHONWARNINGS": unheard}


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Sets what the processes of a pool inherit, unless it is set already."""
    before = dict(os.environ)
    for name, value in environment_of(threads).items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _ended(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """Ends the pool's processes at once on an error."""
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()
