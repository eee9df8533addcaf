"""Ray: the connection to a cluster, and the workers of a distributed run started by Ray Train."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

from tf_mwnet.cli import console, processes
from tf_mwnet.config import Experiment
from tf_mwnet.errors import UserError, check_range
from tf_mwnet.runs import run_folder, saved_run

RETRIES = 3  # of a run or a task whose process or machine is lost
REPORT, ERROR = "report.txt", "error.txt"


@dataclasses.dataclass(frozen=True)
class Workers:
    """The workers of a distributed run.

    Attributes:
        count: processes; with GPUs there is one replica for each GPU.
        cpus: cores of a worker.
        gpus: GPUs of a worker.
    """

    count: int = 2
    cpus: int = 1
    gpus: int = 0

    def __post_init__(self) -> None:
        check_range("workers", self.count, 1)
        check_range("worker_cpus", self.cpus, 1)
        check_range("worker_gpus", self.gpus, 0)


def started(environment: dict[str, str], show_logs: bool = False) -> Any:
    """Connects to the cluster at ``RAY_ADDRESS``, or starts one on this machine; returns ``ray``.

    Args:
        environment: variables of all processes.
        show_logs: whether to show what the processes write.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed; allowed: pip install 'tf-mwnet[ray]'") from None
    try:
        ray.init(
            runtime_env={"env_vars": environment},
            include_dashboard=show_logs,  # Ray Train asks it for the state of its workers
            log_to_driver=show_logs,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError) as error:
        address = os.environ.get("RAY_ADDRESS", "")
        raise UserError(f"RAY_ADDRESS is '{address}', where no cluster answers: {error}") from error
    return ray


def check_room(ray: Any, name: str, kind: str, wanted: float) -> None:
    """Raises ``UserError`` if no machine of the cluster has as much of "CPU" or "GPU"."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = max((machine.get(kind, 0) for machine in machines), default=0)
    if wanted > most:
        raise UserError(f"{name} is {wanted:g}; allowed: at most {most:g}, those of the largest machine")


def launch(config: Experiment, workers: Workers, train: Callable[[Experiment], str | None]) -> str:
    """Starts the workers of a run with Ray Train, which sets ``TF_CONFIG``; returns their report.

    If a worker is lost, all are started again, up to `RETRIES` times, and the run goes on after its last
    whole epoch. All machines must see the folder of the run, and have this package.

    Args:
        config: with strategy "multiworker" and a ``run_dir``.
        workers: the processes.
        train: trains in each worker; returns the report on the chief, None on the others.

    Raises:
        UserError: the settings do not go together, a worker raised it, Ray is missing, or workers were
            lost too often.
    """
    if config.strategy != "multiworker" or not config.run_dir:
        raise UserError(
            "launcher is 'ray'; allowed: with --strategy=multiworker and a --run_dir that all see"
        )
    if config.overwrite:
        raise UserError("overwrite is set with launcher 'ray'; allowed: a new run_dir")
    folder = run_folder.check(config).absolute()
    ours = folder.with_name(f".{folder.name}.ray")
    ray = started({} if workers.gpus else processes.threads(workers.cpus), show_logs=True)
    try:
        shutil.rmtree(ours, ignore_errors=True)
        ours.mkdir(parents=True)
        check_room(ray, "worker_cpus", "CPU", workers.cpus)
        check_room(ray, "worker_gpus", "GPU", workers.gpus)
        _fit(config, workers, train, ours)
        return (ours / REPORT).read_text("utf-8")
    finally:
        ray.shutdown()
        shutil.rmtree(ours, ignore_errors=True)


def _fit(
    config: Experiment,
    workers: Workers,
    train: Callable[[Experiment], str | None],
    ours: pathlib.Path,
) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.tensorflow import TensorflowTrainer

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    here = str(pathlib.Path.cwd())

    def loop() -> None:
        _work(here, ours, config, train)

    trainer = TensorflowTrainer(
        loop,
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=RunConfig(
            name="train",
            storage_path=str(ours),
            failure_config=FailureConfig(max_failures=RETRIES),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        if (ours / ERROR).is_file():
            raise UserError((ours / ERROR).read_text("utf-8")) from error
        raise UserError(
            f"workers were lost more than {RETRIES} times; allowed: the same command, which goes on"
        ) from error


def _work(
    here: str, ours: pathlib.Path, config: Experiment, train: Callable[[Experiment], str | None]
) -> None:
    """Trains in one worker; leaves the report, or the user's error, in a file."""
    console.start_logging()
    os.chdir(here)
    if (ours / ERROR).is_file():  # started again, which cannot help
        raise RuntimeError((ours / ERROR).read_text("utf-8"))
    # The chief writes the folder when all workers are there: all see the same.
    resume = (pathlib.Path(config.run_dir) / saved_run.CONFIG).is_file()
    try:
        report = train(dataclasses.replace(config, resume=resume, auto_resume=False))
    except UserError as error:
        (ours / ERROR).write_text(str(error), "utf-8")
        raise
    if report is not None:
        (ours / REPORT).write_text(report, "utf-8")
