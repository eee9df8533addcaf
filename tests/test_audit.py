"""Audits: scores by hand, files of a run, a user's folder in one command, cleaned data, bad input."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from runs import SHORT

import tf_mwnet
from tf_mwnet import Experiment, UserError, data, features, run
from tf_mwnet.audit import __main__ as command
from tf_mwnet.audit import cleaned, defaults, evidence, judging, outputs, scoring
from tf_mwnet.audit.examine import examine
from tf_mwnet.experiment import resolve
from tf_mwnet.types import LabelledSet

COLUMNS = ["id", "set", "given_label", "predicted_label", "label_quality", "is_label_issue", "weight",
           "loss", "probability", "is_correct"]  # fmt: skip


def simulated(rate, accuracy=0.9, size=4000, looks=20, seed=0):
    """What a classifier of some accuracy says of labels, half of a class's wrong ones in one other."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 4, size)
    matrix = (1 - rate) * np.eye(4) + rate * np.roll(np.eye(4), 1, axis=1)
    given = np.array([rng.choice(4, p=matrix[k]) for k in true])
    # Each example has its own difficulty: hard ones are missed often, easy ones never.
    missed = rng.beta(0.3, 0.3 * accuracy / (1 - accuracy), size)
    votes = np.zeros((size, 4), np.float32)
    for _ in range(looks):
        wrong = rng.random(size) < missed
        seen = np.where(wrong, (true + rng.integers(1, 4, size)) % 4, true)
        votes[np.arange(size), seen] += 1 / looks
    p = 0.9 * votes[np.arange(size), given] + 0.02
    nothing = np.zeros(size)
    return evidence.Evidence(given, p, votes, nothing, nothing), true, matrix


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4])
def test_estimates_find_the_noise(rate):
    found, true, matrix = simulated(rate)
    estimate = scoring.estimate(found)
    np.testing.assert_allclose(estimate.transition, matrix, atol=0.06)
    wrong = found.labels != true
    assert abs(estimate.num_issues - wrong.sum()) < 0.03 * len(true)
    quality = scoring.label_quality(found, estimate.transition)
    best = scoring.suggested(found)
    issues, threshold = scoring.flag(quality, found.labels, best, estimate)
    assert issues.sum() <= estimate.num_issues
    if rate:
        assert wrong[issues].mean() > 0.9
        assert issues[wrong].mean() > 0.85
        assert (best[issues & wrong] == true[issues & wrong]).mean() > 0.95
        assert quality[issues].max() == threshold < quality[~wrong].mean()


def test_quality_by_hand():
    # Two looks at three classes; the given label is 0.
    votes = np.array([[0.5, 0.25, 0.25]], np.float32)
    found = evidence.Evidence(np.array([0]), np.array([0.3]), votes, np.ones(1), np.ones(1))
    assert scoring.agreement(found) == pytest.approx(0.4)
    np.testing.assert_allclose(scoring.class_shares(found), [[0.4, 0.3, 0.3]], rtol=1e-6)
    transition = np.array([[0.8, 0.2, 0], [0.5, 0.5, 0], [0, 0, 1]])
    smooth = 0.7 * transition[:, 0] + 0.3 / 3
    posterior = 0.4 * smooth[0] / (0.4 * smooth[0] + 0.3 * smooth[1] + 0.3 * smooth[2])
    quality = scoring.label_quality(found, transition)
    assert quality == pytest.approx((0.4 + posterior) / 2, rel=1e-6)


def test_unseen_examples_and_ties():
    votes = np.full((6, 2), np.nan, np.float32)
    votes[1:] = [1, 0]
    p = np.array([np.nan, 1, 1, 1, 1, 0.0])
    found = evidence.Evidence(np.array([1, 0, 0, 0, 0, 1]), p, votes, p, p)
    # All tie for the most votes: every one of them counts, in whatever order they are.
    estimate = scoring.estimate(found)
    assert estimate.num_issues == 1
    np.testing.assert_allclose(estimate.transition, [[0.8, 0.2], [0, 1]])
    quality = scoring.label_quality(found, estimate.transition)
    assert np.isnan(quality[0])
    best = scoring.suggested(found)
    assert best.tolist() == [1, 0, 0, 0, 0, 0]
    assert scoring.flag(quality, found.labels, best, estimate)[0].tolist() == [False] * 5 + [True]


