"""ELR, SOP, logit adjustment and LDAM against NumPy ports of their authors' steps."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax
from small import model_of

import tf_mwnet
from tf_mwnet import UserError, main, methods, networks, types

K, N, B = 4, 30, 6
rng = np.random.default_rng(0)


def batches(count: int = 3) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Logits, labels and rows; some rows come again."""
    return [
        (3 * rng.normal(size=(B, K)), rng.integers(0, K, B), rng.permutation(10)[:B])
        for _ in range(count)
    ]


def step(method, logits, labels, index):
    """Losses and their gradient, weights, and the update of the state, as in a train step."""
    z, y, i = tf.constant(logits), tf.constant(labels), tf.constant(index)
    with tf.GradientTape() as tape:
        tape.watch(z)
        losses = method.example_losses(z, y, i)
    slope = tape.gradient(losses, z).numpy()
    examples = types.Examples(losses, z, y, i)
    method.observe(examples)
    return losses.numpy(), slope, method.example_weights(examples).numpy()


def numeric(function, z, h=1e-6):
    """The gradient of the sum of a function of logits, by central differences."""
    out = np.zeros_like(z)
    for place in np.ndindex(*z.shape):
        d = np.zeros_like(z)
        d[place] = h
        out[place] = (function(z + d).sum() - function(z - d).sum()) / (2 * h)
    return out


@pytest.mark.parametrize(("beta", "strength"), [(0.7, 3.0), (0.9, 7.0)])
def test_elr_is_its_authors(beta, strength, float64):
    method = methods.ELR(N, K, beta=beta, strength=strength)
    target = np.zeros((N, K))

    def loss(z, y, t):
        p = np.clip(softmax(z, axis=1), 1e-4, 1 - 1e-4)
        ce = -log_softmax(z, axis=1)[np.arange(B), y]
        return ce + strength * np.log(1 - (t * p).sum(axis=1))

    for z, y, rows in batches():
        p = np.clip(softmax(z, axis=1), 1e-4, 1 - 1e-4)
        target[rows] = beta * target[rows] + (1 - beta) * p / p.sum(axis=1, keepdims=True)
        t = target[rows]
        losses, slope, weights = step(method, z, y, rows)
        np.testing.assert_allclose(losses, loss(z, y, t), atol=1e-12)
        np.testing.assert_allclose(slope, numeric(lambda v, y=y, t=t: loss(v, y, t), z), atol=1e-6)
        np.testing.assert_allclose(weights, 1 / B)
        np.testing.assert_allclose(method.average.numpy(), target, atol=1e-12)


@pytest.mark.parametrize(("lr_u", "lr_v"), [(1.0, 10.0), (0.1, 100.0)])
def test_sop_is_its_authors(lr_u, lr_v, float64):
    method = methods.SOP(N, K, lr_u=lr_u, lr_v=lr_v)
    u, v = method.u.numpy(), method.v.numpy()
    assert 0.5e-8 < v.std() < 2e-8
    u = rng.normal(0, 0.4, u.shape)
    v = rng.normal(0, 0.4, v.shape)
    method.u.assign(u)
    method.v.assign(v)

    def q_of(z, y, u, v):
        hot = np.eye(K)[y]
        up, down = np.clip(u**2 * hot, 0, 1), np.clip(v**2 * (1 - hot), 0, 1)
        q = np.maximum(softmax(z, axis=1) + up - down, 1e-4)
        return up, down, np.clip(q / q.sum(axis=1, keepdims=True), 1e-4, 1)

    def loss(z, y, u, v):
        return -np.log(q_of(z, y, u, v)[2][np.arange(B), y])

    def squared(z, y, u, v):
        up, down, _ = q_of(z, y, u, v)
        guess = np.eye(K)[z.argmax(axis=1)]
        return ((guess + up - down - np.eye(K)[y]) ** 2).sum(axis=1)

    for z, y, rows in batches():
        own_u, own_v = u[rows], v[rows]
        losses, slope, weights = step(method, z, y, rows)
        np.testing.assert_allclose(losses, loss(z, y, own_u, own_v), atol=1e-6)
        np.testing.assert_allclose(
            slope, numeric(lambda x, y=y, a=own_u, b=own_v: loss(x, y, a, b), z), atol=1e-6
        )
        np.testing.assert_allclose(weights, 1 / B)
        # v is a constant in the loss.
        both = numeric(lambda a, z=z, y=y, b=own_v: loss(z, y, a, b) + squared(z, y, a, b), own_u)
        only = numeric(lambda b, z=z, y=y, a=own_u: squared(z, y, a, b), own_v)
        u[rows] -= lr_u * both / B
        v[rows] -= lr_v * only / B
        np.testing.assert_allclose(method.u.numpy(), u, atol=1e-6)
        np.testing.assert_allclose(method.v.numpy(), v, atol=1e-5)


