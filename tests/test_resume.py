"""Runs that are killed, stopped or damaged, and go on."""

import json
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from runs import SHORT, assert_same, command, cut_after, final_variables, rows, wait_for
from small import fit, model_of

from tf_mwnet import Experiment
from tf_mwnet.experiment import callbacks, resolve
from tf_mwnet.files import load_arrays
from tf_mwnet.main import main

pytestmark = pytest.mark.xdist_group("resume")  # one worker: what its fixture makes is shared

ARGUMENTS = ["--epochs=6", "--steps_per_epoch=5", "--lr_drops=3", "--batch_size=50"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*ARGUMENTS, f"--run_dir={folder}"]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_killed_and_resumed_run_is_the_same_to_the_last_bit(undisturbed, tmp_path, delay):
    folder = tmp_path / "killed"
    process = command(*ARGUMENTS, f"--run_dir={folder}")
    wait_for(folder / "mwnet" / "metrics.csv", process)
    time.sleep(delay)  # into an epoch, or into the writing of its files
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "result.json").exists()
    assert main([*ARGUMENTS, f"--run_dir={folder}", "--resume"]) == 0
    assert_same(final_variables(folder), final_variables(undisturbed))
    assert rows(folder / "mwnet" / "metrics.csv") == rows(undisturbed / "mwnet" / "metrics.csv")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_exit(undisturbed, tmp_path, number):
    folder = tmp_path / "run"
    process = command(*ARGUMENTS, f"--run_dir={folder}")
    wait_for(folder / "mwnet" / "checkpoints" / "checkpoint", process)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 128 + number
    assert f"go on with --resume --run_dir={folder}" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert main(["--resume", f"--run_dir={folder}"]) == 0  # as it says
    assert_same(final_variables(folder), final_variables(undisturbed))


def cut_short(tmp_path, epochs):
    """A run folder as a kill after some epochs leaves it."""
    folder = tmp_path / "cut"
    with cut_after(epochs):
        assert main([*ARGUMENTS, f"--run_dir={folder}"]) == 128 + signal.SIGTERM
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_damaged_checkpoint_falls_back_to_the_one_before(undisturbed, tmp_path, damage, capfd):
    folder = cut_short(tmp_path, 3)
    path = folder / "mwnet" / "checkpoints" / "epoch-3.data-00000-of-00001"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        middle = len(content) // 2
        path.write_bytes(
            content[:middle]
            + bytes(255 - b for b in content[middle : middle + 64])
            + content[middle + 64 :]
        )
    else:
        path.unlink()
    assert main([*ARGUMENTS, f"--run_dir={folder}", "--resume"]) == 0
    err = capfd.readouterr().err
    assert "epoch-3 is damaged" in err
    assert "continuing after epoch 2 of 6" in err
    assert_same(final_variables(folder), final_variables(undisturbed))


@pytest.mark.slow
def test_no_intact_checkpoint_starts_anew(undisturbed, tmp_path, capfd):
    folder = cut_short(tmp_path, 2)
    for path in (folder / "mwnet" / "checkpoints").glob("*.data*"):
        path.write_bytes(b"")
    assert main([*ARGUMENTS, f"--run_dir={folder}", "--resume"]) == 0
    assert "no intact checkpoint" in capfd.readouterr().err
    assert_same(final_variables(folder), final_variables(undisturbed))


@pytest.mark.parametrize("recorded", [None, 100])
def test_a_checkpoint_of_other_variables_changes_nothing(tmp_path, recorded):
    """One is missing, or has another shape."""
    saved, other = model_of("erm"), model_of("erm")
    if recorded:
        saved.record_examples(recorded)
    for variable in saved.classifier.variables:
        variable.assign(variable + 1)
    callbacks.Checkpoints(tmp_path, saved).on_epoch_end(0)
    other.record_examples(120)
    before = [v.numpy() for v in other.classifier.variables]
    assert callbacks.Checkpoints(tmp_path, other).restore() == 0
    for old, variable in zip(before, other.classifier.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)
    assert callbacks.Checkpoints(tmp_path, saved).restore() == 1


