"""How wrong labels are found, measured: figures by hand, beside cleanlab, and on finished runs."""

import csv
import json

import keras
import numpy as np
import pytest
from runs import rows

from tf_mwnet import WeightFunction
from tf_mwnet.benchmark import label_scores, labels


def test_figures_by_hand():
    wrong = np.array([True, False, True, False, False])
    found = labels.scores(wrong, np.array([0.1, 0.2, 0.3, 0.8, 0.9]))
    assert found["auc"] == pytest.approx(5 / 6)  # of six pairs one is the wrong way round
    assert found["precision"] == 0.5
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["wrong"] == 2
    flagged = labels.scores(wrong, np.arange(5.0), np.array([True, True, False, False, False]))
    assert flagged["f1"] == pytest.approx(0.5)


@pytest.mark.slow
def test_beside_cleanlab(tmp_path, capsys):
    pytest.importorskip("cleanlab")
    path = tmp_path / "labels.csv"
    line = ["--epochs=3", "--network=mlp", "--noises=flip2:0.4", "--methods=gce", f"--csv={path}"]
    assert labels.main([*line, "--folds=2"]) == 0
    with path.open(newline="") as file:
        first = list(csv.DictReader(file))
    assert [row["finder"] for row in first] == ["gce", "cleanlab"]
    assert first[0]["wrong"] == first[1]["wrong"]  # the same labels
    assert all(0.6 < float(row["auc"]) < 1 for row in first), first
    assert all(float(row["seconds"]) > 0 for row in first)
    assert "cleanlab" in capsys.readouterr().out
    # What is measured stays; another method comes beside it.
    assert labels.main([*line[:-2], "--methods=erm", f"--csv={path}", "--folds=2"]) == 0
    with path.open(newline="") as file:
        again = list(csv.DictReader(file))
    assert again[:2] == first
    assert [row["finder"] for row in again[2:]] == ["erm"]
    own = [*line[:-2], "--methods=gce --q=0.5,erm", f"--csv={path}", "--folds=0"]
    for _ in range(2):  # the second call measures nothing
        assert labels.main(own) == 0
        assert [row["finder"] for row in rows(path)] == ["gce", "cleanlab", "erm", "gce --q=0.5"]
    assert rows(path)[3]["auc"] != rows(path)[0]["auc"]
    assert labels.main([*own, "--methods=gce --q=2"]) == 2
    assert "q is 2; allowed: above 0, at most 1" in capsys.readouterr().err


@pytest.mark.slow
def test_beside_datalab_on_features(tmp_path):
    pytest.importorskip("cleanlab")
    from test_features import body

    body().save(tmp_path / "body.keras")
    path = tmp_path / "labels.csv"
    line = [f"--backbone={tmp_path / 'body.keras'}", f"--features={tmp_path / 'features'}", "--epochs=2",
            "--lr_drops=1", "--noises=flip2:0.4", "--folds=2", f"--csv={path}"]  # fmt: skip
    assert labels.main(line) == 0
    with path.open(newline="") as file:
        found = {row["finder"]: row for row in csv.DictReader(file)}
    assert list(found) == ["gce", "cleanlab", "datalab"]
    assert {row["data"] for row in found.values()} == {"digits, features"}
    assert len({row["wrong"] for row in found.values()}) == 1  # the same labels
    assert float(found["gce"]["low"]) < float(found["gce"]["estimated"]) < float(found["gce"]["high"])
    assert all(0 < float(row["f1"]) < 1 for row in found.values())


def test_scores_of_finished_runs(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # headings of one line
    path = tmp_path / "scores.csv"
    assert label_scores.main([f"--runs={finished}", f"--csv={path}"]) == 0
    with path.open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"erm", "mwnet"}
    assert float(rows["erm"]["weight, all"]) == 0.5  # all weights are 1
    assert 0.4 < float(rows["mwnet"]["quality"]) < 1
    assert "agreement, weighted epochs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--noises=flip2"], "noises is 'flip2'; allowed: kind:rate"),
        (["--noises=flap:0.2", "--folds=0"], "flap"),
        (["--methods=mwnt"], "unknown method 'mwnt'"),
        (["--folds=-1"], "folds is -1; allowed: at least 0"),
    ],
)
def test_bad_input(capsys, line, message):
    assert labels.main(line) == 2
    err = capsys.readouterr().err
    assert message in err


