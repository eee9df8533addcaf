"""Cheaper meta gradients: the parameters in a scope, the gradient on them, and how often."""

import dataclasses
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from runs import SHORT
from small import alike_on, fit, method_of, model_of, network, subclassed_network

from tf_mwnet import Experiment, UserError, losses, networks, optimizers
from tf_mwnet.experiment import build, resolve
from tf_mwnet.main import main
from tf_mwnet.model import meta_scope
from tf_mwnet.types import Batch, DataSpec

IMAGES = DataSpec("t", (32, 32, 3), "float32", tuple("abc"), np.zeros(3), np.ones(3))


def names(classifier, scope):
    variables = classifier.trainable_variables
    return [variables[i].path for i in meta_scope.indexes(classifier, scope)]


def test_last_stage_of_resnet32():
    net = networks.resnet32(IMAGES, seed=0)
    every, last, head = (names(net, scope) for scope in ("all", "last_stage", "head"))
    assert len(every) == len(net.trainable_variables)
    # Ten convolutions of 64 filters with their batch norms, and the dense layer.
    assert len(last) == 10 * 3 + 2
    assert last == every[-32:]
    assert head == every[-2:]
    filters = [net.trainable_variables[i].shape[-1] for i in meta_scope.indexes(net, "last_stage")]
    assert set(filters[:-2]) == {64}
    before = net.trainable_variables[meta_scope.indexes(net, "last_stage")[0] - 1]
    assert before.shape[-1] == 32


def test_scopes_of_other_classifiers():
    dense = network()
    assert names(dense, "last_stage") == names(dense, "head") == names(dense, "all")[2:]
    small = networks.small_cnn(IMAGES, seed=0)
    last = names(small, "last_stage")
    assert set(names(small, "head")) < set(last) < set(names(small, "all"))

    own = subclassed_network()
    assert meta_scope.indexes(own, "all") == [0, 1]
    with pytest.raises(UserError, match="meta_scope is 'head' with classifier"):
        meta_scope.indexes(own, "head")
    with pytest.raises(UserError, match="unknown meta_scope 'tail'"):
        meta_scope.indexes(own, "tail")


@pytest.mark.parametrize("scope", ["all", "head"])
def test_meta_gradient_of_a_scope(blobs, scope):
    """G by the equation, one backward pass for each example; l2rw's weights are relu(-G), normalised."""
    x, y, xm, ym = (tf.constant(v) for v in blobs)
    x, y = x[:20], y[:20]
    model = model_of("l2rw")
    model.compile(optimizers.SGD(0.1), meta_scope=scope)
    moved = model.classifier.trainable_variables[2 if scope == "head" else 0 :]

    def slope(inputs, labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses.cross_entropy(model.classifier(inputs), labels))
        return np.concatenate([np.ravel(g) for g in tape.gradient(loss, moved)])

    meta = slope(xm, ym)
    gradient = np.array([-0.1 * slope(x[i : i + 1], y[i : i + 1]) @ meta for i in range(20)])
    expected = np.maximum(-gradient, 0)
    model.record_examples(20)
    rows = tf.range(20, dtype=tf.int64)
    model.train_step({"train": Batch(x, y, rows), "meta": Batch(xm, ym, rows)})
    np.testing.assert_allclose(
        model.record.numpy()[:-1, 1] / 20, expected / expected.sum(), rtol=1e-3, atol=1e-5
    )


def test_meta_every(blobs):
    """The weight net moves in steps 0, 3, 6 and 9; the weights in between are what it says."""
    model = model_of("mwnet")
    model.compile(optimizers.SGD(0.1), optimizers.Adam(1e-2), meta_every=3)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(np.concatenate([np.ravel(w) for w in model.method.get_weights()]))

    start = np.concatenate([np.ravel(w) for w in model.method.get_weights()])
    fit(model, blobs, epochs=2, batch_size=24, callbacks=[Watch()])
    moved = [np.abs(b - a).max() > 0 for a, b in zip([start, *seen[:-1]], seen, strict=True)]
    assert moved == [i % 3 == 0 for i in range(10)]
    fit(model, blobs, epochs=1, batch_size=24, callbacks=[Watch()])  # goes on at step 10
    moved = [np.abs(b - a).max() > 0 for a, b in itertools.pairwise(seen[9:])]
    assert moved == [i % 3 == 0 for i in range(10, 15)]
    assert int(model.meta_optimizer.iterations) == 5


