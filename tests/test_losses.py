"""Losses against numbers worked out by hand, and the symmetry that RMNW-Net rests on."""

import numpy as np
import pytest
import tensorflow as tf

from tf_mwnet import UserError, losses, methods

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
    ],
)
def test_by_hand(name, label, expected):
    loss = losses.LOSSES[name]
    np.testing.assert_allclose(loss(LOGITS, tf.constant([label])), [expected], rtol=2e-5)
    one_hot = tf.one_hot([label], 3)
    np.testing.assert_allclose(loss(LOGITS, one_hot), [expected], rtol=2e-5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_symmetric_losses_have_a_constant_sum_over_labels(name):
    logits = tf.constant(np.random.default_rng(0).normal(scale=3, size=(20, 5)))
    total = sum(losses.LOSSES[name](logits, tf.fill([20], k)).numpy() for k in range(5))
    assert (np.ptp(total) < 1e-9) == bool(getattr(losses.LOSSES[name], "symmetric", False))
    if name == "mae":
        np.testing.assert_allclose(total, 8)  # 2 (K - 1)
    if name == "nce":
        np.testing.assert_allclose(total, 1)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_theorem_1_of_rmnw_net(name):
    """Over uniform label noise (1 - p) I + p / K the mean gradient is (1 - p) times the clean one."""
    rng = np.random.default_rng(0)
    classes, rate = 4, 0.6
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
