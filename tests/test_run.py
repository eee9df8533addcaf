"""Runs from end to end through the command line's own functions."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_mwnet
from tf_mwnet import Experiment, UserError, data
from tf_mwnet.main import main

SHORT = ["--epochs=3", "--steps_per_epoch=4", "--lr_drops=2"]
ROOT = pathlib.Path(__file__).resolve().parents[1]


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def final_variables(run_dir, method="mwnet"):
    """Every array of the newest checkpoint."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(run_dir / method / "checkpoints"))
    names = [n for n in reader.get_variable_to_shape_map() if n.endswith("VARIABLE_VALUE")]
    return {n: reader.get_tensor(n) for n in names}


def assert_same(first, second):
    assert set(first) == set(second)
    assert len(first) > 20
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def command(*arguments, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-m", "tf_mwnet.main", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs,
    )  # fmt: skip


# -------------------------------------------------------------------- what a run leaves


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main([*SHORT, "--compare=erm", f"--run_dir={folder}"]) == 0
    return folder


def test_run_folder(finished):
    for name in (
        "config.json", "result.json", "split.npz", "transition_matrix.csv", "realised_matrix.csv",
        "plots/accuracy.png", "plots/noise_matrix.png", "plots/example_weights_mwnet.png",
        "plots/weight_function_mwnet.png", "mwnet/metrics.csv", "erm/metrics.csv",
        "mwnet/saved_models/weight_net/1/saved_model.pb",
        "mwnet/saved_models/classifier/1/saved_model.pb",
        "erm/saved_models/classifier/1/saved_model.pb",
    ):  # fmt: skip
        assert (finished / name).stat().st_size > 0, name
    config = json.loads((finished / "config.json").read_text())
    assert (config["network"], config["augment"], config["dataset"]) == ("small_cnn", "none", "digits")
    matrix = np.loadtxt(finished / "transition_matrix.csv", delimiter=",")
    np.testing.assert_allclose(np.diag(matrix), 0.6)


def test_metrics(finished):
    found = rows(finished / "mwnet" / "metrics.csv")
    assert [r["epoch"] for r in found] == ["1", "2", "3"]
    columns = {"loss", "weighted_loss", "meta_loss", "train_accuracy", "test_accuracy", "test_loss",
               "learning_rate", "auc_weight", "auc_loss"}  # fmt: skip
    assert columns <= set(found[0])
    np.testing.assert_allclose([float(r["learning_rate"]) for r in found], [0.1, 0.1, 0.01], rtol=1e-6)
    assert "meta_loss" not in rows(finished / "erm" / "metrics.csv")[0]


def test_both_methods_have_the_same_data(finished):
    with np.load(finished / "split.npz") as split:
        ids = {k: set(split[f"{k}_ids"]) for k in ("train", "meta", "test")}
        wrong = split["train_y"] != split["train_true_y"]
    assert len(set.union(*ids.values())) == sum(len(i) for i in ids.values())
    result = json.loads((finished / "result.json").read_text())
    assert result["noise_rate"] == pytest.approx(wrong.mean())
    assert 0.35 < wrong.mean() < 0.45


def test_example_records(finished):
    files = sorted((finished / "mwnet" / "examples").glob("*.npz"))
    assert [f.name for f in files] == [f"epoch_{i:04d}.npz" for i in (1, 2, 3)]
    with np.load(files[0]) as first, np.load(files[-1]) as last:
        # Four batches of 100 have been seen in the first epoch, 1,200 of 1,252 in all three.
        assert np.isfinite(first["loss"]).sum() == 400
        assert np.isfinite(last["loss"]).sum() == 1200
        seen = np.isfinite(last["loss"])
        near = np.exp(-last["loss"][seen].astype(float))
        np.testing.assert_allclose(last["probability"][seen], near, atol=5e-3)
        assert last["function_weight"].shape == (121,)


