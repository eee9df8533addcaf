"""Real MNIST and CIFAR-10 through the command, where they lie beside the project."""

import dataclasses

import numpy as np
import pytest

from tf_mwnet import UserError, data, run
from tf_mwnet.cli.flags import parse
from tf_mwnet.data.splits import BiasConfig, make_splits
from tf_mwnet.main import main
from tf_mwnet.runs import saved_run


def metrics(folder, method="mwnet"):
    return saved_run.read_metrics(folder / method / "metrics.csv")


def check_matrix(folder):
    requested, realised = (
        np.loadtxt(folder / f"{name}_matrix.csv", delimiter=",") for name in ("transition", "realised")
    )
    with np.load(folder / "split.npz") as split:
        counts = np.bincount(split["train_true_y"])
    sigma = np.sqrt(np.maximum(requested * (1 - requested), 1e-12) / counts[:, None])
    assert np.all(np.abs(realised - requested) <= 5 * sigma + 1e-6)


@pytest.mark.slow
def test_mnist(tfds_dir, tmp_path):
    arguments = ["--dataset=mnist", f"--data_dir={tfds_dir}", "--noise=uniform", "--noise_rate=0.6"]
    arguments += ["--epochs=2", "--steps_per_epoch=60", "--lr=0.05", "--lr_drops="]
    assert main([*arguments, f"--run_dir={tmp_path / 'run'}"]) == 0
    check_matrix(tmp_path / "run")
    assert metrics(tmp_path / "run")[-1]["test_accuracy"] > 0.6


@pytest.mark.slow
def test_cifar10_with_resnet32(tfds_dir, tmp_path):
    source = data.load("cifar10", tfds_dir)
    source = dataclasses.replace(source, test=source.test.take(np.arange(500)))  # 10,000 take minutes
    arguments = ["--dataset=cifar10", "--meta_size=1000", "--noise=flip2"]
    arguments += ["--class_counts=" + ",".join(["50"] * 10), "--batch_size=10", "--meta_batch_size=10"]
    arguments += ["--epochs=2", "--steps_per_epoch=15", "--lr=0.02", "--lr_drops="]
    result = run(parse([*arguments, f"--run_dir={tmp_path / 'run'}"]), source)
    assert result.config.network == "resnet32"
    first, last = metrics(tmp_path / "run")
    assert last["loss"] < first["loss"]
    assert np.isfinite([last["meta_loss"], last["auc_weight"]]).all()


def test_cifar10_splits(tfds_dir):
    found = data.load("cifar10", tfds_dir)
    assert found.class_names[3] == "cat"
    assert len(set(found.train.ids) | set(found.test.ids)) == 60_000
    splits = make_splits(found, BiasConfig(noise="flip2", noise_rate=0.4, meta_size=1000))
    assert [len(p) for p in (splits.train, splits.meta, splits.test)] == [49_000, 1000, 10_000]
    realised = data.realised_matrix(splits.train.true_y, splits.train.y, 10)
    assert np.abs(realised - splits.transition).max() < 5 * np.sqrt(0.25 / 4900)
    # CIFAR-10's published statistics, in grey levels; the pixels here are JPEG re-encodings, whose
    # mean error is about 6.
    np.testing.assert_allclose(splits.spec.mean, [125.3, 123.0, 113.9], atol=3)
    np.testing.assert_allclose(splits.spec.std, [63.0, 62.1, 66.7], atol=3)


def test_columns_that_are_not_there(tfds_dir):
    with pytest.raises(UserError, match=r"no column 'worse_label'; allowed: id, image, label"):
        data.load("cifar10", tfds_dir, label_key="worse_label", clean_label_key="label")
    with pytest.raises(UserError, match="column 'id' of 'cifar10' is no class label"):
        data.load("cifar10", tfds_dir, label_key="id")