def test_epochs_count_by_time_and_agreement(tmp_path):
    predicted, p = [[0, 1], [0, 0], [1, 1]], [[0.5, 0.5], [0.9, 0.1], [0.2, np.nan]]
    for epoch in range(3):
        row = np.array(p[epoch], np.float16)
        arrays = {"probability": row, "weight": row, "loss": row}
        np.savez(tmp_path / f"epoch_{epoch + 1:04d}.npz", predicted=predicted[epoch], **arrays)
    found = evidence.recorded(tmp_path, np.array([0, 0]), 2)
    weights = [evidence.epoch_weight((e + 0.5) / 3, a) for e, a in enumerate((0.5, 1.0, 0.0))]
    assert weights[0] == pytest.approx((1 / 6) ** 2 * 0.5**3, rel=1e-6)
    first = np.average(np.array([row[0] for row in p], np.float16).astype(float), weights=weights)
    assert found.probability[0] == pytest.approx(first, rel=1e-6)
    second = np.average(np.array([0.5, 0.1], np.float16).astype(float), weights=weights[:2])
    assert found.probability[1] == pytest.approx(second, rel=1e-6)  # not seen in the last epoch
    share = sum(weights[:2]) / sum(weights)
    np.testing.assert_allclose(found.votes[0], [share, 1 - share], rtol=1e-5)


def test_audit_of_a_run(finished, capsys):
    assert command.main([f"--run_dir={finished}"]) == 0
    printed = capsys.readouterr().out
    folder = finished / "mwnet" / "audit"
    table = pd.read_csv(folder / "label_issues.csv", dtype={"given_label": str, "predicted_label": str})
    assert list(table.columns[: len(COLUMNS)]) == COLUMNS
    assert table.columns[len(COLUMNS)] == "neighbour_agreement"
    assert (table.set == "train").all()  # clean meta and test labels are not in question
    known = table.label_quality.dropna()  # so short a run has not seen every example
    assert len(known) > 900
    assert known.is_monotonic_increasing
    assert known.between(0, 1).all()
    with np.load(finished / "split.npz") as split:
        rows = {name: k for k, name in enumerate(split["train_ids"])}
        order = table.id.map(rows).to_numpy()
        assert sorted(order) == list(range(len(split["train_y"])))
        np.testing.assert_array_equal(table.given_label.astype(int), split["train_y"][order])
        right = (split["train_y"] == split["train_true_y"])[order]
        np.testing.assert_array_equal(table.is_correct, right)
    facts = json.loads((folder / "audit.json").read_text())
    seen = table.label_quality.notna().to_numpy()
    wrong = int((~right[seen]).sum())
    assert facts["precision_at_true_number_of_errors"] == pytest.approx((~right)[:wrong].mean())
    share = f"{100 * facts['precision_at_true_number_of_errors']:.1f} %"
    assert f"{share} of the {wrong} lowest-quality labels are wrong" in printed
    assert (facts["true_number_of_errors"], facts["estimated_from"]) == (wrong, "mwnet")
    assert facts["issues"] == table.is_label_issue.sum() <= facts["estimated_wrong_labels"]
    matrix = np.loadtxt(folder / "estimated_matrix.csv", delimiter=",")
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-4)
    with Image.open(folder / "worst.png") as picture:
        assert picture.size[0] > 1000
        assert picture.size[1] > 1000
    in_python = tf_mwnet.audit(str(finished))
    np.testing.assert_allclose(in_python.label_quality, table.label_quality, rtol=1e-5)
    assert tf_mwnet.audit(finished, method="erm").weight.dropna().round(3).eq(1).all()


def test_a_run_whose_data_is_gone(finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"dataset": "folder", "data_dir": str(tmp_path / "gone")}
    (folder / "config.json").write_text(json.dumps(config))
    shutil.rmtree(folder / "mwnet" / "audit", ignore_errors=True)
    assert command.main([f"--run_dir={folder}"]) == 0
    assert "the data is not there" in capsys.readouterr().err
    assert not (folder / "mwnet" / "audit" / "worst.png").exists()
    assert command.main([f"--run_dir={folder}", f"--write_cleaned={tmp_path / 'clean'}"]) == 2
    assert "cannot be loaded" in capsys.readouterr().err