def test_meta_warmup(blobs):
    """The first four steps learn, then those of the period."""
    model = model_of("mwnet")
    model.compile(optimizers.SGD(0.1), optimizers.Adam(1e-2), meta_every=3, meta_warmup=4)
    fit(model, blobs, epochs=2, batch_size=24)
    assert int(model.meta_optimizer.iterations) == 4 + 2  # and 6 and 9


def test_meta_start(blobs):
    """The weight net moves in no step before the fourth, in the next two, and then in every third."""
    model = model_of("mwnet")
    model.compile(optimizers.SGD(0.1), optimizers.Adam(1e-2), meta_every=3, meta_start=3, meta_warmup=2)
    seen = [np.concatenate([np.ravel(w) for w in model.method.get_weights()])]

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(np.concatenate([np.ravel(w) for w in model.method.get_weights()]))

    fit(model, blobs, epochs=2, batch_size=24, callbacks=[Watch()])
    moved = [np.abs(b - a).max() > 0 for a, b in itertools.pairwise(seen)]
    assert moved == [i in (3, 4, 6, 9) for i in range(10)]
    alone = model_of("mwnet")
    alone.compile(optimizers.SGD(0.1), optimizers.Adam(1e-2), meta_start=7)
    fit(alone, blobs, epochs=2, batch_size=24)
    assert int(alone.meta_optimizer.iterations) == 3


def test_what_fast_leaves_out_for_a_method():
    fast = {"meta_every": 25, "meta_start": 6, "meta_warmup": 7, "meta_late": True, "meta_ema": 0.9}
    config = Experiment(speed="fast", **fast)
    exact = {"meta_scope": "all", "meta_every": 1, "meta_start": 0, "meta_warmup": 0}
    exact |= {"meta_late": False, "meta_ema": 0.0}
    late = exact | fast
    assert build.cheaper(config, method_of("mwnet")) == late
    assert build.cheaper(config, method_of("gdw")) == late | {"meta_late": False, "meta_ema": 0.0}
    assert build.cheaper(config, method_of("l2rw")) == exact
    assert build.cheaper(config, method_of("erm")) == exact


@pytest.mark.parametrize(("scope", "late"), [("all", True), ("head", False)])
def test_fast_fills_what_is_not_set(scope, late):
    config = Experiment(
        method="mwnet", speed="fast", meta_scope=scope, meta_every=3, epochs=10, batch_size=10
    )
    filled = resolve.with_sizes(config, (8, 8, 1), 400, 50)
    assert (filled.meta_scope, filled.meta_late, filled.meta_every) == (scope, late, 3)
    assert (filled.meta_batch_size, filled.meta_ema) == (25, 0.9)
    assert (filled.meta_start, filled.meta_warmup) == (12, 16)  # 3 and 4 % of 400 steps


@pytest.mark.slow
def test_fast(tmp_path, capsys):
    line = [*SHORT, "--speed=fast", "--meta_every=2", f"--run_dir={tmp_path / 'run'}"]
    assert main([*line, "--compare=l2rw"]) == 0  # which has no period
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["meta_scope"], config["meta_batch_size"]) == ("all", 25)
    assert config["meta_every"] == 2  # the flag's
    assert (config["meta_start"], config["meta_warmup"]) == (0, 0)  # 3 and 4 % of 12 steps, rounded
    assert config["meta_late"]
    capsys.readouterr()
    assert main([*SHORT, "--speed=slow"]) == 2
    assert "unknown speed 'slow'; allowed: exact, fast" in capsys.readouterr().err


def test_the_rate_of_the_weight_net_makes_up_for_its_fewer_steps():
    asked = Experiment(meta_every=4, meta_warmup=3, steps_per_epoch=10)
    _, meta_optimizer = build.make_optimizers(asked, "mwnet")
    rates = []
    for step in range(5):
        meta_optimizer.iterations.assign(step)
        rates.append(float(meta_optimizer.learning_rate))
    assert rates == pytest.approx([1e-3] * 3 + [4e-3] * 2)
    always = dataclasses.replace(asked, meta_warmup=0)
    assert float(build.make_optimizers(always, "mwnet")[1].learning_rate) == pytest.approx(4e-3)