def test_model_card(finished):
    path = finished / "mwnet" / "saved_models" / "weight_net" / "1"
    card = json.loads((path / "model_card.json").read_text())
    assert card["data_set"] == "digits"
    assert card["bias"]["noise"] == "flip2"
    assert card["normalised"] is True
    assert card["schedule"]["batch_size"] == 100
    low, high = card["loss_range_seen"]["min"], card["loss_range_seen"]["max"]
    assert 0 <= low < high
    assert card["versions"]["tensorflow"] == tf.__version__
    last = float(rows(finished / "mwnet" / "metrics.csv")[-1]["test_accuracy"])
    assert card["test_accuracy"]["last"] == pytest.approx(last)


def test_exported_classifier_has_the_reported_accuracy(finished):
    path = finished / "mwnet" / "saved_models" / "classifier" / "1"
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    digits = data.load("digits")
    with np.load(finished / "split.npz") as split:
        row = {i: k for k, i in enumerate(digits.train.ids)}
        chosen = digits.train.take(np.array([row[i] for i in split["test_ids"]]))
    found = serve(image=tf.constant(chosen.x))["probabilities"].numpy().argmax(axis=1)
    result = json.loads((finished / "result.json").read_text())
    assert (found == chosen.y).mean() == pytest.approx(result["methods"]["mwnet"]["last"], abs=1e-6)


def test_tensorboard(finished):
    tags = {}
    for name in ("mwnet", "erm"):
        (path,) = (finished / "tensorboard" / name).glob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                tags.setdefault((name, value.tag), []).append(event.step)
    for tag in ("loss/train", "loss/train_weighted", "loss/meta", "accuracy/test", "learning_rate",
                "example_weights/clean", "example_weights/noisy", "weight_function"):  # fmt: skip
        assert tags["mwnet", tag] == [1, 2, 3]
    assert ("erm", "loss/meta") not in tags
    assert tags["erm", "accuracy/test"] == [1, 2, 3]


def test_transfer_of_the_weight_net(finished, tmp_path, capsys):
    net = finished / "mwnet" / "saved_models" / "weight_net"
    arguments = [f"--weight_net={net}", "--noise=uniform", "--nonormalise"]
    code = main([*SHORT, *arguments, f"--run_dir={tmp_path / 'run'}"])
    assert code == 0
    assert "mwnet" in capsys.readouterr().out
    with np.load(tmp_path / "run" / "split.npz") as split:
        assert "meta_ids" not in split
    exported = tmp_path / "run" / "mwnet" / "saved_models"
    assert [p.name for p in exported.iterdir()] == ["classifier"]
    card = json.loads((exported / "classifier" / "1" / "model_card.json").read_text())
    assert card["normalised"] is True  # as the function was learned, whatever the flag says
    assert card["transferred_from"] == str(net)
    found = rows(tmp_path / "run" / "mwnet" / "metrics.csv")
    assert "meta_loss" not in found[0]
    assert float(found[-1]["loss"]) < float(found[0]["loss"])


@pytest.mark.parametrize("method", ["l2rw", "mnw", "rmnw", "gdw"])
def test_other_methods(tmp_path, method):
    folder = tmp_path / "run"
    assert main([*SHORT, f"--method={method}", "--meta_loss=gce", f"--run_dir={folder}"]) == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["meta_labels"] == ("noisy" if method in ("mnw", "rmnw") else "clean")
    found = rows(folder / method / "metrics.csv")
    assert float(found[-1]["loss"]) < float(found[0]["loss"])
    assert np.isfinite(float(found[-1]["auc_weight"]))
    exported = {p.name for p in (folder / method / "saved_models").iterdir()}
    assert exported == ({"classifier"} if method == "l2rw" else {"classifier", "weight_net"})


@pytest.mark.parametrize(
    ("arrays", "noise", "expected"),
    [
        ({}, "auto", ("rmnw", "noisy", "none")),
        ({}, "flip", ("mwnet", "clean", "flip")),
        ({"true_y_train": np.arange(90) % 3}, "auto", ("mwnet", "clean", "none")),
        (
            {"x_meta": np.eye(9).reshape(9, 3, 3), "y_meta": np.arange(9) % 3},
            "auto",
            ("mwnet", "clean", "none"),
        ),
    ],
)
def test_without_clean_data_the_method_is_one_that_stands_noise(
    tmp_path, arrays, noise, expected, caplog
):
    rng = np.random.default_rng(0)
    source = data.from_arrays(rng.random((90, 3, 3)), np.arange(90) % 3, name="own", **arrays)
    config = Experiment(noise=noise, meta_size=9, epochs=1, network="mlp", run_dir=str(tmp_path / "run"))
    found = tf_mwnet.run(config, source).config
    assert (found.method, found.meta_labels, found.noise) == expected
    assert ("no label is known to be right" in caplog.text) == (expected[0] == "rmnw")