def test_sop_takes_a_wrong_label_over(float64):
    method = methods.SOP(N, K)
    z = np.tile([4.0, 0, 0, 0], (B, 1))
    for _ in range(200):
        losses, *_ = step(method, z, np.array([1, 0, 0, 0, 0, 0]), np.arange(B))
    assert losses[0] < 0.7 < 4
    assert method.u.numpy()[0] ** 2 > 0.9
    assert (method.u.numpy()[1:6] ** 2 < 1e-3).all()


@pytest.mark.parametrize("tau", [0.0, 1.0, 2.5])
def test_logit_adjustment_by_hand(tau, float64):
    sizes = [60, 30, 20, 10]
    method = methods.LogitAdjustment(sizes, tau=tau)
    z, y, rows = batches()[0]
    losses, slope, weights = step(method, z, y, rows)
    moved = z + tau * np.log(np.array(sizes) / 120)
    np.testing.assert_allclose(losses, -log_softmax(moved, axis=1)[np.arange(B), y], atol=1e-12)
    np.testing.assert_allclose(slope, softmax(moved, axis=1) - np.eye(K)[y], atol=1e-12)
    np.testing.assert_allclose(weights, 1 / B)
    # The balanced softmax has n_k in place of the shares.
    if tau == 1:
        balanced = np.exp(z) * sizes
        by_hand = -np.log(balanced[np.arange(B), y] / balanced.sum(axis=1))
        np.testing.assert_allclose(losses, by_hand, atol=1e-12)


def test_ldam_is_its_authors(float64):
    sizes = np.array([1000, 100, 50, 10])
    method = methods.LDAM(sizes)
    margin = 1 / np.sqrt(np.sqrt(sizes))
    margin *= 0.5 / margin.max()
    cosines, y = rng.uniform(-1, 1, (B, K)), np.array([0, 1, 3, 3, 2, 0])
    losses, _, weights = step(method, 30 * cosines, y, np.arange(B))
    moved = 30 * (cosines - margin[y][:, None] * np.eye(K)[y])
    np.testing.assert_allclose(losses, -log_softmax(moved, axis=1)[np.arange(B), y], atol=1e-9)
    np.testing.assert_allclose(weights, 1 / B)
    method.begin_epoch(159, 200)
    np.testing.assert_allclose(step(method, 30 * cosines, y, np.arange(B))[2], 1 / B)
    method.begin_epoch(160, 200)
    each = (1 - 0.9999) / (1 - 0.9999**sizes)
    each = each / each.sum() * K
    by_hand = each[y] / each[y].sum()
    np.testing.assert_allclose(step(method, 30 * cosines, y, np.arange(B))[2], by_hand, rtol=1e-6)


def test_a_head_of_cosines(tmp_path):
    plain = keras.Sequential([keras.Input((5,)), keras.layers.Dense(7, "relu"), keras.layers.Dense(K)])
    model = networks.with_cosine_head(plain, 30.0, seed=1)
    x = rng.normal(size=(3, 5)).astype(np.float32)
    hidden = keras.Model(plain.inputs[0], plain.layers[-1].input)(x).numpy()
    w = model.layers[-1].kernel.numpy()
    unit = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    expected = 30 * unit @ (w / np.linalg.norm(w, axis=0))
    np.testing.assert_allclose(model(x), expected, rtol=1e-4)
    assert np.abs(w).max() > 0.8
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "m.keras")(x), expected, rtol=1e-4)
    with pytest.raises(UserError, match="does not end in a dense layer; allowed"):
        networks.with_cosine_head(keras.Sequential([plain, keras.layers.Softmax()]), 30.0)


