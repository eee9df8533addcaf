"""Ray: the runs of a sweep as tasks, and the workers of a run, also after the loss of one."""

import csv
import importlib.util
import json
import os
import pathlib
import shlex
import signal
import time
import types

import pytest
from runs import command, rows, start_workers

from tf_mwnet import Experiment, UserError
from tf_mwnet.cli import on_ray
from tf_mwnet.main import main
from tf_mwnet.sweep import __main__ as sweep
from tf_mwnet.sweep import ray_tasks
from tf_mwnet.sweep.jobs import Job

pytestmark = pytest.mark.xdist_group("ray")  # one cluster at a time
HERE = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not here")
SMALL = ["--network=mlp", "--batch_size=50", "--epochs=8", "--steps_per_epoch=5", "--lr_drops=3"]
WORKERS = [*SMALL, "--strategy=multiworker", "--launcher=ray"]


@pytest.fixture(autouse=True)
def usual_priority(monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # not behind the suite's other processes


def processes(title):
    """The numbers of Ray's processes that now do a task or are an actor of this name."""
    numbers = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:  # it has ended
            continue
        if text.startswith(f"ray::{title}".encode()):
            numbers.append(int(path.parent.name))
    return numbers


def kill_one(title, path):
    """Kills a process once a file is there."""
    end = time.monotonic() + 200
    while not (path.exists() and processes(title)):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(processes(title)[0], signal.SIGKILL)


@HERE
@pytest.mark.slow
def test_a_sweep_on_ray_and_a_lost_process(tmp_path, monkeypatch):
    """The same runs, to the last bit, as in processes of this machine; one is killed and goes on."""
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    line = ["--methods=erm,mwnet", "--seeds=0", f"--flags={shlex.join(SMALL)}", "--jobs=2"]
    assert sweep.main([*line, f"--out={tmp_path / 'here'}", f"--csv={tmp_path / 'here.csv'}"]) == 0
    out = tmp_path / "ray"
    flags = [*line, "--engine=ray", f"--out={out}", f"--csv={tmp_path / 'ray.csv'}"]
    started = command(*flags, module="tf_mwnet.sweep")
    kill_one("_in_folder", out / "default-mwnet-0" / "mwnet" / "checkpoints" / "checkpoint")
    printed, notes = started.communicate(timeout=300)
    assert started.returncode == 0, notes
    assert "mwnet" in printed
    assert "2 of 2: " in notes
    one, two = (list(csv.DictReader((tmp_path / f"{n}.csv").open())) for n in ("here", "ray"))
    assert one == two
    for method in ("erm", "mwnet"):
        one, two = (p / f"default-{method}-0" / method / "metrics.csv" for p in (tmp_path / "here", out))
        assert one.read_bytes() == two.read_bytes()


@HERE
@pytest.mark.slow
def test_workers_that_ray_starts_and_one_that_is_lost(tmp_path):
    folder = tmp_path / "ray"
    started = command(*WORKERS, f"--run_dir={folder}")
    kill_one("RayTrainWorker", folder / "mwnet" / "checkpoints" / "checkpoint")
    printed, notes = started.communicate(timeout=400)
    assert started.returncode == 0, notes
    assert "continuing after epoch" in notes
    assert printed.count("realised noise rate") == 1  # the chief's report
    own = tmp_path / "own"
    line = ["-m", "tf_mwnet.main", "--strategy=multiworker", *SMALL, f"--run_dir={own}"]
    for worker in start_workers(line, line):
        assert worker.communicate(timeout=300)
        assert worker.returncode == 0
    one, two = (rows(f / "mwnet" / "metrics.csv") for f in (own, folder))
    assert len(one) == len(two) == 8
    for a, b in zip(one, two, strict=True):
        for column in a:
            assert float(a[column]) == pytest.approx(float(b[column]), rel=1e-3, nan_ok=True), column
    assert json.loads((folder / "result.json").read_text())["replicas"] == 2
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@HERE
@pytest.mark.slow
def test_a_mistake_is_not_tried_again(tmp_path, capsys):
    """What only the workers find out, in one line, with the exit code of a mistake."""
    line = [*WORKERS, "--meta_batch_size=1", f"--run_dir={tmp_path / 'run'}"]
    assert main(line) == 2
    assert "meta_batch_size is 1 with 2 replicas" in capsys.readouterr().err.splitlines()[-1]
    line = ["--engine=ray", "--run_cpus=1000", "--methods=erm", "--seeds=0", f"--out={tmp_path / 'out'}"]
    assert sweep.main([*line, f"--flags={shlex.join(SMALL)}"]) == 2
    assert "run_cpus is 1000; allowed: at most " in capsys.readouterr().err


@HERE
def test_runs_that_ray_gives_up(monkeypatch, tmp_path):
    """Each has failed, for its own reason, and the others go on."""
    from ray import exceptions

    ends = {
        "lost": exceptions.WorkerCrashedError(),
        "memory": exceptions.OutOfMemoryError("the node ran out of memory\nand more"),
        "node": exceptions.NodeDiedError("the node is gone"),
        "fine": None,
    }

    class Ray:
        """Does a task when its result is asked for."""

        def __init__(self):
            self.exceptions, self.ended = exceptions, False

        def remote(self, **resources):
            return lambda function: types.SimpleNamespace(remote=lambda folder, job: job)

        def wait(self, running, num_returns):
            return running[:num_returns], running[num_returns:]

        def get(self, job):
            if (error := ends[job.label]) is not None:
                raise error
            return job, "", 1.0

        def shutdown(self):
            self.ended = True

    ray = Ray()
    monkeypatch.setattr(ray_tasks, "started", lambda environment: ray)
    monkeypatch.setattr(ray_tasks, "check_room", lambda *given: None)
    todo = [Job(tmp_path / name, "a", "erm", name, ()) for name in ends]
    found = {job.label: problem for job, problem, _ in ray_tasks.Tasks(2)(todo)}
    assert found == {
        "lost": "failed: its process was lost 4 times",
        "memory": "failed: OutOfMemoryError: the node ran out of memory and more",
        "node": "failed: NodeDiedError: the node is gone",
        "fine": "",
    }
    assert ray.ended


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--launcher=dask"], "unknown launcher 'dask'; allowed: none, ray"),
        (["--launcher=ray"], "launcher is 'ray'; allowed: with --strategy=multiworker and a --run_dir"),
        (["--launcher=ray", "--workers=0"], "workers is 0; allowed: at least 1"),
        (["--workers=3"], "workers is 3; allowed: with --launcher=ray"),
        ([*WORKERS, "--run_dir=r", "--overwrite"], "overwrite is set with launcher 'ray'"),
    ],
)
def test_bad_launchers(flags, message, capsys):
    assert main(flags) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--engine=dask"], "unknown engine 'dask'; allowed: processes, ray"),
        (["--run_gpus=1"], "run_gpus is set with --engine=processes; allowed: with ray"),
        (["--jobs=0"], "jobs is 0; allowed: at least 1"),
        (["--engine=ray", "--jobs=-1"], "jobs is -1; allowed: at least 0"),
    ],
)
def test_bad_engines(flags, message, tmp_path, capsys):
    assert sweep.main(["--methods=erm", f"--out={tmp_path}", *flags]) == 2
    assert message in capsys.readouterr().err


def test_without_ray(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    config = Experiment(method="erm", strategy="multiworker", run_dir=str(tmp_path / "run"))
    with pytest.raises(UserError, match="Ray is not installed; allowed: pip install"):
        on_ray.launch(config, on_ray.Workers(), lambda config: "")
    assert list(tmp_path.iterdir()) == []