def test_report(tmp_path, capsys):
    assert main([*SHORT, "--method=erm", "--noise=none", f"--run_dir={tmp_path / 'a'}"]) == 0
    out = capsys.readouterr().out
    assert "mean of last 5" in out
    assert "realised noise rate" not in out
    assert str(tmp_path / "a" / "plots") in out


def test_python_use_with_own_data_and_network(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)

    def classifier(spec):
        return keras.Sequential([keras.Input(spec.shape), keras.layers.Dense(spec.num_classes)])

    config = Experiment(
        noise="flip",
        noise_rate=0.3,
        meta_size=20,
        epochs=3,
        batch_size=20,
        run_dir=str(tmp_path / "run"),
    )
    result = tf_mwnet.run(config, data.from_arrays(x, y, name="plane"), classifier)
    assert result.methods["mwnet"]["best"] > 0.6
    assert 0.2 < result.noise_rate < 0.4
    assert result.classifiers["mwnet"].predict(x, verbose=0).shape == (200, 2)


# -------------------------------------------------------------------- resuming


ARGUMENTS = ["--epochs=6", "--steps_per_epoch=5", "--lr_drops=3", "--batch_size=50"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*ARGUMENTS, f"--run_dir={folder}"]) == 0
    return folder


def test_killed_and_resumed_run_is_the_same_to_the_last_bit(undisturbed, tmp_path):
    folder = tmp_path / "killed"
    process = command(*ARGUMENTS, f"--run_dir={folder}")
    wait_for(folder / "mwnet" / "metrics.csv", process)
    time.sleep(np.random.default_rng().uniform(0, 0.5))  # a random moment
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "result.json").exists()
    assert main([*ARGUMENTS, f"--run_dir={folder}", "--resume"]) == 0
    assert_same(final_variables(folder), final_variables(undisturbed))
    assert rows(folder / "mwnet" / "metrics.csv") == rows(undisturbed / "mwnet" / "metrics.csv")


def wait_for(path, process):
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
    from tf_mwnet import callbacks

    folder = tmp_path / "cut"

    class Stop(callbacks.StopOnSignal):
        def on_epoch_end(self, epoch, logs=None):
            if epoch + 1 == epochs:
                raise callbacks.Interrupted(signal.SIGTERM, "cut")

    before, callbacks.StopOnSignal = callbacks.StopOnSignal, Stop
    try:
        assert main([*ARGUMENTS, f"--run_dir={folder}"]) == 128 + signal.SIGTERM
    finally:
        callbacks.StopOnSignal = before
    return folder


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


def test_no_intact_checkpoint_starts_anew(undisturbed, tmp_path, capfd):
    folder = cut_short(tmp_path, 2)
    for path in (folder / "mwnet" / "checkpoints").glob("*.data*"):
        path.write_bytes(b"")
    assert main([*ARGUMENTS, f"--run_dir={folder}", "--resume"]) == 0
    assert "no intact checkpoint" in capfd.readouterr().err
    assert_same(final_variables(folder), final_variables(undisturbed))


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
    assert "split.npz' can not be read" in capfd.readouterr().err


def test_a_folder_that_can_not_be_written(capfd):
    assert main([*SHORT, "--run_dir=/proc/none/run"]) == 2
    assert "/proc/none" in capfd.readouterr().err.splitlines()[-1]


def test_resuming_a_finished_run_changes_nothing(undisturbed):
    before = final_variables(undisturbed)
    assert main([*ARGUMENTS, f"--run_dir={undisturbed}", "--resume"]) == 0
    assert_same(final_variables(undisturbed), before)


# -------------------------------------------------------------------- bad input


