"""Runs from end to end through the command line's own functions."""

import dataclasses
import json
import os
import random
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from runs import ROOT, SHORT, cut_after, final_variables, rows

import tf_mwnet
from tf_mwnet import Experiment, data, methods
from tf_mwnet.errors import Interrupted, UserError
from tf_mwnet.experiment import build, choosing, resolve, scores
from tf_mwnet.files import load_arrays
from tf_mwnet.main import main
from tf_mwnet.runs.saved_run import saved_experiment


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


def exported_accuracy(folder, method):
    """Test accuracy of the exported classifier on the digits' raw pixels."""
    path = folder / method / "saved_models" / "classifier" / "1"
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    digits = data.load("digits")
    with np.load(folder / "split.npz") as split:
        row = {i: k for k, i in enumerate(digits.train.ids)}
        chosen = digits.train.take(np.array([row[i] for i in split["test_ids"]]))
    found = serve(image=tf.constant(chosen.x))["probabilities"].numpy().argmax(axis=1)
    return (found == chosen.y).mean()


def reported_accuracy(folder, method):
    last = json.loads((folder / "result.json").read_text())["methods"][method]["last"]
    return pytest.approx(last, abs=1e-6)


def test_exported_classifier_has_the_reported_accuracy(finished):
    assert exported_accuracy(finished, "mwnet") == reported_accuracy(finished, "mwnet")


def test_scaling_reaches_all_that_a_run_leaves(tmp_path, capfd):
    """The exported classifier, the audit and a resumed run scale inputs as the training did."""
    folder = tmp_path / "run"
    line = ["--method=erm", "--network=mlp", "--scaling=unit", "--lr=1", "--momentum=0.5", *SHORT]
    assert main([*line, f"--run_dir={folder}", "--steps_per_epoch=40"]) == 0
    assert json.loads((folder / "config.json").read_text())["scaling"] == "unit"
    splits = resolve.load(saved_experiment(folder / "config.json"))[2]  # as audits and pages do
    assert (splits.spec.mean, splits.spec.std) == (0, 255)
    assert exported_accuracy(folder, "erm") == reported_accuracy(folder, "erm")
    assert exported_accuracy(folder, "erm") > 0.3
    capfd.readouterr()
    assert main([f"--run_dir={folder}", "--resume", "--scaling=standardised"]) == 2
    assert "scaling: 'unit' -> 'standardised'" in capfd.readouterr().err
    assert len(tf_mwnet.audit(folder)) > 1000
    assert main([f"--run_dir={folder}", "--resume"]) == 0


def test_tensorboard(finished):
    tags = {}
    for name in ("mwnet", "erm"):
        for path in sorted((finished / "tensorboard" / name).glob("events*")):
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                for value in event.summary.value:
                    tags.setdefault((name, value.tag), []).append(event.step)
    for tag in ("loss/train", "loss/train_weighted", "loss/meta", "accuracy/test", "learning_rate",
                "example_weights/clean", "example_weights/noisy", "weight_function"):  # fmt: skip
        assert tags["mwnet", tag] == [1, 2, 3]
    assert ("erm", "loss/meta") not in tags
    assert tags["erm", "accuracy/test"] == [1, 2, 3]


@pytest.mark.slow
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
    assert card["transferred_from"] == f"{finished.name}/mwnet/saved_models/weight_net"
    found = rows(tmp_path / "run" / "mwnet" / "metrics.csv")
    assert "meta_loss" not in found[0]
    assert float(found[-1]["loss"]) < float(found[0]["loss"])
    # In the middle of an epoch the function is half-way between those of the two epochs' ends.
    home, here = curves(finished), curves(tmp_path / "run")
    before = home[[0, 0, 1]]
    np.testing.assert_allclose(here, (before + home) / 2, atol=1e-6)
    assert main([*SHORT, *arguments, "--noweight_net_replay", f"--run_dir={tmp_path / 'last'}"]) == 0
    np.testing.assert_allclose(curves(tmp_path / "last"), home[[2, 2, 2]], atol=1e-6)