# -------------------------------------------------------------------- a user's own folder

SHAPES = ("circle", "cross", "square", "stripes", "triangle")


def shape(kind, rng):
    """A white shape on black, 16x16, moved about, with some noise."""
    y, x = np.mgrid[:16, :16] - 7.5 + rng.uniform(-1.5, 1.5, 2)[:, None, None]
    size = rng.uniform(4, 6)
    inside = {
        "circle": np.hypot(x, y) < size,
        "cross": (np.minimum(abs(x), abs(y)) < 1.3) & (np.maximum(abs(x), abs(y)) < size),
        "square": np.maximum(abs(x), abs(y)) < size - 1,
        "stripes": (y + 30) % 4 < 1.5,
        "triangle": (abs(x) < (y + size) / 2) & (y < size),
    }[kind]
    pixels = 200 * inside + rng.normal(30, 15, (16, 16))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """200 images of 5 classes, 20 % of the labels swapped; and id -> true class."""
    root, rng = tmp_path_factory.mktemp("shapes") / "mine", np.random.default_rng(0)
    swapped, truth = set(rng.choice(200, 40, replace=False)), {}
    for i in range(200):
        true = SHAPES[i % 5]
        given = SHAPES[(i + rng.integers(1, 5)) % 5] if i in swapped else true
        (root / "train" / given).mkdir(parents=True, exist_ok=True)
        shape(true, rng).save(root / "train" / given / f"{i:03d}.png")
        truth[f"train/{given}/{i:03d}.png"] = true
    return root, truth


@pytest.mark.slow
def test_from_a_folder_to_a_cleaned_one(shapes, tmp_path, capsys):
    root, truth = shapes
    line = ["--dataset=folder", f"--data_dir={root}", f"--run_dir={tmp_path / 'run'}", "--epochs=40",
            "--lr_drops=25,35", f"--write_cleaned={tmp_path / 'clean'}"]  # fmt: skip
    assert command.main(line) == 0
    printed = capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["meta_labels"], config["network"], config["batch_size"]) == ("noisy", "small_cnn", 16)
    table = pd.read_csv(tmp_path / "run" / config["method"] / "audit" / "label_issues.csv")
    assert sorted(table.id) == sorted(truth)  # all images, those held out too
    assert table.set.value_counts().to_dict() == {"train": 182, "test": 18}
    wrong = table.id.map(truth) != table.given_label
    precision = wrong[:40].mean()
    assert precision >= 0.9, precision
    assert "is_correct" not in table  # the truth is not known to the command
    issues = table[table.is_label_issue]
    assert 30 <= len(issues) <= 60
    assert f"{len(issues)} of 200 examples" in printed
    kept = sorted(str(p.relative_to(tmp_path / "clean")) for p in (tmp_path / "clean").rglob("*.png"))
    assert kept == sorted(set(truth) - set(issues.id))
    assert (tmp_path / "clean" / kept[0]).read_bytes() == (root / kept[0]).read_bytes()

    # Again from the finished run: the issues get their suggested labels.
    line = [f"--run_dir={tmp_path / 'run'}", f"--write_cleaned={tmp_path / 'better'}"]
    assert command.main([*line, "--cleaned=relabel"]) == 0
    found = {p.name.split("-")[-1]: p.parent.name for p in (tmp_path / "better").rglob("*.png")}
    assert len(found) == 200
    right = np.mean([found[i.split("/")[-1]] == true for i, true in truth.items()])
    assert right > 0.93
    assert command.main(line) == 2  # nothing is overwritten
    assert "is there already" in capsys.readouterr().err

    # The data may have moved since.
    moved = shutil.copytree(root, tmp_path / "moved" / "mine")
    line = [f"--run_dir={tmp_path / 'run'}", f"--data_dir={moved}"]
    assert command.main([*line, f"--write_cleaned={tmp_path / 'third'}"]) == 0
    again = sorted(str(p.relative_to(tmp_path / "third")) for p in (tmp_path / "third").rglob("*.png"))
    assert again == kept