@pytest.mark.slow
def test_transfer_table(tmp_path, monkeypatch, capsys):
    from tf_mwnet.benchmark import transfer, zoo

    monkeypatch.setattr(transfer, "SETS", ("digits", "mnist"))
    short = ("--network=small_cnn", "--epochs=1", "--steps_per_epoch=3", "--lr_drops=1")
    monkeypatch.setattr(transfer, "SCHEDULE", short)

    monkeypatch.setattr(transfer, "DIGITS_SCHEDULE", ())

    def digits_twice(out, name, bias, seed, data_dir, backbone, real=transfer.write_data):
        if name == "digits":
            return real(out, name, bias, seed, data_dir, backbone)
        real(out, "digits", bias, seed + 1, data_dir, backbone)
        transfer.data_of(out, "digits", bias, seed + 1).rename(transfer.data_of(out, name, bias, seed))

    monkeypatch.setattr(transfer, "write_data", digits_twice)
    line = ["--sets=digits,mnist", "--biases=flip2", "--seeds=0", f"--out={tmp_path}"]
    png = tmp_path / "gains.png"
    assert transfer.main([*line, f"--csv={tmp_path / 'found.csv'}", f"--png={png}"]) == 0
    assert png.stat().st_size > 5000
    found = rows(tmp_path / "found.csv")
    assert [(r["target"], r["how"], r["source"]) for r in found] == [
        ("digits", "plain", ""), ("digits", "learned anew", "digits"),
        ("digits", "from", "mnist"), ("digits", "end of", "mnist"),
        ("mnist", "plain", ""), ("mnist", "learned anew", "mnist"), ("mnist", "from", "digits"),
        ("mnist", "end of", "digits"),
    ]  # fmt: skip
    config = json.loads((tmp_path / "flip2_digits_0_from_mnist" / "config.json").read_text())
    assert config["weight_net"].endswith("flip2_mnist_0_anew/mwnet/saved_models/weight_net/1")
    assert config["meta_size"] == 0
    runs = [
        tmp_path / f"flip2_digits_0_{kind}" for kind in ("plain", "anew", "from_mnist", "end_of_mnist")
    ]
    labels = [np.load(run / "split.npz") for run in runs]
    for field in ("train_ids", "train_y", "test_ids"):  # whatever the method: the same data
        for other in labels[1:]:
            np.testing.assert_array_equal(labels[0][field], other[field])
    assert "from mnist" in capsys.readouterr().out
    taken = ["--sets=mnist", "--biases=flip2", "--seeds=0", f"--out={tmp_path / 'zoo'}"]
    assert zoo.main([f"--runs={tmp_path}", *taken]) == 0
    net = tmp_path / "zoo" / "mnist_flip2" / "1"
    assert WeightFunction(net).has_course
    accuracy = WeightFunction(net).card["transfer"]["test_accuracy"]
    assert {k: list(v) for k, v in accuracy.items()} == {
        "digits": ["plain", "learned anew", "from", "end of"],
        "home": ["plain", "learned anew"],
    }
    assert accuracy["digits"]["from"] == {
        "mean": pytest.approx(float(found[2]["last"]), abs=1e-5), "std": None, "seeds": 1,
    }  # fmt: skip
    assert (net / "weight_function.png").stat().st_size > 5000
    assert zoo.main([f"--runs={tmp_path / 'none'}", *taken]) == 2
    assert "holds no finished run; allowed" in capsys.readouterr().err
    assert transfer.main([*line, "--biases=tail"]) == 2
    assert "unknown bias 'tail'" in capsys.readouterr().err


def test_transfer_on_features_takes_their_settings(tmp_path, monkeypatch):
    from tf_mwnet.benchmark import transfer
    from tf_mwnet.cli.flags import parse
    from tf_mwnet.experiment import resolve
    from tf_mwnet.features import embedding

    layers = [keras.layers.Rescaling(1 / 16), keras.layers.Flatten(), keras.layers.Dense(12)]
    keras.Sequential([keras.Input((8, 8, 3)), *layers]).save(tmp_path / "net.keras")
    backbone = [f"--backbone={tmp_path / 'net.keras'}", "--backbone_scaling=pixels"]
    monkeypatch.setattr(embedding, "FOLDER", str(tmp_path / "kept"))
    transfer.write_data(tmp_path, "digits", "flip2", 1, "", backbone)
    with np.load(tmp_path / "data" / "flip2_digits_1" / "digits.npz") as arrays:
        assert arrays["features_train"].shape == (len(arrays["y_train"]), 12)
        assert len(arrays["y_meta"]) == len(arrays["features_meta"]) == 100
        given, true = arrays["y_train"], arrays["true_y_train"]
    assert 0.35 < np.mean(given != true) < 0.45
    plain, anew = transfer.learning(tmp_path, ["digits"], ["flip2"], [1], backbone)
    configs = [parse([*job.flags, "--run_dir=x"]) for job in (plain, anew)]
    assert [c.method for c in configs] == ["erm", "mwnet"]
    assert {(c.network, c.lr, c.meta_loss, c.noise) for c in configs} == {
        ("auto", 1.0, "scaled_gce", "auto")
    }
    splits = [resolve.load(config)[2] for config in configs]
    for part in ("train", "meta", "test"):  # whatever the method: the same data
        x, other = (getattr(split, part).x for split in splits)
        np.testing.assert_array_equal(x, other)
    np.testing.assert_array_equal(splits[0].train.y, given)
    assert configs[0].data_dir.endswith("flip2_digits_1/digits.npz")