def curves(run):
    """The weight function at the end of each epoch, [E, 121]."""
    files = sorted((run / "mwnet" / "examples").glob("epoch_*.npz"))
    return np.stack([np.load(path)["function_weight"] for path in files])


@pytest.mark.slow
def test_one_group_runs_to_its_end(tmp_path, capfd):
    """As the message of equal class sizes recommends; its net can be used like MW-Net's."""
    folder = tmp_path / "run"
    line = [*SHORT, "--noise=none", f"--class_counts={','.join(['50'] * 10)}", f"--run_dir={folder}"]
    assert main([*line, "--method=cmwnet"]) == 2
    assert "groups is 3, but the 10 classes have 1 distinct size; allowed: 1" in capfd.readouterr().err
    assert main([*line, "--method=cmwnet --groups=1"]) == 0
    assert tf_mwnet.WeightFunction(folder / "cmwnet" / "saved_models" / "weight_net").groups == 1


@pytest.mark.slow
def test_transfer_of_a_net_with_groups(tmp_path, capfd):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*SHORT, "--method=cmwnet", "--imbalance_factor=10", f"--run_dir={first}"]) == 0
    net = first / "cmwnet" / "saved_models" / "weight_net" / "1"
    card = json.loads((net / "model_card.json").read_text())
    assert len(card["group_of_class"]) == 10
    assert set(card["group_of_class"]) == {0, 1, 2}
    function = tf_mwnet.WeightFunction(net)
    assert function.groups == 3
    assert function(tf.constant([0.5, 2.0])).shape == (2, 3)
    assert (first / "plots" / "weight_function_cmwnet.png").stat().st_size > 0
    arguments = [*SHORT, f"--weight_net={net}", "--noise=none"]
    assert main([*arguments, "--imbalance_factor=5", f"--run_dir={second}"]) == 0
    found = rows(second / "mwnet" / "metrics.csv")
    assert float(found[-1]["loss"]) < float(found[0]["loss"])
    with np.load(second / "mwnet" / "examples" / "epoch_0003.npz") as last:
        assert last["function_weight"].shape == (121, 3)
        assert last["function_group"].shape == (10,)
    capfd.readouterr()
    equal = ",".join(["50"] * 10)
    assert main([*arguments, f"--class_counts={equal}", f"--run_dir={tmp_path / 'third'}"]) == 2
    assert "groups is 3, but the 10 classes have 1 distinct size;" in capfd.readouterr().err


