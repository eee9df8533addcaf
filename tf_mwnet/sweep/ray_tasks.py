"""Does the runs of a sweep as tasks of Ray, on one machine or a cluster."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from tf_mwnet.cli.on_ray import RETRIES, check_room, started
from tf_mwnet.sweep.jobs import RUNS_PER_PROCESS, Job, Outcome, environment_of, work


@dataclasses.dataclass(frozen=True)
class Tasks:
    """Does runs as tasks of Ray: of the cluster at ``RAY_ADDRESS``, else of this machine.

    A run whose process is lost is started again, up to `RETRIES` times, and goes on after its last
    whole epoch; one that Ray gives up, as for want of memory, has failed, and the others go on. All
    machines must see the folder of the runs, and have this package.

    Attributes:
        count: runs at a time; 0 for as many as there is room for.
        cpus: cores of a run, which has as many threads.
        gpus: GPUs of a run; less than 1 to share one.
    """

    count: int = 0
    cpus: int = 1
    gpus: float = 0.0

    def __call__(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        ray = started(environment_of(self.cpus))
        here = pathlib.Path.cwd()
        resources = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_calls": RUNS_PER_PROCESS}
        task = ray.remote(max_retries=RETRIES, **resources)(_in_folder)
        try:
            check_room(ray, "run_cpus", "CPU", self.cpus)
            check_room(ray, "run_gpus", "GPU", self.gpus)
            waiting, running = list(jobs), dict[Any, Job]()
            while waiting or running:
                while waiting and (not self.count or len(running) < self.count):
                    job = waiting.pop(0)
                    running[task.remote(here, job)] = job
                (ended,), _ = ray.wait(list(running), num_returns=1)
                job = running.pop(ended)
                try:
                    yield ray.get(ended)
                except ray.exceptions.RayError as error:  # the others go on
                    yield job, f"failed: {_reason(ray, error)}", 0.0
        finally:
            ray.shutdown()  # ends what is running


def _reason(ray: Any, error: Exception) -> str:
    if isinstance(error, ray.exceptions.WorkerCrashedError):
        return f"its process was lost {RETRIES + 1} times"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _in_folder(folder: pathlib.Path, job: Job) -> Outcome:
    """Does a run in the folder in which the sweep was started; names of files are relative to it."""
    os.chdir(folder)
    return work(job)
