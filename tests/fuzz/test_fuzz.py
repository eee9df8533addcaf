"""Many wrong inputs, one process: each ends with one line and exit code 2, and nothing is written."""

from __future__ import annotations

import contextlib
import io
import itertools
import pathlib
import shutil

import inputs
import numpy as np
import pytest

import tf_mwnet.__main__ as command

pytestmark = pytest.mark.xdist_group("fuzz")


def call(*line: str) -> tuple[int, str]:
    """Runs a command in this process; returns its exit code and what it wrote to stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command.main(list(line))
    return code, err.getvalue()


def refusal(*line: str) -> str:
    """Returns what is wrong with how a command refuses a line, or ""."""
    try:
        code, text = call(*line)
    except BaseException as error:
        return f"{line}: {type(error).__name__} {error}"
    lines = text.strip().splitlines()
    if code != 2 or "Traceback" in text or not lines or not lines[-1].startswith("tf_mwnet: "):
        return f"{line}: exit code {code}, {lines[-1:]}"
    return ""


def no_traceback(*line: str) -> str:
    """Returns what is wrong with how a command ends that may succeed or refuse, or ""."""
    try:
        code, text = call(*line)
    except BaseException as error:
        return f"{line}: {type(error).__name__} {error}"
    return (
        "" if code in (0, 2) and "Traceback" not in text else f"{line}: exit code {code}, {text[-300:]}"
    )


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "cwd"


def test_values_of_all_flags(in_an_empty_folder):
    tried = list(inputs.of_fields())
    assert len(tried) > 500
    wrong = [refusal("train", f"--{name}={value}") for name, value in tried]
    assert not list(filter(None, wrong)), "\n".join(filter(None, wrong))
    assert not list(in_an_empty_folder.iterdir())


def test_command_lines(in_an_empty_folder):
    wrong = [refusal(*line) for line in inputs.LINES]
    assert not list(filter(None, wrong)), "\n".join(filter(None, wrong))
    assert not [p for p in in_an_empty_folder.rglob("*") if p.is_file()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
    """A finished run of two methods on a data set of three classes."""
    folder = tmp_path_factory.mktemp("fuzz")
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = (rng.random((90, 4)) + y[:, None]).astype(np.float32)
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])
    line = (f"--dataset={folder / 'data.npz'}", "--epochs=2", "--batch_size=30", "--network=linear")
    line = (*line, "--meta_size=6", "--method=rmnw", "--compare=erm")
    code, text = call("train", *line, f"--run_dir={folder / 'run'}")
    assert code == 0, text
    return folder / "run"


def files_of(run: pathlib.Path) -> list[str]:
    names = [str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()]
    kept = [n for n in names if n.endswith((".json", ".csv", ".npz", ".index", ".pb", "checkpoint"))]
    return sorted(n for n in kept if "plots" not in n and "tensorboard" not in n)


READERS = (
    ("compare", "--runs={run}"),
    ("audit", "--run_dir={run}"),
    ("report", "--runs={run}", "--noaudit", "--out={out}"),
    ("train", "--run_dir={run}", "--resume"),
)


def damaged(finished, tmp_path, every: int) -> list[str]:
    """Tries every n-th of all files, damages and readers; returns what went wrong."""
    names, wrong, copy = files_of(finished), [], tmp_path / "run"
    assert len(names) > 15
    cases = list(itertools.product(names, inputs.DAMAGE.items(), READERS))
    for number, (name, (kind, damage), reader) in list(enumerate(cases))[::every]:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(finished, copy)
        (copy / name).write_bytes(damage((finished / name).read_bytes()))
        line = [part.format(run=copy, out=tmp_path / f"out{number}") for part in reader]
        if problem := no_traceback(*line):
            wrong.append(f"{name} {kind}: {problem}")
    return wrong


@pytest.mark.slow
def test_damaged_runs(finished, tmp_path):
    wrong = damaged(finished, tmp_path, 7)
    assert not wrong, "\n".join(wrong)
