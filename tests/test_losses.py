"""Losses against numbers worked out by hand, and the symmetry that RMNW-Net rests on."""

import numpy as np
import pytest
import tensorflow as tf

from tf_mwnet import UserError, losses, methods
from tf_mwnet.data import bias

# softmax of these is (0.7, 0.2, 0.1).
LOGITS = tf.constant(np.log([[0.7, 0.2, 0.1]]).astype(np.float32) + 3)


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("cross_entropy", 0, 0.356675),  # -log 0.7
        ("mae", 0, 0.6),  # 0.3 + 0.2 + 0.1
        ("mae", 2, 1.8),
        ("gce", 0, 0.315634),  # (1 - 0.7 ** 0.7) / 0.7
        ("sce", 0, 1.235667),  # 0.1 * 0.356675 + 4 * 0.3
        ("nce", 0, 0.083556),  # 0.356675 / (0.356675 + 1.609438 + 2.302585)
        ("scaled_gce", 0, 0.3),  # q = 1 up to seven classes
    ],
)
def test_by_hand(name, label, expected):
    loss = losses.LOSSES[name]
    np.testing.assert_allclose(loss(LOGITS, tf.constant([label])), [expected], rtol=2e-5)
    one_hot = tf.one_hot([label], 3)
    np.testing.assert_allclose(loss(LOGITS, one_hot), [expected], rtol=2e-5)