def test_early_stopping_and_fine_tuning(tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = [*SHORT, "--method=erm", "--network=mlp", "--early_stopping=120"]
    arguments += ["--then_fine_tune=2", "--fine_tune_unit=epochs", "--batch_size=60"]
    assert main([*arguments, f"--run_dir={folder}"]) == 0
    assert "erm+ES+FT" in capsys.readouterr().out
    with np.load(folder / "split.npz") as split:
        assert len(split["validation_ids"]) == 120
        assert not set(split["validation_ids"]) & set(split["train_ids"])
        wrong = split["validation_y"] != split["validation_true_y"]
        assert 0.25 < wrong.mean() < 0.55  # labels as they are
    found = rows(folder / "erm" / "metrics.csv")
    accuracy = [float(r["validation_accuracy"]) for r in found]
    result = json.loads((folder / "result.json").read_text())["methods"]
    assert list(result) == ["erm", "erm+ES", "erm+ES+FT"]
    best = int(np.argmax(accuracy))
    assert result["erm+ES"]["best_epoch"] == best + 1
    assert result["erm+ES"]["last"] == float(found[best]["test_accuracy"])
    tuned = rows(folder / "erm" / "fine_tuned" / "metrics.csv")
    assert [r["epoch"] for r in tuned] == ["1", "2"]  # not of one step each, see fine_tune_unit
    assert result["erm+ES+FT"]["last"] == float(tuned[1]["test_accuracy"])
    # Resuming the finished run changes nothing.
    assert main(["--resume", f"--run_dir={folder}"]) == 0
    again = json.loads((folder / "result.json").read_text())["methods"]
    for name in result:
        assert again[name]["last"] == result[name]["last"]


def test_mean_weight_of_the_last_epochs(finished):
    folder = finished / "mwnet" / "examples"
    weights = [load_arrays(p)["weight"] for p in sorted(folder.glob("*.npz"))]
    with np.load(finished / "split.npz") as split:
        corrupted = split["train_y"] != split["train_true_y"]
    expected = scores.clean_auc(corrupted, scores.mean_of_known(weights))
    assert float(rows(finished / "mwnet" / "metrics.csv")[-1]["auc_mean_weight"]) == expected


def test_scores():
    mean = scores.mean_of_known([np.array([1.0, np.nan, np.nan]), np.array([3.0, 5.0, np.nan])])
    np.testing.assert_array_equal(mean, [2, 5, np.nan])
    corrupted = np.array([False, True, False, True])
    # Of the four pairs of a clean and a corrupted example, three are in order.
    assert scores.clean_auc(corrupted, np.array([0.9, 0.1, 0.4, 0.5])) == 0.75
    assert np.isnan(scores.clean_auc(corrupted, np.ones(4)))
    assert np.isnan(scores.clean_auc(np.zeros(4, bool), np.arange(4.0)))


# The other ones are slow together.
PLAIN = ("l2rw", "gdw")
OTHERS = [
    pytest.param(name, marks=[] if name in PLAIN else pytest.mark.slow)
    for name in methods.METHODS
    if name not in ("mwnet", "erm")
]
# They stop believing given labels, whose loss then rises.
DOUBTING = ("lccn", "mentornet")
# Their meta set has labels as noisy as the training set's.
NOISY = ("mnw", "rmnw", "cmwnet_sl", "fsr")


@pytest.mark.parametrize("method", OTHERS)
def test_other_methods(tmp_path, method):
    folder = tmp_path / "run"
    arguments = ["--network=mlp", "--imbalance_factor=3", "--meta_loss=gce", "--lr=0.02"]
    assert main([*SHORT, *arguments, f"--method={method}", f"--run_dir={folder}"]) == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["meta_labels"] == ("noisy" if method in NOISY else "clean")
    found = rows(folder / method / "metrics.csv")
    assert all(np.isfinite(float(r["loss"])) for r in found)
    if not methods.METHODS[method].learns:  # in so few steps what is learned still says little
        assert float(found[-1]["test_accuracy"]) > 0.15  # chance is 0.10, with a deviation of 0.014
        if method not in DOUBTING:
            assert float(found[-1]["loss"]) < float(found[0]["loss"])
    weighs = np.isfinite(float(found[-1]["auc_weight"]))
    assert weighs or not methods.METHODS[method].learns
    exported = {p.name for p in (folder / method / "saved_models").iterdir()}
    with_net = issubclass(methods.METHODS[method], methods.MWNet)
    assert exported == ({"classifier", "weight_net"} if with_net else {"classifier"})
    result = json.loads((folder / "result.json").read_text())["methods"][method]
    for name in ("auc_weight", "auc_mean_weight", "auc_loss")[0 if weighs else 2 :]:
        values = [float(r[name]) for r in found]
        if np.isnan(values).all():  # no wrong label in the meta set
            assert method == "meta_only"
            continue
        assert result[name] == values[-1]
        assert result[f"{name}_best"] == np.nanmax(values)
        assert values[result[f"{name}_best_epoch"] - 1] == np.nanmax(values)


@pytest.mark.parametrize(
    ("arrays", "noise", "expected"),
    [
        ({}, "auto", ("elr", "noisy", "none")),
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
    caplog.set_level("INFO", "absl")
    found = tf_mwnet.run(config, source).config
    assert (found.method, found.meta_labels, found.noise) == expected
    assert ("no label is known to be right" in caplog.text) == (expected[0] == "elr")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "elr"),
        ({"imbalance_factor": 20.0}, "logit_adjustment"),
        ({"class_counts": (30, 20, 3)}, "logit_adjustment"),
        ({"class_counts": (30, 20, 4)}, "elr"),
        ({"classes": ("0", "1")}, "elr"),
        ({"noise": "flip", "imbalance_factor": 20.0}, "mwnet"),
        ({"weight_net": "digits_flip2", "imbalance_factor": 20.0}, "mwnet"),
        ({"method": "erm", "imbalance_factor": 20.0}, "erm"),
    ],
)
def test_the_method_for_a_long_tail(fields, expected, caplog):
    y = np.repeat([0, 1, 2], 30)
    source = data.from_arrays(np.random.default_rng(0).random((90, 2, 2, 1)), y)
    caplog.set_level("INFO", "absl")
    found = resolve.resolve_bias(Experiment(**fields), source)
    assert found.method == expected
    if not {"method", "weight_net"} & set(fields):
        resolve.log_method(found, source)
    assert ("times as many examples" in caplog.text) == (expected == "logit_adjustment")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"features": "f", "method": "mwnet"}, 1e-4),
        ({"backbone": "b", "method": "erm", "compare": "rmnw"}, 1e-4),
        ({"features": "f", "method": "mlc"}, 3e-5),
        ({"features": "f", "method": "mwnet", "meta_lr": 0.02}, 0.02),
        ({"features": "f", "method": "mwnet", "noise": "flip"}, 1e-3),
        ({"features": "f", "method": "mwnet", "imbalance_factor": 9.0}, 1e-3),
        ({"features": "f", "method": "mwnet", "network": "mlp"}, 1e-3),
        ({"features": "f", "method": "erm"}, 0.0),
        ({"method": "mwnet"}, 1e-3),
    ],
)
def test_the_rate_of_a_weight_net_for_a_long_tail(fields, expected):
    config = Experiment(**{"imbalance_factor": 20.0} | fields)
    images = data.from_arrays(np.random.default_rng(0).random((90, 2, 2, 1)), np.repeat([0, 1, 2], 30))
    found = resolve.with_sizes(resolve.resolve_bias(config, images), (4,), 90, 9)
    assert found.meta_lr == pytest.approx(expected)