def test_what_does_not_go_together(blobs):
    with pytest.raises(UserError, match="meta_every is 2 with L2RW, which keeps nothing"):
        model_of("l2rw").compile(meta_every=2)
    with pytest.raises(UserError, match="meta_every is 2 with ERM"):
        model_of("erm").compile(meta_every=2)
    with pytest.raises(UserError, match="meta_every is 0"):
        model_of("mwnet").compile(meta_every=0)
    with pytest.raises(
        UserError, match="meta_every is 2 with steps_per_execution 4; allowed: 1, or one"
    ):
        model_of("mwnet").compile(meta_every=2, steps_per_execution=4)
    with pytest.raises(
        UserError, match="meta_start is 3 with steps_per_execution 4; allowed: 0, or one"
    ):
        model_of("mwnet").compile(meta_start=3, steps_per_execution=4)
    with pytest.raises(UserError, match="meta_start is 3 with L2RW, which keeps nothing"):
        model_of("l2rw").compile(meta_start=3)
    config = Experiment(method="mwnet", meta_start=120, epochs=3, batch_size=10)
    with pytest.raises(UserError, match="meta_start is 120 in a training of 120 steps; allowed: fewer"):
        resolve.with_sizes(config, (8, 8, 1), 400, 50)
    with pytest.raises(UserError, match="unknown meta_scope"):
        model_of("mwnet").compile(meta_scope="first")


def test_two_replicas_and_saving(two_replicas, blobs, tmp_path):
    one = alike_on(two_replicas, blobs, meta_scope="head", meta_every=2)
    one.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.scope == one.scope
    assert loaded._meta_every == 2


@pytest.mark.slow
def test_on_the_command_line(tmp_path, capsys):
    line = [*SHORT, f"--run_dir={tmp_path / 'run'}", "--compare=erm"]
    assert main([*line, "--meta_scope=last_stage", "--meta_every=3"]) == 0
    capsys.readouterr()
    other = [*SHORT, f"--run_dir={tmp_path / 'other'}"]
    assert main([*other, "--method=l2rw", "--meta_every=3"]) == 2
    assert "meta_every is 3 with L2RW" in capsys.readouterr().err
    assert main([*other, "--meta_scope=tail"]) == 2
    assert "unknown meta_scope 'tail'; allowed: all, last_stage, head" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_late_step_shares_its_backward_pass(blobs):
    """After a step: classifier as if the weight net stood still, weight net as in an exact step."""

    def trained(late, meta_lr, steps=1):
        model = model_of("mwnet", bn=True)
        sgd = optimizers.SGD(0.1, momentum=0.9)
        model.compile(sgd, optimizers.SGD(meta_lr), meta_late=late)
        fit(model, blobs, epochs=1, steps_per_epoch=steps)
        classifier = [v.numpy() for v in model.classifier.trainable_variables]
        return classifier, [v.numpy() for v in model.method.trainable_variables]

    late, exact, still = trained(True, 10.0), trained(False, 10.0), trained(False, 1e-12)
    for one, two in zip(late[0], still[0], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)
    for one, two in zip(late[1], exact[1], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-7)
    assert any(abs(a - b).max() > 1e-5 for a, b in zip(late[0], exact[0], strict=True))
    assert any(abs(a - b).max() > 1e-5 for a, b in zip(late[1], still[1], strict=True))
    # The weights that it has learned are those of the next step.
    first, second = trained(True, 10.0, steps=2), trained(True, 1e-12, steps=2)
    assert any(abs(a - b).max() > 1e-5 for a, b in zip(first[0], second[0], strict=True))


@pytest.mark.slow
def test_a_late_step_on_the_command_line(tmp_path, capsys):
    line = [*SHORT, "--network=mlp", f"--run_dir={tmp_path / 'run'}", "--meta_late"]
    assert main(line) == 0
    other = [*SHORT, f"--run_dir={tmp_path / 'other'}", "--meta_late"]
    for flags, message in (
        (["--method=l2rw"], "meta_late is set with L2RW"),
        (["--method=gdw"], "meta_late is set with GDW"),
        (["--meta_scope=head"], "meta_late is set with meta_scope 'head'"),
    ):
        assert main([*other, *flags]) == 2
        assert message in capsys.readouterr().err