def snapshot(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=nothing"], "unknown data set 'nothing'"),
        (["--method=magic"], "unknown method 'magic'; allowed: mwnet, l2rw, mnw, rmnw, gdw, erm, auto"),
        (
            ["--meta_loss=mse"],
            "allowed: auto, cross_entropy, mae, gce, sce, nce",
        ),
        (["--compare=mwnet"], "compare is 'mwnet'"),
        (["--network=resnet33"], "did you mean 'resnet32'"),
        (["--noise_rate=1.5"], "noise_rate is 1.5; allowed: 0 to 1"),
        (["--noise_rate=nan"], "noise_rate is nan"),
        (["--imbalance_factor=0.5"], "imbalance_factor is 0.5; allowed: at least 1"),
        (["--meta_size=5000"], "allowed: at most 1300"),
        (["--meta_size=0"], "method 'mwnet' needs a meta set and meta_size is 0"),
        (["--epochs=0"], "epochs is 0; allowed: at least 1"),
        (["--epochs=many"], "many"),
        (["--lr=0"], "lr is 0; allowed: above 0"),
        (["--lr_drops=a,b"], "lr_drops is 'a,b'; allowed: integers"),
        (["--schedule=linear"], "unknown schedule 'linear'; allowed: step, cosine"),
        (["--unknown=1"], "unknown"),
        (["stray"], "'stray'"),
        (["--flagfile=none.cfg"], "flagfile 'none.cfg' is not there"),
        (["--weight_net=none"], "weight net 'none' is not there"),
        (["--resume"], "resume is set without run_dir"),
        (["--resume", "--run_dir=nowhere"], "holds no run to resume"),
        (["--resume", "--overwrite", "--run_dir=x"], "one of them"),
        (["--noise=hierarchical"], "needs coarse classes"),
        (["--noise=none.csv"], "'none.csv' is not there"),
        (["--dataset=folder", "--data_dir=none"], "folder 'none/train' is not there"),
        (["--network=resnet50"], "resnet50 got images"),
        (["--hidden=0"], "hidden sizes"),
    ],
)
def test_bad_flags(arguments, message, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    (line,) = [text for text in err.splitlines() if not text.startswith("tf_mwnet: digits")]
    assert message in line
    assert out == ""
    assert not list(tmp_path.iterdir())  # nothing was written


def test_run_folders_are_safe(finished, tmp_path, capfd):
    before = snapshot(finished)
    assert main([*SHORT, "--compare=erm", f"--run_dir={finished}"]) == 2
    assert "holds a finished run; allowed: a new folder, or --overwrite" in capfd.readouterr().err
    assert main([*SHORT, "--compare=erm", f"--run_dir={finished}", "--resume", "--seed=5"]) == 2
    assert "seed: 0 -> 5" in capfd.readouterr().err
    assert main([f"--run_dir={finished}", "--overwrite", "--meta_size=5000"]) == 2
    assert main([f"--run_dir={finished}", "--overwrite", "--network=lenet"]) == 2
    capfd.readouterr()
    assert snapshot(finished) == before
    (tmp_path / "notes.txt").write_text("mine")
    assert main([*SHORT, f"--run_dir={tmp_path}", "--overwrite"]) == 2
    assert "holds files that are no run" in capfd.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert main([*SHORT, f"--run_dir={tmp_path / 'notes.txt'}"]) == 2
    assert "is a file" in capfd.readouterr().err


def test_overwrite_replaces_a_run(tmp_path):
    folder = tmp_path / "run"
    assert main([*SHORT, "--method=erm", f"--run_dir={folder}"]) == 0
    assert main([*SHORT, f"--run_dir={folder}", "--overwrite"]) == 0
    assert not (folder / "erm").exists()


def test_damaged_configuration(tmp_path, capfd):
    (tmp_path / "config.json").write_text("{")
    assert main([*SHORT, f"--run_dir={tmp_path}", "--resume"]) == 2
    assert "can not be read" in capfd.readouterr().err


def test_nan_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, capfd):
    folder = tmp_path / "run"
    arguments = ["--epochs=5", "--lr=1e18", "--network=mlp", "--steps_per_epoch=1", "--method=erm"]
    assert main([*arguments, f"--run_dir={folder}"]) == 2
    err = capfd.readouterr().err.splitlines()[-1]
    step = int(err.split("at step ")[1].split()[0])
    assert 2 <= step <= 5
    kept = final_variables(folder, "erm")
    epoch = int(next(v for n, v in kept.items() if n.startswith("epoch")))
    assert epoch == step - 1
    assert not (folder / "result.json").exists()