def test_cleaned_arrays_can_be_trained_on(finished, tmp_path):
    found = examine(finished)
    size = cleaned.write(found, tmp_path / "clean.npz")
    source = data.load(str(tmp_path / "clean.npz"))
    assert len(source.train) == size == (~found.table.is_label_issue).sum()
    kept = found.table[~found.table.is_label_issue].sort_index()
    np.testing.assert_array_equal(source.train.y, kept.given_label.astype(int))
    np.testing.assert_array_equal(source.train.x, found.examples.x[kept.index])
    cleaned.write(found, tmp_path / "relabelled.npz", "relabel")
    again = data.load(str(tmp_path / "relabelled.npz"))
    table = found.table.sort_index()
    expected = np.where(table.is_label_issue, table.predicted_label, table.given_label).astype(int)
    np.testing.assert_array_equal(again.train.y, expected)


def test_own_arrays(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = (np.eye(3)[y] * 8 + rng.normal(size=(300, 3))).astype(np.float32)
    given = np.where(np.arange(300) % 10 == 0, (y + 1) % 3, y)
    source = data.from_arrays(x, given, true_y_train=y, name="points")
    import keras

    def network(spec):
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])

    config = Experiment(
        method="erm", epochs=10, meta_size=0, run_dir=str(tmp_path / "run"), augment="none"
    )
    result = run(config, source, network)
    found = examine(result)
    table, shown = found.table, dict(outputs.lines(found))
    assert shown["label issues"].endswith(f"of {len(table)} examples")
    untrusted = dataclasses.replace(found, table=table.assign(set=["train", "meta", "test"] * 75))
    shown = dict(outputs.lines(untrusted))
    assert shown["label issues"].endswith("of 225 examples (training, meta and test set)")
    wrong = int((~table.is_correct).sum())
    assert (~table.is_correct[:wrong]).mean() > 0.8
    again = tf_mwnet.audit(tmp_path / "run", source=source)
    pd.testing.assert_frame_equal(table, again)


def test_what_is_not_judged_is_said(rng):
    y = np.arange(300) % 3
    votes = np.eye(3, dtype=np.float32)[y]
    found = evidence.Evidence(y, np.ones(300), votes, np.ones(300), np.ones(300))
    ids = np.arange(300).astype(str)

    def without(x, **more):
        sets = {"train": LabelledSet(x.astype(np.float32), y, y, ids)}
        return judging.judge(found, 300, sets, **more).without

    assert without(votes + 0.1 * rng.normal(size=(300, 3))) == ""
    noise = rng.normal(size=(300, 4, 4, 1))
    reason = "neighbours do not agree with the labels"
    assert without(noise) == without(noise, hidden=lambda x: votes) == reason
    assert without(np.zeros((300, 65, 64, 1))).startswith("large images are compared on features alone")
    assert judging.judge(found, 300, None).without == "the data is not there"


def test_defaults_fit_the_method(shapes):
    fields = {"dataset": "folder", "data_dir": str(shapes[0])}
    config, source = defaults.fill(Experiment(**fields), fields)
    assert (config.method, config.meta_size, config.test_fraction) == ("gce", 0, 0.1)
    assert (config.network, config.augment, config.batch_size) == ("small_cnn", "crop", 16)
    assert len(source.train) == 200
    fields |= {"method": "rmnw", "batch_size": 50}
    config, _ = defaults.fill(Experiment(**fields), fields)
    assert (config.meta_size, config.meta_labels, config.batch_size) == (15, "noisy", 50)


