"""The fused batch norm against Keras's: values, statistics, first and second derivatives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mwnet.networks.batch_norm import BatchNorm

EPSILON = 1e-3


def pair(**kwargs):
    """Keras's layer and ours with the same gamma and beta, on 5 channels."""
    rng = np.random.default_rng(0)
    layers = [
        kind(momentum=0.9, epsilon=1e-3, **kwargs)
        for kind in (keras.layers.BatchNormalization, BatchNorm)
    ]
    values = [rng.uniform(0.5, 2, 5), rng.normal(size=5), rng.normal(size=5), rng.uniform(0.5, 2, 5)]
    for layer in layers:
        layer.build((None, 4, 3, 5))
        layer.set_weights(values)
    return layers


def inputs(dtype="float32", seed=1):
    rng = np.random.default_rng(seed)
    return tf.constant(1 + 2 * rng.normal(size=(7, 4, 3, 5)), dtype)


def close(found, expected, **tolerance):
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, "float64"), np.asarray(b, "float64"), **tolerance)


@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_statistics(training):
    theirs, ours = pair()
    for step in range(3):
        x = inputs(seed=step)
        close(ours(x, training=training), theirs(x, training=training), rtol=1e-4, atol=1e-5)
    close(ours.get_weights(), theirs.get_weights(), rtol=1e-5, atol=1e-6)


PULL = inputs(seed=2), inputs(seed=3)
SIDES = [tf.constant(v, tf.float32) for v in np.random.default_rng(4).normal(size=(2, 5))]


def derivatives(layer, x, jit_compile=False):
    """First derivatives along PULL[0], and those of their products with PULL[1] and SIDES."""

    @tf.function(jit_compile=jit_compile)
    def both(x, slope):
        gamma, beta = layer.gamma.value, layer.beta.value
        with tf.GradientTape() as outer:
            outer.watch([x, slope])
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = layer(x, training=True)
            first = inner.gradient(y, [x, gamma, beta], output_gradients=slope)
            terms = zip(first, [PULL[1], *SIDES], strict=True)
            total = tf.add_n([tf.reduce_sum(a * b) for a, b in terms])
        return first, outer.gradient(total, [x, slope, gamma])

    return both(x, PULL[0])


def by_hand(x, gamma):
    """The total above in NumPy."""
    slope, pull, *sides = (np.asarray(v, float) for v in (*PULL, *SIDES))
    over = (0, 1, 2)
    inverse = 1 / np.sqrt(x.var(over) + EPSILON)
    normalised = (x - x.mean(over)) * inverse
    of_beta, of_gamma = slope.sum(over), (slope * normalised).sum(over)
    of_x = gamma * inverse * (slope - (of_beta + normalised * of_gamma) / (x.size / 5))
    return (of_x * pull).sum() + of_gamma @ sides[0] + of_beta @ sides[1]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_derivatives(jit_compile):
    theirs, ours = pair()
    first, (of_x, of_slope, of_gamma) = derivatives(ours, inputs(), jit_compile)
    expected_first, (_, slope, gamma) = derivatives(theirs, inputs())
    close(first, expected_first, rtol=1e-3, atol=1e-4)
    close((of_slope, of_gamma), (slope, gamma), rtol=1e-3, atol=1e-4)
    # Keras's own is off here: tf.nn.moments holds the mean constant, wrong in the second derivative.
    x, values = np.asarray(inputs(), float), np.asarray(ours.gamma, float)
    for place in ((0, 0, 0, 0), (3, 1, 2, 4), (6, 3, 2, 1)):
        step = np.zeros_like(x)
        step[place] = 1e-5
        numeric = (by_hand(x + step, values) - by_hand(x - step, values)) / 2e-5
        np.testing.assert_allclose(of_x[place], numeric, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy):
    theirs, ours = pair(dtype=policy)
    kind = policy.removeprefix("mixed_")
    x = inputs(kind)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs = [layer(x, training=True) for layer in (ours, theirs)]
    assert [o.dtype for o in outputs] == [kind, kind]
    close(outputs[0], outputs[1], atol=0.05)
    pull = inputs(kind, 2)
    slopes = [tape.gradient(o, x, output_gradients=pull) for o in outputs]
    close(slopes[0], slopes[1], atol=0.1)


def test_keras_s_layer_where_the_kernel_does_not_apply(float64):
    x = inputs("float64")
    theirs, ours = pair()
    close(ours(x, training=True), theirs(x, training=True), rtol=1e-12)
    assert ours(x, training=True).dtype == tf.float64


def test_other_shapes_and_saving(tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    theirs, ours = (kind() for kind in (keras.layers.BatchNormalization, BatchNorm))
    close(ours(x, training=True), theirs(x, training=True), rtol=1e-5, atol=1e-6)
    model = keras.Sequential([keras.Input((4, 3, 5)), BatchNorm(momentum=0.9)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.layers[0], BatchNorm)
    close(loaded(inputs()), model(inputs()), rtol=1e-6)