def test_unusable_labels_and_images_from_files(tmp_path, capfd):
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 6, 6, 1)), np.arange(60) % 3
    bad = {
        "float labels": ((x, y + 0.5), "no integer"),
        "negative": ((x, y - 1), "out of range"),
        "nan": ((np.where(np.arange(60)[:, None, None, None] == 3, np.nan, x), y), "image 3 has NaN"),
        "constant": ((x * 0, y), "all pixels are 0"),
        "empty class": ((x, y * 2), "no example of class 1"),
    }
    for name, ((images, labels), message) in bad.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, x_train=images, y_train=labels)
        assert main([f"--dataset={path}", f"--run_dir={tmp_path / 'run'}"]) == 2
        assert message in capfd.readouterr().err
        assert not (tmp_path / "run").exists()


def test_the_command_prints_one_line_for_bad_input():
    process = command("--method=magic", env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
    out, err = process.communicate()
    assert process.returncode == 2
    assert out == ""
    ours = [line for line in err.splitlines() if "tf_mwnet" in line]
    assert ours == ["tf_mwnet: unknown method 'magic'; allowed: mwnet, l2rw, mnw, rmnw, gdw, erm, auto"]
    assert "Traceback" not in err


def test_help_names_every_flag(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    names = """dataset data_dir label_key clean_label_key classes noise noise_rate imbalance_factor
        meta_size meta_labels network method compare epochs steps_per_epoch batch_size meta_batch_size
        lr lr_drops data_seed seed run_dir overwrite resume weight_net"""
    for name in names.split():
        assert f"  --{name}=" in out
    assert str(ROOT) not in out


def test_schedules():
    from tf_mwnet.experiment import make_optimizers

    def rates(steps, **kwargs):
        config = Experiment(steps_per_epoch=10, epochs=4, lr=1.0, **kwargs)
        optimizer, _ = make_optimizers(config)
        optimizer.build([])
        found = []
        for step in steps:
            optimizer.iterations.assign(step)
            found.append(float(optimizer.learning_rate))
        return found

    step = rates([0, 9, 10, 29, 30, 39], lr_drops=(3, 1))
    np.testing.assert_allclose(step, [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)
    cosine = rates([0, 10, 20, 30, 40], schedule="cosine")
    np.testing.assert_allclose(cosine, [(1 + np.cos(np.pi * k / 4)) / 2 for k in range(5)], atol=1e-6)
    np.testing.assert_allclose(rates([0, 39], lr_drops=(9,)), [1, 1])


@pytest.mark.parametrize("option", ["--precision=mixed_bfloat16", "--jit_compile"])
def test_options_reach_the_model(tmp_path, option):
    arguments = [option, "--nonormalise", "--hidden=5,5", "--schedule=cosine"]
    arguments += ["--meta_optimizer=sgd", "--augment=crop", "--meta_labels=noisy"]
    assert main([*SHORT, *arguments, f"--run_dir={tmp_path / 'run'}"]) == 0
    assert keras.config.dtype_policy().name == "float32"
    card = tmp_path / "run" / "mwnet" / "saved_models" / "weight_net" / "1" / "model_card.json"
    found = json.loads(card.read_text())
    assert found["hidden"] == [5, 5]
    assert found["normalised"] is False
    assert found["bias"]["meta_labels"] == "noisy"
    shapes = [v.shape for n, v in final_variables(tmp_path / "run").items()]
    assert (5, 5) in shapes


def test_bad_experiments_in_python():
    with pytest.raises(UserError, match="batch_size is 0"):
        Experiment(batch_size=0)
    with pytest.raises(ValueError, match="precision"):
        Experiment(precision="float8")