def test_large_data_on_features_gets_large_batches(monkeypatch):
    y = np.arange(300) % 3
    x = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3), np.uint8)
    body = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    source = features.embed(data.from_arrays(x, y), features.load(body), "")
    monkeypatch.setattr(resolve, "read", lambda config, _=None: (config, source))
    monkeypatch.setattr(defaults, "MANY_BATCHES", 2)
    for fields, batch, lr in (
        ({}, 135, 0.135), ({"batch_size": 50}, 50, None), ({"lr": 0.2}, 16, 0.2),
        ({"optimizer": "adam"}, 16, None), ({"method": "elr"}, 16, None),
    ):  # fmt: skip
        config, _ = defaults.fill(Experiment(**fields), fields)
        assert (config.batch_size, config.lr) == (batch, pytest.approx(lr or Experiment().lr))
    monkeypatch.setattr(defaults, "ON_FEATURES", 120)
    assert defaults.fill(Experiment(), {})[0].batch_size == 120

    trained = []  # by the command, whose flags for features set a learning rate of 1

    def train(config, _):
        trained.append(config)
        raise UserError("enough")

    monkeypatch.setattr(command.runner, "run", train)
    for line in ([], ["--lr=1.0"], ["--batch_size=30"]):
        assert command.main(["--dataset=digits", "--features=f", *line]) == 2
    assert [(c.batch_size, c.lr) for c in trained] == [(120, 1.2), (16, 1.0), (30, 1.0)]


# -------------------------------------------------------------------- bad input


def test_bad_runs(finished, tmp_path, capsys):
    with pytest.raises(UserError, match="holds no finished run"):
        tf_mwnet.audit(tmp_path)
    with pytest.raises(UserError, match="unknown method of this run 'l2rw'; allowed: erm, mwnet"):
        tf_mwnet.audit(finished, method="l2rw")
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for path in (folder / "mwnet" / "examples").glob("*"):
        path.unlink()
    assert command.main([f"--run_dir={folder}"]) == 2
    assert "has no weights of examples" in capsys.readouterr().err
    shutil.copy(folder / "split.npz", folder / "mwnet" / "examples" / "epoch_0001.npz")
    assert command.main([f"--run_dir={folder}"]) == 2
    assert "has no record of 1252 examples" in capsys.readouterr().err
    (folder / "split.npz").write_bytes(b"no")
    assert command.main([f"--run_dir={folder}"]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "neither run_dir nor dataset is set"),
        (["--worst=0", "--dataset=digits"], "worst is 0; allowed: at least 1"),
        (["--dataset=digits", "--write_cleaned={tmp}/x", "--cleaned=mend"], "unknown cleaned 'mend'"),
        (["--run_dir={tmp}/none", "--cleaned=foo"], "unknown cleaned 'foo'; allowed: drop, relabel"),
        (["--dataset=digits", "--write_cleaned={tmp}/x", *SHORT], "a path that ends in .npz"),
        (["--dataset=folder", "--data_dir={tmp}/none"], "is not there"),
        (["--dataset=digits", "--nonsense=1"], "nonsense"),
        (["--run_dir={tmp}/none"], "holds no finished run"),
    ],
)
def test_bad_input(tmp_path, capsys, line, message):
    assert command.main([part.replace("{tmp}", str(tmp_path)) for part in line]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", ["--epochs=7", "--dataset=digits", "--overwrite"])
def test_a_finished_run_is_not_trained_anew(finished, more, capsys):
    assert command.main([f"--run_dir={finished}", more]) == 2
    name = more.lstrip("-").partition("=")[0]
    expected = (
        f"tf_mwnet: {name} is set with run_dir '{finished}', a finished run; allowed: --run_dir alone to"
        " audit it, or a new --run_dir to train\n"
    )
    assert capsys.readouterr().err == expected


def test_bad_folders(shapes, tmp_path, capsys):
    root = tmp_path / "mine"
    shutil.copytree(shapes[0], root)
    line = ["--dataset=folder", f"--data_dir={root}", f"--run_dir={tmp_path / 'run'}"]
    broken = root / "train" / "cross" / "broken.png"
    broken.write_bytes(b"no image")
    assert command.main(line) == 2
    assert f"image '{broken}' cannot be read" in capsys.readouterr().err
    broken.unlink()
    (root / "train" / "alone").mkdir()
    shutil.copy(next((root / "train" / "cross").iterdir()), root / "train" / "alone")
    assert command.main(line) == 2
    assert "class alone has 1 example" in capsys.readouterr().err
    (root / "test" / "unknown").mkdir(parents=True)
    assert command.main(line) == 2
    assert "the class 'unknown'; allowed: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
