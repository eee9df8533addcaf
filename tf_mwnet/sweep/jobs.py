"""Runs the jobs of a sweep in separate processes, several at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from absl import logging

from tf_mwnet.cli import console
from tf_mwnet.cli.flags import parse
from tf_mwnet.config import Experiment
from tf_mwnet.errors import Interrupted, NotANumber, UserError
from tf_mwnet.run_folder import RESULT

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


def _work(job: Job) -> tuple[Job, str, float]:
    """Does one run in a process of the pool; returns the job, what went wrong or "", and seconds."""
    import keras

    from tf_mwnet.experiment.runner import run

    console.start_logging()
    logging.set_verbosity(logging.ERROR)
    start = time.perf_counter()
    try:
        run(job.config())
        problem = ""
    except UserError as error:
        problem = f"left out: {error}"
    except NotANumber as error:
        problem = f"failed: {error}"
    except (Interrupted, KeyboardInterrupt):
        os._exit(1)  # returning would begin the next run
    keras.backend.clear_session()
    return job, problem, time.perf_counter() - start


def execute(jobs: Sequence[Job], processes: int = 1) -> dict[Job, str]:
    """Does the runs that are not finished; returns those without a result, and why.

    Args:
        jobs: see `plan.plan`.
        processes: runs at a time, which share the processor's cores.
    """
    todo = [job for job in jobs if not (job.folder / RESULT).is_file()]
    if done := len(jobs) - len(todo):
        logging.info("%d of %d runs are finished already", done, len(jobs))
    if not todo:
        return {}
    problems, start, count = {}, time.perf_counter(), 0
    context, size = multiprocessing.get_context("spawn"), RUNS_PER_PROCESS * processes
    with _environment(max(1, (os.cpu_count() or 1) // processes)):
        for part in (todo[i : i + size] for i in range(0, len(todo), size)):
            with _ended(ProcessPoolExecutor(processes, mp_context=context)) as pool:
                for future in as_completed([pool.submit(_work, job) for job in part]):
                    job, problem, seconds = future.result()
                    if problem:
                        problems[job] = problem
                    count += 1
                    left = (time.perf_counter() - start) / count * (len(todo) - count)
                    logging.info(
                        "%d of %d: %s %s (%.0f s); about %.0f min left",
                        count, len(todo), job.folder.name, problem or "done", seconds, left / 60,
                    )  # fmt: skip
    return problems


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Sets what the processes of a pool inherit: their share of the cores, and no progress bars."""
    before = dict(os.environ)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(threads))
    os.environ.setdefault("TQDM_DISABLE", "1")
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