def test_a_run_of_ldam_ends_in_cosines(tmp_path):
    config = tf_mwnet.Experiment(
        method="ldam", compare="erm", imbalance_factor=20, noise="none", epochs=2, network="small_cnn",
        run_dir=tmp_path / "run", meta_size=0,
    )  # fmt: skip
    result = tf_mwnet.run(config)
    assert result.methods["ldam"]["best"] > 0.2
    images = result.splits.test.x[:50]
    largest = {}
    for name in ("ldam", "erm"):
        path = tmp_path / "run" / name / "saved_models" / "classifier" / "1"
        served = tf.saved_model.load(str(path)).signatures["serving_default"]
        p = served(image=tf.constant(images))["probabilities"].numpy()
        # Cosines differ by 2 at most, times 30.
        largest[name] = np.log(p.max(axis=1) / p.min(axis=1).clip(1e-40)).max()
    assert 5 < largest["ldam"] <= 60


def test_logit_adjustment_of_a_finished_run(tmp_path):
    fields = {
        "imbalance_factor": 20,
        "noise": "none",
        "epochs": 4,
        "meta_size": 0,
        "network": "small_cnn",
    }
    config = tf_mwnet.Experiment(method="erm", run_dir=tmp_path / "run", **fields)
    first = tf_mwnet.run(config)
    times = (tmp_path / "run" / "erm" / "metrics.csv").stat().st_mtime_ns
    line = ["--resume", f"--run_dir={tmp_path / 'run'}", "--post_hoc_logit_adjustment=1.5"]
    assert main.main(line) == 0
    assert (tmp_path / "run" / "erm" / "metrics.csv").stat().st_mtime_ns == times
    results = json.loads((tmp_path / "run" / "result.json").read_text())["methods"]
    assert results["erm"]["last"] == first.methods["erm"]["last"]
    served = tf.saved_model.load(str(tmp_path / "run/erm/saved_models/classifier/1"))
    test = first.splits.test
    p = served.signatures["serving_default"](image=tf.constant(test.x))["probabilities"].numpy()
    shares = np.bincount(first.splits.train.y, minlength=10) / len(first.splits.train)
    by_hand = np.log(p) - 1.5 * np.log(shares)
    assert results["erm+LA"]["last"] == pytest.approx((by_hand.argmax(axis=1) == test.y).mean())
    assert results["erm+LA"]["last"] != results["erm"]["last"]
    moved = tf.saved_model.load(str(tmp_path / "run/erm/saved_models/adjusted_1.5/1"))
    answer = moved.signatures["serving_default"](image=tf.constant(test.x))["probabilities"]
    np.testing.assert_allclose(answer, softmax(by_hand, axis=1), atol=1e-5)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["post_hoc_logit_adjustment"] == 1.5


def test_logits_that_training_shifts_are_not_shifted_again(tmp_path, capfd, pictures_not_rendered):
    line = ["--method=logit_adjustment", "--compare=erm", "--noise=none", "--imbalance_factor=5"]
    line += [
        "--epochs=1",
        "--network=linear",
        "--post_hoc_logit_adjustment=1",
        f"--run_dir={tmp_path}/a",
    ]
    assert main.main(line) == 0
    assert set(json.loads((tmp_path / "a" / "result.json").read_text())["methods"]) == {
        "erm", "erm+LA", "logit_adjustment",
    }  # fmt: skip
    assert "logit_adjustment: its logits are shifted in training" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (methods.ELR(120, 5), "num_classes is 5; allowed: 4, the classifier's outputs"),
        (methods.SOP(120, 2), "num_classes is 2; allowed: 4"),
        (methods.LDAM([40, 40]), "class_sizes has 2 entries; allowed: 4"),
        (methods.LogitAdjustment([40]), "class_sizes has 1 entries; allowed: 4"),
        (methods.CMWNetSL([40, 80], 120), "class_sizes has 2 entries; allowed: 4"),
        (methods.ClassBalanced([40, 80]), "class_sizes has 2 entries; allowed: 4"),
    ],
)
def test_methods_made_for_other_classes(method, message):
    with pytest.raises(tf_mwnet.UserError, match=message):
        model_of(method)


def test_a_negative_class_size():
    with pytest.raises(tf_mwnet.UserError, match="class size is -40; allowed: at least 0"):
        methods.LogitAdjustment([40, -40, 3])