def test_the_sizes_of_given_classes_are_seen():
    y = np.repeat([0, 1, 2], [60, 6, 24])
    source = data.from_arrays(np.random.default_rng(0).random((90, 2, 2, 1)), y)
    assert choosing.imbalance(Experiment(), source) == 10
    assert choosing.imbalance(Experiment(classes=("0", "2")), source) == 2.5
    assert resolve.resolve_bias(Experiment(), source).method == "logit_adjustment"


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
    source = data.from_arrays(x, y, name="plane")
    result = tf_mwnet.run(config, source, classifier)
    assert result.methods["mwnet"]["best"] > 0.6
    assert 0.2 < result.noise_rate < 0.4
    assert result.classifiers["mwnet"].predict(x, verbose=0).shape == (200, 2)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)], name="one")
    with pytest.raises(UserError, match="gave the model 'one' twice; allowed: a function that"):
        tf_mwnet.run(dataclasses.replace(config, run_dir="new"), source, lambda spec: model)


def test_own_classifier_without_seeds_trains_the_same_each_time(tmp_path):
    rng = np.random.default_rng(0)
    source = data.from_arrays(rng.normal(size=(60, 5)), np.arange(60) % 3, name="points")
    start = []

    def classifier(spec):
        layers = [keras.Input(spec.shape), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
        start.append(keras.Sequential(layers))
        return start[-1]

    config = Experiment(method="erm", meta_size=0, epochs=2, batch_size=20, run_dir=str(tmp_path / "0"))
    random.seed(3)
    expected = random.random()
    random.seed(3)
    results = [
        tf_mwnet.run(dataclasses.replace(config, run_dir=str(tmp_path / run)), source, classifier)
        for run in "ab"
    ]
    assert random.random() == expected  # the caller's numbers go on where they were
    a, b = (r.classifiers["erm"].get_weights() for r in results)
    for one, other, first in zip(a, b, start[0].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.abs(one - first).max() > 0


def test_schedules():
    from tf_mwnet.experiment.build import make_optimizers

    def rates(steps, **kwargs):
        config = Experiment(steps_per_epoch=10, epochs=4, lr=1.0, **kwargs)
        optimizer, _ = make_optimizers(config, "mwnet")
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


@pytest.mark.slow
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


def test_a_command_writes_nothing_of_tensorflow_s_own(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    line = [sys.executable, "-m", "tf_mwnet.main", "--noise_rate=2"]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "tf_mwnet: noise_rate is 2; allowed: 0 to 1\n"
    # Other lines, and what an error says, are passed on.
    code = """
import os
from tf_mwnet.cli import console
with console.without_notes():
    os.write(2, b"I0000 00:00:1 x.cc:1] a note\\nsomething else\\n")
    raise SystemExit("why")
"""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stderr == "something else\nwhy\n"


@pytest.mark.parametrize("method", [pytest.param("erm", marks=pytest.mark.slow), "mwnet"])
def test_an_epoch_of_vectors_has_its_steps(method, tmp_path, monkeypatch, pictures_not_rendered):
    """Several are taken at once, whether they divide an epoch or not; a resumed run has them too."""
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    source = data.from_arrays((rng.normal(size=(240, 4)) + 2 * np.eye(4)[y]).astype(np.float32), y)
    fields = {"method": method, "batch_size": 5, "meta_size": 30, "test_fraction": 0.1,
              "network": "linear", "epochs": 3, "lr_drops": (2,), "seed": 3}  # fmt: skip
    trained = []
    fit = tf_mwnet.ReweightedModel.fit
    monkeypatch.setattr(
        tf_mwnet.ReweightedModel,
        "fit",
        lambda self, *a, **k: [trained.append(self), fit(self, *a, **k)][1],
    )
    metrics = {}
    for at_once, at_most in ((1, 1), (38, 128), (32, 1)):
        monkeypatch.setattr(build, "AT_ONCE", min(at_once, 32))
        monkeypatch.setattr(build, "AT_MOST", at_most)
        folder = tmp_path / str(at_once)
        result = tf_mwnet.run(Experiment(run_dir=str(folder), **fields), source)
        steps = result.config.steps_per_epoch
        assert steps == 38  # 24 test and 30 meta examples are held out
        assert trained[-1].steps_per_execution == at_once
        assert int(trained[-1].optimizer.iterations.numpy()) == 3 * steps
        metrics[at_once] = pd.read_csv(folder / method / "metrics.csv")
    assert list(metrics[32].learning_rate.round(6)) == [0.1, 0.1, 0.01]
    for at_once in (38, 32):
        for name in ("test_accuracy", "weighted_loss"):
            np.testing.assert_allclose(metrics[at_once][name], metrics[1][name], rtol=1e-4)

    for at_once, at_most in ((32, 1), (38, 128))[method == "mwnet" :]:
        monkeypatch.setattr(build, "AT_MOST", at_most)
        parts = Experiment(run_dir=str(tmp_path / f"parts of {at_once}"), **fields)
        with cut_after(2), pytest.raises(Interrupted):
            tf_mwnet.run(parts, source)
        tf_mwnet.run(dataclasses.replace(parts, resume=True), source)
        assert trained[-1].steps_per_execution == at_once
        assert int(trained[-1].optimizer.iterations.numpy()) == 3 * steps
        whole = final_variables(tmp_path / str(at_once), method)
        for name, value in final_variables(tmp_path / f"parts of {at_once}", method).items():
            np.testing.assert_array_equal(value, whole[name])


def test_a_run_in_the_callers_scope(two_replicas, tmp_path, pictures_not_rendered):
    """Strategy "none" is the caller's, under which vectors take one step at a time."""
    y = np.arange(240) % 3
    x = np.random.default_rng(0).normal(size=(240, 4)).astype(np.float32)
    config = Experiment(method="erm", network="linear", batch_size=9, meta_size=0, test_fraction=0.1,
                        epochs=1, lr_drops=(), run_dir=str(tmp_path / "run"))  # fmt: skip
    with two_replicas.scope():
        tf_mwnet.run(config, data.from_arrays(x, y))
        assert tf.distribute.get_strategy() is two_replicas
    assert json.loads((tmp_path / "run" / "result.json").read_text())["replicas"] == 2
