"""Weights of examples that a run has not seen (L2RW figure 3)."""

import csv

import numpy as np
import pytest
import tensorflow as tf
from runs import SHORT, final_variables

from tf_mwnet import Experiment, UserError
from tf_mwnet.benchmark import unseen
from tf_mwnet.data.streams import normalise
from tf_mwnet.experiment import build, resolve
from tf_mwnet.experiment.callbacks import Checkpoints
from tf_mwnet.main import main as train
from tf_mwnet.runs.saved_run import saved_experiment

pytestmark = pytest.mark.xdist_group("unseen")  # one run for all
LINE = ["--noise=background", "--background_class=3", "--early_stopping=300", "--network=mlp", *SHORT]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unseen") / "run"
    assert train([*LINE, "--method=l2rw", f"--run_dir={folder}", "--batch_size=30"]) == 0
    return folder


def gradients(classifier, x, y):
    """The gradient of each example's cross-entropy, ``[n, P]``, one example at a time."""
    found = []
    for i in range(len(y)):
        with tf.GradientTape() as tape:
            logits = classifier(x[i : i + 1], training=True)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y[i : i + 1], logits)
        parts = tape.gradient(loss, classifier.trainable_variables)
        found.append(np.concatenate([np.ravel(p) for p in parts]))
    return np.stack(found).astype(np.float64)


def test_weights_are_those_of_the_final_state(finished):
    """relu(<grad l_i, grad of the meta loss>), divided by their batch sum, at the run's last state."""
    before = final_variables(finished, "l2rw")
    lines = unseen.measure(finished, mixed=2)
    config = saved_experiment(finished / "config.json")
    _, _, splits = resolve.load(config)
    model = build.build_model(config, splits, "l2rw", build.classifier_maker(config))
    assert Checkpoints(finished / "l2rw" / "checkpoints", model).restore() == 3
    meta = splits.meta  # as large as its batches, so that their order does not matter
    clean = gradients(model.classifier, normalise(meta.x, splits.spec), meta.y).mean(axis=0)
    row = {id: k for k, id in enumerate(splits.validation.ids)}
    for kind, batch in (("mixed", "0"), ("mixed", "1"), ("one_class", "7")):
        chosen = [line for line in lines if (line["kind"], line["batch"]) == (kind, batch)]
        rows = np.array([row[line["id"]] for line in chosen])
        assert len(rows) > 15
        x = normalise(splits.validation.x[rows], splits.spec)
        each = gradients(model.classifier, x, splits.validation.y[rows])
        right = np.maximum(each @ clean, 0)
        np.testing.assert_allclose(
            [line["weight"] for line in chosen], len(rows) * right / right.sum(), atol=2e-3
        )
    after = final_variables(finished, "l2rw")
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_batches_of_one_class(finished):
    lines = unseen.measure(finished)
    of_class = [line for line in lines if line["kind"] == "one_class"]
    assert {line["batch"] for line in of_class} == set("0124567890")  # not the background class
    assert all(line["true_label"] == line["batch"] for line in of_class)
    given = {line["given_label"] for line in of_class if line["batch"] == "7"}
    assert given == {"7", "3"}
    mixed = [line for line in lines if line["kind"] == "mixed"]
    assert len(mixed) == 30
    assert len({line["true_label"] for line in mixed}) > 3


def test_command(finished, tmp_path, capsys):
    assert unseen.main([f"--run_dir={finished}", f"--out={tmp_path}", "--mixed=3"]) == 0
    printed = capsys.readouterr().out
    assert "weight of right" in printed
    rows = list(csv.DictReader((tmp_path / "weights.csv").open()))
    wrong = [
        float(r["weight"]) for r in rows if r["kind"] == "mixed" and r["given_label"] != r["true_label"]
    ]
    line = next(line for line in printed.splitlines() if line.startswith("mixed"))
    assert line.split()[1:3] == [str(90 - len(wrong)), str(len(wrong))]
    assert f"{np.mean(wrong):.2f}" in line
    for name in ("mixed.png", "one_class.png"):
        assert (tmp_path / name).stat().st_size > 5000


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--method=mwnet", "unknown method of the run 'mwnet'; allowed: l2rw"),
        ("--mixed=0", "mixed is 0; allowed: at least 1"),
        ("--run_dir=nowhere", "'nowhere' holds no finished run"),
    ],
)
def test_bad_input(finished, capsys, flag, message):
    assert unseen.main([f"--run_dir={finished}", flag]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_runs_that_cannot_be_asked():
    none = Experiment(method="erm")
    with pytest.raises(UserError, match="the run held no examples of known true label out"):
        unseen.held_out_of(none, resolve.load(none)[2], "erm")
    for name in ("insw", "glc"):  # a weight for each row; a first stage
        config = Experiment(method=name, early_stopping=50)
        with pytest.raises(UserError, match=f"method '{name}' weights no other examples"):
            unseen.held_out_of(config, resolve.load(config)[2], name)
