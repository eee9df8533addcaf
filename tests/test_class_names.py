"""Class names as people have them, from the data to pictures, tables and files."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import tf_mwnet
from tf_mwnet import UserError, data
from tf_mwnet.audit.__main__ import main as audit
from tf_mwnet.audit.outputs import read_label_issues
from tf_mwnet.cli.flags import parse
from tf_mwnet.data.splits import class_numbers, select_classes
from tf_mwnet.figures import plots
from tf_mwnet.main import main

NAMES = ("$0_$10", "-x", "007", "NA", "None", "a, b", "日本")
RUN = ["--dataset=folder", "--epochs=2", "--lr_drops=9", "--batch_size=10", "--noise=none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("names"), np.random.default_rng(0)
    for k, name in enumerate(NAMES):
        (root / "train" / name).mkdir(parents=True)
        for i in range(8):
            pixels = (rng.integers(0, 30, (8, 8, 3)) + 32 * k).astype(np.uint8)
            Image.fromarray(pixels).save(root / "train" / name / f"{i}.png")
    return root


def test_from_the_folder_to_the_table(folder, tmp_path, capfd):
    """Dollar signs are no formulas, letters that the font lacks no warnings, and "NA" is a name."""
    run = tmp_path / "run"
    assert (
        audit([*RUN, f"--data_dir={folder}", f"--run_dir={run}", f"--write_cleaned={tmp_path / 'c'}"])
        == 0
    )
    printed = capfd.readouterr()
    assert "Glyph" not in printed.err
    assert "not drawn" not in printed.err
    (path,) = run.glob("*/audit/label_issues.csv")
    table = read_label_issues(path)
    assert sorted(set(table.given_label)) == sorted(NAMES)
    assert table.is_label_issue.dtype == bool
    assert table.label_quality.dtype == float
    pd.testing.assert_frame_equal(read_label_issues(path.parent), table)
    assert (path.parent / "worst.png").stat().st_size > 10_000
    assert {p.name for p in (tmp_path / "c" / "train").iterdir()} == set(NAMES)
    assert tuple(json.loads((run / "data.json").read_text())["classes"]) == NAMES


def test_tables_of_issues_that_are_none(tmp_path):
    for content in (None, "a,b\n1,2\n"):
        path = tmp_path / "a.csv"
        if content:
            path.write_text(content)
        with pytest.raises(UserError, match="allowed: a label_issues"):
            read_label_issues(path)


def test_a_picture_that_fails_costs_no_run(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(plots, "png", fail)
    run = tmp_path / "run"
    flags = ["--method=erm", "--network=mlp", "--epochs=1", "--steps_per_epoch=2", f"--run_dir={run}"]
    assert main(flags) == 0
    assert json.loads((run / "result.json").read_text())["methods"]["erm"]["last"] > 0
    assert "not drawn (RuntimeError: no fonts)" in capsys.readouterr().err


# -------------------------------------------------------------------- --classes


def test_one_meaning_of_a_name():
    assert class_numbers(("1", "2", "3", "4"), ("1", "2")) == [0, 1]
    assert class_numbers(("1", "2", "3", "4"), ("3", "4")) == [2, 3]
    assert class_numbers(("0", "1", "10", "11", "2"), ("0", "2")) == [0, 4]
    assert class_numbers(("cat", "dog", "cow"), (2, 0)) == [2, 0]
    assert class_numbers(("cat", "1", "dog"), ("cat", "1")) == [0, 1]
    assert class_numbers(("cat", "1", "dog"), ("0", "1")) == [0, 1]  # its number is 1 as well
    with pytest.raises(
        UserError, match=r"class '2' among 0, 2 is the name of one class and the number of"
    ):
        class_numbers(("cat", "2", "dog"), ("0", "2"))
    with pytest.raises(UserError, match="unknown class 'bird'; allowed: cat, dog"):
        class_numbers(("cat", "dog"), ("cat", "bird"))
    with pytest.raises(UserError, match="unknown class '7'"):
        class_numbers(("cat", "dog"), ("cat", "7"))


def test_the_classes_that_are_kept():
    x = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 3)).astype(np.uint8)
    source = data.from_arrays(x, np.arange(40) % 4, class_names=["1", "2", "3", "4"])
    kept = select_classes(source, ("2", "1"))
    assert kept.class_names == ("2", "1")
    np.testing.assert_array_equal(kept.train.x[:2], x[[0, 1]])
    np.testing.assert_array_equal(kept.train.y[:2], [1, 0])


def test_names_of_arrays():
    x = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 3)).astype(np.uint8)
    y = np.arange(40) % 2
    assert data.from_arrays(x, y, class_names=np.array([b"cat", "Köter".encode()])).class_names == (
        "cat",
        "Köter",
    )
    for names in (["cat", "cat"], ["cat", " "]):
        with pytest.raises(UserError, match="allowed: names that are not empty, once"):
            data.from_arrays(x, y, class_names=names)


def test_channels_first_are_told(caplog):
    x = np.random.default_rng(0).integers(0, 255, (40, 3, 8, 8)).astype(np.uint8)
    with caplog.at_level(logging.WARNING):
        data.from_arrays(x, np.arange(40) % 2)
        assert "numpy.moveaxis(x, 1, -1)" in caplog.text
        caplog.clear()
        data.from_arrays(np.moveaxis(x, 1, -1), np.arange(40) % 2)
        data.from_arrays(x[:, :1], np.arange(40) % 2)
    assert caplog.text.count("moveaxis") == 1  # of the grey ones


def test_truth_values_are_labels(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(40) % 2 == 1)
    np.testing.assert_array_equal(data.load(str(tmp_path / "a.npz")).train.y, np.arange(40) % 2)


# -------------------------------------------------------------------- paths


def test_paths_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.cfg").write_text("--run_dir=~/runs/a\n--epochs=3\n")
    config = parse(["--flagfile=~/my.cfg", "--dataset=folder", "--data_dir=~/data"])
    assert (config.run_dir, config.data_dir) == (f"{tmp_path}/runs/a", f"{tmp_path}/data")
    assert config.epochs == 3
    assert tf_mwnet.Experiment(weight_net="~/net").weight_net == f"{tmp_path}/net"


# -------------------------------------------------------------------- TensorFlow Datasets


def prepared(folder, label, values, splits=("train", "test")):
    rng = np.random.default_rng(0)
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(8, 8, 3)), "label": label}
    )
    rows = [
        {"image": rng.integers(0, 255, (8, 8, 3)).astype(np.uint8), "label": values[i % len(values)]}
        for i in range(20)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="labels_set",
        version="1.0.0",
        features=features,
        split_datasets={split: list(enumerate(rows)) for split in splits},
        data_dir=folder,
        disable_shuffling=True,
    )
    return data.load("labels_set", str(folder))


@pytest.mark.parametrize(
    ("label", "values", "names"),
    [
        (tfds.features.Scalar(np.int64), [3, 1, 7], ("1", "3", "7")),
        (tfds.features.Scalar(np.int32), [-1, 1], ("-1", "1")),
        (tfds.features.Scalar(np.bool_), [True, False], ("False", "True")),
        (tfds.features.Text(), ["dog", "cat", "Köter"], ("Köter", "cat", "dog")),
    ],
)
def test_labels_without_names(tmp_path, label, values, names):
    found = prepared(tmp_path, label, values)
    assert found.class_names == names
    expected = [names.index(str(v)) for v in values]
    for part in (found.train, found.test):
        np.testing.assert_array_equal(part.y[: len(values)], expected)


def test_a_split_called_validation(tmp_path, caplog):
    label = tfds.features.ClassLabel(names=["a", "b"])
    with caplog.at_level(logging.WARNING):
        found = prepared(tmp_path, label, [0, 1], ("train", "validation"))
    assert len(found.test) == 20
    assert "has no split 'test': 'validation' is the test set" in caplog.text