def test_scaled_gce_has_the_same_slope_at_the_start_for_many_classes():
    for classes, exponent in ((7, 1.0), (49, 0.5), (343, 1 / 3)):
        logits = tf.zeros([1, classes], tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = losses.LOSSES["scaled_gce"](logits, tf.constant([3]))
        np.testing.assert_allclose(loss, [(1 - 1 / 7) / exponent])
        slope = tape.gradient(loss, logits)[0, 3]
        np.testing.assert_allclose(slope, -(1 - 1 / classes) / 7)  # a seventh of the cross-entropy's


@pytest.mark.parametrize("name", losses.LOSSES)
def test_symmetric_losses_have_a_constant_sum_over_labels(name):
    # With nine classes: up to seven scaled_gce is half of mae.
    logits = tf.constant(np.random.default_rng(0).normal(scale=3, size=(20, 9)))
    total = sum(losses.LOSSES[name](logits, tf.fill([20], k)).numpy() for k in range(9))
    assert (np.ptp(total) < 1e-9) == bool(getattr(losses.LOSSES[name], "symmetric", False))
    if name == "mae":
        np.testing.assert_allclose(total, 16)  # 2 (K - 1)
    if name == "nce":
        np.testing.assert_allclose(total, 1)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_theorem_1_of_rmnw_net(name):
    """Over uniform label noise (1 - p) I + p / K the mean gradient is (1 - p) times the clean one."""
    rng = np.random.default_rng(0)
    classes, rate = 9, 0.6
    x = tf.constant(rng.normal(size=(30, 6)))
    w = tf.constant(rng.normal(size=(6, classes)))
    clean = rng.integers(classes, size=30)

    def gradient(labels):
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = tf.reduce_mean(losses.LOSSES[name](x @ w, tf.constant(labels)))
        return tape.gradient(loss, w).numpy()

    # The expectation is exact: each example takes every label, with that label's probability.
    uniform = np.mean([gradient(np.full(30, k)) for k in range(classes)], axis=0)
    expected = (1 - rate) * gradient(clean) + rate * uniform
    difference = np.abs(expected - (1 - rate) * gradient(clean)).max()
    assert (difference < 1e-12) == bool(getattr(losses.LOSSES[name], "symmetric", False))


@pytest.mark.parametrize("rate", [0.2, 0.6])
def test_variance_of_the_noisy_meta_gradient(rate):
    """RMNW-Net, Lemma 4: under uniform noise p the variance of the MAE gradient stays bounded.

    With g the gradient of an example's loss, on average g', with variance s^2 and at most r long on any
    label, the noisy one has E|g~|^2 = (1 - p) E|g|^2 + p E|g_k|^2 over labels k drawn at random, and the
    mean (1 - p) g' (Theorem 1), so that its variance is at most (1 - p) s^2 + p (1 - p) |g'|^2 + p r^2.
    """
    rng = np.random.default_rng(0)
    count, classes = 40, 4
    x, logits = rng.normal(size=(count, 6)), rng.normal(scale=2, size=(count, classes))
    clean = rng.integers(classes, size=count)
    z = tf.constant(logits)
    each = []  # gradients with respect to the last layer on every label: [K, N, 6 K]
    for k in range(classes):
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = tf.reduce_sum(losses.mean_absolute_error(z, tf.fill([count], k)))
        slope = tape.gradient(loss, z).numpy()
        each.append((x[:, :, None] * slope[:, None, :]).reshape(count, -1))
    each = np.stack(each)
    right = each[clean, np.arange(count)]
    mean, longest = right.mean(axis=0), np.linalg.norm(each, axis=2).max()
    variance = np.square(right - mean).sum(axis=1).mean()
    bound = (1 - rate) * variance + rate * (1 - rate) * mean @ mean + rate * longest**2
    # Given labels as the noise draws them.
    matrix = bias.transition_matrix("uniform", rate, classes, rng)
    draws = [bias.corrupt(np.tile(clean, 500), matrix, rng).reshape(500, count) for _ in range(8)]
    noisy = each[np.concatenate(draws), np.arange(count)]
    measured = np.square(noisy - noisy.mean(axis=(0, 1))).sum(axis=2).mean()
    exact = (1 - rate) * np.square(right).sum(axis=1).mean() + rate * np.square(each).sum(axis=2).mean()
    exact -= (1 - rate) ** 2 * mean @ mean
    np.testing.assert_allclose(noisy.mean(axis=(0, 1)), (1 - rate) * mean, atol=0.02)
    assert measured == pytest.approx(exact, rel=0.01)
    assert exact <= bound


def test_meta_loss_of_a_method():
    assert methods.RMNW().meta_loss is losses.mean_absolute_error
    assert methods.MWNet().meta_loss is losses.cross_entropy
    assert methods.L2RW(meta_loss="gce").meta_loss is losses.generalised_cross_entropy
    with pytest.raises(UserError, match="unknown meta_loss 'l1'; allowed: cross_entropy, mae"):
        methods.MWNet(meta_loss="l1")


def test_l2rw_weights_by_hand():
    gradient = tf.constant([-3.0, 1.0, -1.0])
    examples = methods.base.Examples(tf.zeros(3), None, None, None)
    np.testing.assert_allclose(methods.L2RW().learn(gradient, examples, None), [0.75, 0, 0.25])
    np.testing.assert_array_equal(
        methods.L2RW().learn(-tf.abs(gradient) * -1, examples, None), [0, 0, 0]
    )


def test_gdw_constraint_by_hand():
    # Target 0 of (0.7, 0.2, 0.1): its weight is (3 * 0.2 + 6 * 0.1) / 0.3 = 4, and the weighted logit
    # gradient 4 * (0.7 - 1) + 3 * 0.2 + 6 * 0.1 is 0.
    examples = methods.base.Examples(None, LOGITS, tf.constant([0]), None)
    omega = tf.constant([[9.0, 3.0, 6.0]])
    np.testing.assert_allclose(methods.GDW()._constrain(omega, examples), [[4, 3, 6]], rtol=1e-5)
    free = methods.GDW(zero_mean=False)
    np.testing.assert_array_equal(free._constrain(omega, examples), omega)


def test_gdw_losses_have_the_logit_gradient_of_cross_entropy():
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        total = tf.reduce_sum(methods.GDW().example_losses(LOGITS, tf.constant([1])))
    np.testing.assert_allclose(tape.gradient(total, LOGITS), [[0.7, -0.8, 0.1]], rtol=1e-5)


@pytest.mark.parametrize("confident", [5.0, 9.0, 30.0])
def test_gdw_weighted_logit_gradient_sums_to_zero(confident, float64):
    """Also if the given label, or another one, has a probability above 0.999."""
    logits = tf.constant([[confident, 0.0, 1.0], [confident, 0.0, 1.0]], tf.float64)
    labels, omega = tf.constant([0, 2]), tf.constant([[0.9, 0.3, 0.6], [0.2, 0.8, 0.5]], tf.float64)
    method = methods.GDW()
    examples = methods.base.Examples(None, logits, labels, None)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        weighted = method._constrain(omega, examples) * method.example_losses(logits, labels)
    np.testing.assert_allclose(tf.reduce_sum(tape.gradient(weighted, logits), axis=1), 0, atol=1e-15)