def test_the_best_epoch_of_an_earlier_attempt_is_not_kept(tmp_path, blobs):
    x, y, *_ = blobs
    path, batches = tmp_path / "best_epoch.npz", tf.data.Dataset.from_tensor_slices((x, y)).batch(60)
    np.savez(path, epoch=7, accuracy=2.0)
    for first, epoch in ((3, 7), (0, 1)):
        best = callbacks.KeepBest(path, batches, y, first)
        fit(model_of("erm"), blobs, epochs=first + 1, initial_epoch=first, callbacks=[best])
        assert load_arrays(path)["epoch"] == epoch


def test_a_run_is_not_resumed_on_other_data(tmp_path, capfd):
    rng = np.random.default_rng(0)
    x, y = rng.random((80, 6, 6, 1)), np.arange(80) % 2
    path, folder = tmp_path / "set.npz", tmp_path / "run"
    np.savez(path, x_train=x, y_train=y)
    arguments = [
        f"--dataset={path}",
        "--noise=none",
        "--meta_size=10",
        "--epochs=1",
        f"--run_dir={folder}",
    ]
    assert main(arguments) == 0
    assert json.loads((folder / "config.json").read_text())["noise"] == "none"  # nobody asked for it
    np.savez(path, x_train=x, y_train=1 - y)
    assert main(["--resume", f"--run_dir={folder}"]) == 2
    assert "the data is not what" in capfd.readouterr().err
    (folder / "split.npz").write_bytes(b"broken")
    assert main(["--resume", f"--run_dir={folder}"]) == 2
    assert "split.npz' cannot be read" in capfd.readouterr().err


def test_a_folder_that_can_not_be_written(capfd):
    assert main([*SHORT, "--run_dir=/proc/none/run"]) == 2
    assert "/proc/none" in capfd.readouterr().err.splitlines()[-1]


def test_resuming_a_finished_run_changes_nothing(undisturbed):
    before = final_variables(undisturbed)
    assert main([*ARGUMENTS, f"--run_dir={undisturbed}", "--resume"]) == 0
    assert_same(final_variables(undisturbed), before)


def test_examples_of_earlier_epochs_are_needed(tmp_path, capfd):
    folder = cut_short(tmp_path, 2)
    path = folder / "mwnet" / "examples" / "epoch_0001.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert main([*ARGUMENTS, f"--run_dir={folder}", "--resume"]) == 2
    assert "epoch_0001.npz' cannot be read" in capfd.readouterr().err.splitlines()[-1]


def test_a_run_with_a_small_meta_set_of_its_own_goes_on(tmp_path, rng, pictures_not_rendered):
    arrays = {
        f"x_{name}": rng.normal(size=(n, 4)) for name, n in (("train", 60), ("test", 20), ("meta", 12))
    }
    labels = {f"y_{name[2:]}": np.arange(len(x)) % 3 for name, x in arrays.items()}
    np.savez(tmp_path / "own.npz", **arrays, **labels)
    folder = tmp_path / "run"
    line = [f"--dataset={tmp_path / 'own.npz'}", "--method=mwnet", "--epochs=2", f"--run_dir={folder}"]
    assert main(line) == 0
    assert json.loads((folder / "config.json").read_text())["meta_batch_size"] == 12
    assert main([f"--run_dir={folder}", "--resume"]) == 0


@pytest.mark.parametrize(
    "fields",
    [{}, {"method": "auto", "noise": "none"}, {"meta_size": 30}, {"method": "rmnw"}, {"speed": "fast"}],
)
def test_what_a_run_has_chosen_it_chooses_again(fields):
    config, source, _ = resolve.load(Experiment(**fields))
    assert resolve.load(config, source)[0] == config
