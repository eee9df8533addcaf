"""Mixup, smoothed labels, clipped gradients, moving averages and optimizers, by hand."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from contract import examples_of, prepared
from runs import cut_after
from scipy.special import log_softmax
from small import fit, model_of, network

import tf_mwnet
from tf_mwnet import ReweightedModel, UserError, losses, main, methods, optimizers
from tf_mwnet.errors import Interrupted
from tf_mwnet.model import averaging, compiling, mixing

rng = np.random.default_rng(0)


def compiled(method="erm", **options):
    model = ReweightedModel(network(), methods.get(method))
    model.compile(optimizers.SGD(0.1), optimizers.Adam(1e-2), **options)
    return model


def batch(size=8):
    return rng.normal(size=(size, 6)).astype(np.float32), rng.integers(0, 4, size)


# -------------------------------------------------------------------- mixup


def test_mixed_losses_are_those_of_mixup():
    mix = mixing.draw(0.5, 8, 3, 7)
    share, partner, back = float(mix.share), mix.partner.numpy(), mix.back.numpy()
    assert 0.5 <= share <= 1
    assert sorted(partner) == list(range(8))
    np.testing.assert_array_equal(partner[back], np.arange(8))
    x, y = batch()
    np.testing.assert_allclose(mixing.inputs(mix, x), share * x + (1 - share) * x[partner], rtol=1e-6)
    logits = rng.normal(size=(8, 4))
    log = log_softmax(logits, axis=1)
    usual = -share * log[np.arange(8), y] - (1 - share) * log[np.arange(8), y[partner]]
    got = mixing.example_losses(
        mix, tf.constant(logits), tf.constant(y), tf.range(8), lambda z, y, i: losses.cross_entropy(z, y)
    )
    assert got.numpy().sum() == pytest.approx(usual.sum())
    # The loss of an example is that of its own label, in both inputs.
    j = back[2]
    by_hand = -share * log[2, y[2]] - (1 - share) * log[j, y[2]]
    assert partner[j] == 2
    assert got.numpy()[2] == pytest.approx(by_hand)


def test_draws_of_mixup():
    shares = np.array([float(mixing.draw(0.2, 4, 0, step).share) for step in range(300)])
    beta = np.random.default_rng(0).beta(0.2, 0.2, 20_000)
    assert shares.mean() == pytest.approx(np.maximum(beta, 1 - beta).mean(), abs=0.02)
    again = mixing.draw(0.2, 4, 0, 5)
    assert float(again.share) == shares[5]
    with pytest.raises(UserError, match="mixup got inputs of int64; allowed: images and other floats"):
        mixing.inputs(again, tf.constant([[1], [2], [3], [4]], tf.int64))


def test_a_step_with_mixup():
    x, y = batch()
    model = compiled(mixup=1.0, mixup_seed=5)
    start = [v.numpy() for v in model.classifier.trainable_variables]
    mix = mixing.draw(1.0, 8, 5, 0)
    with tf.GradientTape() as tape:
        logits = model.classifier(mixing.inputs(mix, x))
        share, partner = mix.share, mix.partner.numpy()
        both = share * losses.cross_entropy(logits, tf.constant(y)) + (1 - share) * losses.cross_entropy(
            logits, tf.constant(y[partner])
        )
        loss = tf.reduce_mean(both)
    slopes = tape.gradient(loss, [v.value for v in model.classifier.trainable_variables])
    model.train_on_batch(x, y)
    for v, before, slope in zip(model.classifier.trainable_variables, start, slopes, strict=True):
        np.testing.assert_allclose(v.numpy(), before - 0.1 * slope.numpy(), atol=1e-6)


# -------------------------------------------------------------------- labels and gradients


def test_smoothed_labels_by_hand():
    x, y = batch()
    model = compiled(label_smoothing=0.2)
    start = [v.numpy() for v in model.classifier.trainable_variables]
    with tf.GradientTape() as tape:
        target = 0.8 * np.eye(4)[y] + 0.05
        log = tf.nn.log_softmax(model.classifier(x))
        loss = -tf.reduce_sum(target.astype(np.float32) * log) / 8
    slopes = tape.gradient(loss, [v.value for v in model.classifier.trainable_variables])
    model.train_on_batch(x, y)
    for v, before, slope in zip(model.classifier.trainable_variables, start, slopes, strict=True):
        np.testing.assert_allclose(v.numpy(), before - 0.1 * slope.numpy(), atol=1e-6)


@pytest.mark.parametrize("largest", [0.01, 1e6])
def test_clipped_gradients(largest):
    x, y = batch()
    models = [compiled(), compiled(grad_clip=largest)]
    steps = []
    for model in models:
        start = [v.numpy() for v in model.classifier.trainable_variables]
        model.train_on_batch(x, y)
        after = [v.numpy() for v in model.classifier.trainable_variables]
        steps.append(np.concatenate([(a - b).ravel() for a, b in zip(start, after, strict=True)]) / 0.1)
    norm = np.linalg.norm(steps[0])
    assert norm > 0.01
    np.testing.assert_allclose(steps[1], steps[0] * min(1, largest / norm), rtol=1e-3, atol=1e-6)


def test_gradients_are_clipped_alike_on_replicas(two_replicas):
    x, y = batch(8)
    alone = compiled(grad_clip=0.05)
    alone.train_on_batch(x, y)
    with two_replicas.scope():
        shared = compiled(grad_clip=0.05)
    shared.fit(x, y, batch_size=8, epochs=1, verbose=0, shuffle=False)
    for a, b in zip(alone.classifier.variables, shared.classifier.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)


# -------------------------------------------------------------------- moving average


def test_a_moving_average_is_evaluated():
    x, y = batch(40)
    model = ReweightedModel(network(bn=True), "erm")
    model.compile(optimizers.SGD(0.5), ema=0.6)
    average = [v.numpy() for v in model.classifier.variables]
    for _ in range(4):
        model.train_on_batch(x, y)
        now = [v.numpy() for v in model.classifier.variables]
        average = [0.6 * a + 0.4 * v for a, v in zip(average, now, strict=True)]
    for own, by_hand in zip(model.averages.values, average, strict=True):
        np.testing.assert_allclose(own.numpy(), by_hand, rtol=1e-4, atol=1e-6)
    other = keras.models.clone_model(model.classifier)
    other.set_weights(average)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), other(x, training=False), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        model.final_classifier()(x), other(x, training=False), rtol=1e-3, atol=1e-5
    )
    accuracy = float((other(x).numpy().argmax(axis=1) == y).mean())
    assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] == pytest.approx(accuracy)
    assert np.abs(model.classifier(x).numpy() - other(x).numpy()).max() > 1e-3


def test_a_saved_average_goes_on(tmp_path, blobs):
    model = compiled("erm", ema=0.9)
    fit(model, blobs, epochs=1)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    x = blobs[0]
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize("method", ["mwnet", "gdw", "joint_optimization", "co_teaching", "sop", "mlnt"])
def test_methods_with_all_of_it(method, blobs):
    options = {"mixup": 0.5, "label_smoothing": 0.1, "grad_clip": 1.0, "ema": 0.9}
    model = model_of(method)
    options["label_smoothing"] *= model.method.smooths_labels
    model.compile(optimizers.SGD(0.1, momentum=0.9), optimizers.Adam(1e-3), **options)
    history = fit(model, blobs, epochs=3).history
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]


def test_a_weight_net_that_is_not_trained_is_refused():
    net = methods.get("mwnet").weight_net
    net.trainable = False
    model = ReweightedModel(network(), methods.MWNet(weight_net=net))
    with pytest.raises(UserError, match="MWNet has no trainable variables; allowed: a weight net"):
        model.compile(optimizers.SGD(0.1))


def test_gdw_goes_on_where_the_loss_scale_is_too_large(blobs):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = ReweightedModel(network(), "gdw")
        scaled = keras.optimizers.LossScaleOptimizer
        model.compile(scaled(optimizers.SGD(0.1)), scaled(optimizers.Adam(1e-3)))
        history = fit(model, blobs, epochs=3).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history["weighted_loss"]).all()
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("method", methods.METHODS)
def test_smoothed_labels_change_the_losses_or_are_refused(method):
    made, batch = prepared(method), examples_of(prepared(method))
    soft = mixing.smoothed(batch.labels, batch.logits, 0.3)
    given = made.example_losses(batch.logits, batch.labels, batch.index)
    smooth = made.example_losses(batch.logits, soft, batch.index)
    if made.smooths_labels:
        assert np.abs(smooth - given).max() > 1e-3
        mixing.check_smoothing(made, 0.3)
    else:
        mixing.check_smoothing(made, 0.0)
        message = f"label_smoothing is 0.3 with {type(made).__name__}, which has targets of its own"
        with pytest.raises(UserError, match=message):
            mixing.check_smoothing(made, 0.3)


def test_smoothing_is_refused_before_the_first_method_is_trained(tmp_path, capsys):
    line = ["--method=mlc", "--compare=erm", "--label_smoothing=0.1", f"--run_dir={tmp_path / 'run'}"]
    assert main.main(line) == 2
    assert "label_smoothing is 0.1 with MLC" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_accumulated_steps_count_one_by_one(blobs):
    """For mixup and for where the next fit begins; Keras counts updates."""
    optimizer = optimizers.SGD(0.1, gradient_accumulation_steps=3)
    model = model_of("erm")
    model.compile(optimizer, mixup=1.0, run_eagerly=True)
    drawn, draw = [], mixing.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixing, "draw", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1])
        fit(model, blobs, epochs=1, batch_size=24)
    shares = [float(mix.share) for mix in drawn if hasattr(mix.share, "numpy")]
    assert len(set(shares)) == len(shares) == 5
    assert compiling.steps_taken(optimizer) == 5
    assert int(optimizer.iterations) == 1
    scaled = keras.optimizers.LossScaleOptimizer(optimizer)
    assert compiling.steps_taken(scaled) == 5


def test_the_average_of_a_classifier_whose_variables_have_equal_names():
    def tower(name):
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(3, name="dense")(inputs), name=name)

    one, other = tower("a"), tower("b")
    first, second = keras.Input((4,)), keras.Input((4,))
    outputs = keras.layers.Dense(2)(keras.layers.concatenate([one(first), other(second)]))
    classifier = keras.Model([first, second], outputs)
    assert len({v.path for v in classifier.variables}) < len(classifier.variables)
    x = [rng.normal(size=(5, 4)).astype(np.float32) for _ in range(2)]
    average = averaging.Averages(classifier, 0.9)
    np.testing.assert_allclose(average.outputs(classifier, x), classifier(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": -1.0}, "mixup is -1"),
        ({"meta_mixup": 1e9}, "meta_mixup is 1e.09; allowed: 0 to 1000"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; allowed: 0 to below 1"),
        ({"ema": 1.0}, "ema is 1.0; allowed: 0 to below 1"),
        ({"grad_clip": -0.1}, "grad_clip is -0.1"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        compiled(**options)
    with pytest.raises(UserError, match=message.replace("1.0", "1").replace("-0.1", "-0.1")):
        tf_mwnet.Experiment(**options)


# -------------------------------------------------------------------- in a run


@pytest.mark.slow
def test_a_run_with_all_of_it_resumes_exactly(tmp_path):
    line = [
        "--method=mwnet", "--epochs=4", "--optimizer=adamw", "--lr=0.003", "--l2=0.01", "--mixup=0.2",
        "--label_smoothing=0.1", "--grad_clip=2", "--ema=0.95", "--early_stopping=100", "--lr_drops=",
    ]  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main.main([*line, f"--run_dir={whole}"]) == 0
    config = tf_mwnet.Experiment(
        **json.loads((whole / "config.json").read_text()) | {"run_dir": str(parts)}
    )

    with cut_after(2), pytest.raises(Interrupted):
        tf_mwnet.run(config)
    assert main.main(["--resume", f"--run_dir={parts}"]) == 0
    one, other = (json.loads((folder / "result.json").read_text()) for folder in (whole, parts))
    for name in ("mwnet", "mwnet+ES"):
        assert one["methods"][name]["last"] == other["methods"][name]["last"]
    kept = [np.load(folder / "mwnet" / "best_epoch.npz") for folder in (whole, parts)]
    np.testing.assert_allclose(kept[0]["variable_00000"], kept[1]["variable_00000"], atol=1e-6)
