"""Run folders: other people's files, two processes, signals, and what killed processes leave."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from runs import ROOT, SHORT, command, wait_for

from tf_mwnet import Experiment, UserError, errors
from tf_mwnet.main import main
from tf_mwnet.runs import run_folder

pytestmark = pytest.mark.xdist_group("two_at_once")
PLAIN = [*SHORT, "--method=erm", "--network=mlp"]


def test_other_people_s_files_are_not_replaced(tmp_path, capsys, monkeypatch):
    foreign = tmp_path / "model"
    foreign.mkdir()
    for content, what in (
        ('{"architectures": ["ViT"], "dataset": "imagenet"}', "a config.json of no run"),
        ("[1, 2]", "a config.json of no run"),
        ("{", "a damaged config.json"),
    ):
        (foreign / "config.json").write_text(content)
        (foreign / "weights.bin").write_bytes(b"precious")
        assert main([*PLAIN, f"--run_dir={foreign}", "--overwrite"]) == 2
        assert f"holds {what}; allowed: a new folder" in capsys.readouterr().err
        assert sorted(p.name for p in foreign.iterdir()) == ["config.json", "weights.bin"]
    run = tmp_path / "run"
    assert main([*PLAIN, f"--run_dir={run}"]) == 0
    monkeypatch.chdir(run)
    for where in (".", str(run), "../run"):
        assert main([*PLAIN, f"--run_dir={where}", "--overwrite"]) == 2
        assert "is the working folder; allowed with --overwrite: another" in capsys.readouterr().err
    assert (run / "result.json").is_file()


def fail_in(folder, config, why, content=""):
    with run_folder.claimed(folder, config):
        assert (folder.with_name(".run.before") / "result.json").is_file()
        if content:
            (folder / "config.json").write_text(content)
        raise OSError(why)


def test_a_run_is_kept_until_the_new_one_is_finished(tmp_path, monkeypatch):
    folder, aside = tmp_path / "run", tmp_path / ".run.before"
    assert main([*PLAIN, f"--run_dir={folder}"]) == 0
    old = (folder / "erm" / "metrics.csv").read_bytes()
    config = Experiment(method="erm", run_dir=str(folder), overwrite=True)
    with pytest.raises(OSError, match="nothing"):
        fail_in(folder, config, "nothing has been written")
    assert (folder / "erm" / "metrics.csv").read_bytes() == old
    assert not aside.exists()
    for _ in range(2):  # the whole one stays
        with pytest.raises(OSError, match="cut off"):
            fail_in(folder, config, "cut off", config.to_json())
        assert (aside / "erm" / "metrics.csv").read_bytes() == old
    assert main([*PLAIN, f"--run_dir={folder}", "--overwrite", "--seed=1"]) == 0
    assert not aside.exists()
    assert (folder / "erm" / "metrics.csv").read_bytes() != old


def test_one_process_at_a_time(tmp_path, capsys):
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1], 'w');"
         "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()",
         str(folder / ".lock")] if folder.mkdir() is None else [],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    assert main([*PLAIN, f"--run_dir={folder}"]) == 2
    assert (
        f"run_dir '{folder}' is in use by another process; allowed: another" in capsys.readouterr().err
    )
    assert [p.name for p in folder.iterdir()] == [".lock"]
    holder.communicate("")
    assert main([*PLAIN, f"--run_dir={folder}"]) == 0


@pytest.mark.parametrize("name", [".", "../there/../new", "../new/"])
def test_folders_that_are_spelled_in_other_ways(tmp_path, monkeypatch, name):
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main([*PLAIN, f"--run_dir={name}"]) == 0
    assert (pathlib.Path(name).resolve() / "result.json").is_file()


def test_free_names_are_taken_one_by_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Experiment(method="erm")
    first = run_folder.check(config)
    assert run_folder.check(config) == first
    with run_folder.claimed(first, config) as one, run_folder.claimed(first, config) as two:
        assert (one.name, two.name) == ("digits-erm-1", "digits-erm-2")
        (one / "config.json").write_text("{}")
    assert sorted(os.listdir("runs")) == ["digits-erm-1"]  # the other has written nothing


def test_what_killed_processes_leave(tmp_path):
    folder = tmp_path / "run"
    assert main([*PLAIN, f"--run_dir={folder}"]) == 0
    (folder / "result.json").unlink()
    for name in (".split.npz.ab12_cde", "erm/.metrics.csv.01234567"):
        (folder / name).write_text("half")
    (folder / "erm" / "saved_models" / "classifier" / ".1.abcdefgh").mkdir()
    (folder / ".mine").write_text("no remains")
    assert main([*PLAIN, f"--run_dir={folder}", "--resume"]) == 0
    hidden = sorted(str(p.relative_to(folder)) for p in folder.rglob(".*"))
    assert hidden == [".lock", ".mine"]


# -------------------------------------------------------------------- signals


def test_a_signal_is_noted_and_raised_where_work_can_be_left():
    seen = []

    def work():
        with errors.signals_noted():
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append("after it")
            errors.check_signals()
            seen.append("never")

    with pytest.raises(errors.Interrupted, match="stopped by SIGTERM"):
        work()
    assert seen == ["after it"]
    with pytest.raises(errors.Interrupted), errors.signals_noted():
        os.kill(os.getpid(), signal.SIGINT)  # at the very end of the work
    errors.check_signals()  # nothing is left over
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("where", ["_export", "_write_results"])
def test_a_signal_between_the_stages_of_a_run(tmp_path, monkeypatch, capsys, where):
    """At a method's end, or while the results are written: whole, and the exit code says so."""
    from tf_mwnet.experiment import runner

    original = getattr(runner, where)

    def spy(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(runner, where, spy)
    folder = tmp_path / "run"
    assert main([*PLAIN, f"--run_dir={folder}"]) == 128 + signal.SIGTERM
    assert f"stopped by SIGTERM; whole epochs are saved; go on with --resume --run_dir={folder}" in (
        capsys.readouterr().err
    )
    assert (folder / "result.json").exists() == (where == "_write_results")
    monkeypatch.setattr(runner, where, original)
    assert main(["--resume", f"--run_dir={folder}"]) == 0
    assert "last" in json.loads((folder / "result.json").read_text())["methods"]["erm"]


@pytest.mark.slow
def test_a_second_signal_ends_the_process_at_once(tmp_path):
    folder = tmp_path / "run"
    process = command("--method=erm", "--epochs=200", f"--run_dir={folder}")
    wait_for(folder / "erm" / "metrics.csv", process)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode in (
        -signal.SIGINT,
        -signal.SIGTERM,
        128 + signal.SIGTERM,
        128 + signal.SIGINT,
    )


@pytest.mark.slow
def test_random_signals_are_never_lost(tmp_path):
    """At any moment after the start: an exit code that says so, and a folder that goes on."""
    for number, delay in enumerate([0.0, 0.4, 0.9, 1.7]):
        folder = tmp_path / str(number)
        process = command(*PLAIN, "--epochs=12", f"--run_dir={folder}")
        wait_for(folder / "config.json", process)
        time.sleep(delay)
        kind = (signal.SIGTERM, signal.SIGINT)[number % 2]
        process.send_signal(kind)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 128 + kind, err
        assert "Traceback" not in err
        again = command("--resume", f"--run_dir={folder}")
        assert again.communicate(timeout=240) is not None
        assert again.returncode == 0
    assert pathlib.Path(ROOT).is_dir()


def test_default_handlers_are_back():
    with errors.signals_noted():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(UserError), errors.signals_noted():
        raise UserError("x")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_ignored_stays_ignored():
    """As SIGINT is in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with errors.signals_noted():
            signal.raise_signal(signal.SIGINT)
            errors.check_signals()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
