"""The moving average of the meta loss's gradient, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import alike_on, fit, model_of, network

from tf_mwnet import UserError, losses, methods, optimizers
from tf_mwnet.model import averaging
from tf_mwnet.types import Batch

MOMENTUM = 0.6


def values(model):
    return [v.numpy() for v in (*model.classifier.variables, *model.method.variables)]


def batches(blobs, steps=3):
    x, y, xm, ym = blobs
    rows = tf.range(20, dtype=tf.int64)
    for step in range(steps):
        own, meta = slice(20 * step, 20 * step + 20), slice(5 * step, 5 * step + 5)
        train = Batch(tf.constant(x[own]), tf.constant(y[own]), rows)
        yield {"train": train, "meta": Batch(tf.constant(xm[meta]), tf.constant(ym[meta]), rows[:5])}


def gradient(classifier, x, y):
    """Of the mean cross-entropy."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(losses.cross_entropy(classifier(x), y))
    return [g.numpy() for g in tape.gradient(loss, [v.value for v in classifier.trainable_variables])]


def test_an_average_by_hand():
    """u_t / (1 - m^t); what overflowed is not taken in; a scale stays on the result alone."""
    classifier = network()
    first, second = classifier.trainable_variables[:2]
    average = averaging.GradientAverage(classifier, MOMENTUM)
    ones, twos = tf.ones(first.shape), tf.fill(second.shape, 2.0)

    def update(a, b, scale=1.0):
        given = [scale * a * ones, scale * b * twos]
        out = average.update([first, second], given, tf.constant(scale))
        return [float(v.numpy().ravel()[0]) for v in out]

    assert update(3.0, -1.0) == pytest.approx([3, -2])  # the first alone
    u = 0.6 * (0.4 * 3) + 0.4 * 5
    assert update(5.0, 0.0, scale=8.0) == pytest.approx(
        [8 * u / (1 - 0.36), 8 * -0.48 / (1 - 0.36)], rel=1e-5
    )
    before = [v.numpy() for v in average.variables]
    assert np.isinf(update(np.inf, 1.0)[0])
    for a, b in zip(before, average.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    assert update(0.0, 0.0)[0] == pytest.approx(0.6 * u / (1 - 0.216), rel=1e-5)


@pytest.mark.parametrize("late", [False, True])
def test_steps_by_hand(blobs, late):
    """MW-Net with SGD: theta moves by sum_i a < grad l_i, u > dV_i / d theta, an example at a time."""
    model = model_of("mwnet")
    model.compile(optimizers.SGD(0.3), optimizers.SGD(5.0), meta_ema=MOMENTUM, meta_late=late)
    classifier, method = model.classifier, model.method
    parameters = classifier.trainable_variables
    average, share, moved = [np.zeros(v.shape) for v in parameters], 0.0, 0.0

    for data in batches(blobs):
        train, meta = data["train"], data["meta"]
        start = [v.numpy() for v in parameters]
        own = [gradient(classifier, train.x[i : i + 1], train.y[i : i + 1]) for i in range(20)]
        each = losses.cross_entropy(classifier(train.x), train.y)
        net = [v.value for v in method.weight_net.trainable_variables]
        with tf.GradientTape(persistent=True) as tape:
            weights = methods.batch_weights(method.weight_function(each), method.normalise)
        for k, v in enumerate(parameters):
            v.assign(start[k] - 0.3 * sum(w * g[k] for w, g in zip(weights.numpy(), own, strict=True)))
        at_virtual = gradient(classifier, meta.x, meta.y)
        for v, value in zip(parameters, start, strict=True):
            v.assign(value)
        average = [0.6 * u + 0.4 * g for u, g in zip(average, at_virtual, strict=True)]
        share = 0.6 * share + 0.4
        with_respect_to_weights = [
            -0.3 * sum((g[k] * average[k]).sum() for k in range(len(parameters))) / share for g in own
        ]
        to_theta = tape.gradient(weights, net, tf.constant(with_respect_to_weights, tf.float32))
        expected = [v.numpy() - 5.0 * g.numpy() for v, g in zip(net, to_theta, strict=True)]
        before = [v.numpy() for v in net]
        model.train_step(data)
        for a, b, c in zip(method.weight_net.trainable_variables, expected, before, strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-3, atol=2e-6)
            moved += np.abs(b - c).max()
    assert moved > 1e-3


def test_without_a_momentum_it_is_each_batch_s_own(blobs):
    """A momentum of 1e-7 changes nothing, and so the average does not get in the way."""
    results = []
    for momentum in (0.0, 1e-7):
        model = model_of("mwnet")
        model.compile(optimizers.SGD(0.3), optimizers.Adam(1e-2), meta_ema=momentum)
        fit(model, blobs, epochs=2)
        assert (model.meta_average is None) == (momentum == 0)
        results.append(values(model))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)


def test_half_precision_is_that_of_float32_to_its_precision(blobs):
    moved = {}
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            model = model_of("mwnet")
            meta = keras.optimizers.LossScaleOptimizer(optimizers.SGD(5.0), initial_scale=64.0)
            model.compile(optimizers.SGD(0.3), meta, meta_ema=MOMENTUM)
        finally:
            keras.config.set_dtype_policy("float32")
        start = np.concatenate([np.ravel(w) for w in model.method.get_weights()])
        for data in batches(blobs):
            model.train_step(data)
        moved[policy] = np.concatenate([np.ravel(w) for w in model.method.get_weights()]) - start
    size = np.abs(moved["float32"]).max()
    assert size > 1e-3
    np.testing.assert_allclose(moved["mixed_float16"], moved["float32"], atol=0.05 * size)


@pytest.mark.parametrize("scope", ["all", "head"])
def test_two_replicas_and_saving(two_replicas, blobs, tmp_path, scope):
    one = alike_on(two_replicas, blobs, meta_scope=scope, meta_every=2, meta_ema=MOMENTUM)
    one.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.meta_average.momentum == MOMENTUM
    kept = [v.numpy() for v in one.meta_average.variables]
    assert max(np.abs(v).max() for v in kept[:-1]) > 0
    for a, b in zip(kept, loaded.meta_average.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_what_it_is_refused_for():
    for name in ("l2rw", "gdw", "erm", "insw", "fsr", "mentornet_dd"):
        with pytest.raises(
            UserError, match=r"meta_ema is 0.9 with \w+, which has no meta gradient or its"
        ):
            model_of(name).compile(optimizers.SGD(0.1), meta_ema=0.9)
    for wrong in (-0.1, 1.0):
        with pytest.raises(UserError, match=f"meta_ema is {wrong}; allowed: 0 to below 1"):
            model_of("mwnet").compile(meta_ema=wrong)
