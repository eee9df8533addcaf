"""The meta step against numbers from outside: golden files, NumPy, finite differences."""

import keras
import numpy as np
import oracle
import pytest
import reference
import tensorflow as tf

from tf_mwnet import networks
from tf_mwnet.losses import cross_entropy
from tf_mwnet.meta import dense, weight_gradient
from tf_mwnet.model import example_record
from tf_mwnet.types import DataSpec

METHODS = ("mwnet", "mwnet_normalised")
OTHERS = ("l2rw", "rmnw", "gdw")
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
# Derived from others in the golden files: the training objective after the step.
DERIVED = {"objective_after"}


def check(arrays, method, dtype):
    """Each stage from the library's parts, and the parameters after the model's own train step."""
    model = oracle.build(arrays, dtype, method)
    data = oracle.pair(arrays, dtype)
    found = oracle.stages(model, data, arrays)
    model.make_train_function()
    logs = model.train_function(iter([data]))
    found |= oracle.after(model, found, arrays)
    expected = {k[len(method) + 1 :]: v for k, v in arrays.items() if k.startswith(method + "/")}
    assert set(expected) - set(found) <= DERIVED
    for name in set(expected) - DERIVED:
        np.testing.assert_allclose(
            found[name], expected[name], atol=TOLERANCE[dtype], rtol=0, err_msg=name
        )
    np.testing.assert_allclose(float(logs["meta_loss"]), expected["meta_loss"], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["step_seed0", "step_seed0_bn", "step_seed1", "step_seed1_bn"])
def test_golden_files(oracles, name, method, dtype):
    with np.load(oracles / f"{name}.npz") as file:
        check(dict(file), method, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("name", ["step_seed0", "step_seed0_bn", "step_seed1", "step_seed1_bn"])
def test_golden_files_of_other_methods(oracles, name, method, dtype):
    """What each method leaves after one train step: classifier, weight net, weights, meta loss."""
    with np.load(oracles / f"{name}.npz") as file:
        arrays = dict(file)
    model = oracle.build(arrays, dtype, method=method)
    data = oracle.pair(arrays, dtype)
    model.record_examples(len(arrays["y"]))
    model.make_train_function()
    logs = model.train_function(iter([data]))
    found = oracle.parameters_after(model, arrays)
    tolerance = TOLERANCE[dtype]
    for key, value in found.items():
        expected = arrays[f"{method}/{key}"]
        np.testing.assert_allclose(value, expected, atol=tolerance, rtol=0, err_msg=key)
    np.testing.assert_allclose(float(logs["meta_loss"]), arrays[f"{method}/meta_loss"], rtol=1e-5)
    weights = example_record.columns(model.record)["weight"] / len(arrays["y"])
    if method == "l2rw":
        np.testing.assert_allclose(weights, arrays["l2rw/weight"], atol=1e-6)
    elif method == "gdw":
        used = arrays["gdw/omega_after"].mean(axis=1) / len(arrays["y"])
        np.testing.assert_allclose(weights, used, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bn", [False, True])
def test_numpy_reference(bn, method, dtype):
    check(reference.case(seed=3, bn=bn), method, dtype)


def test_reference_agrees_with_golden_files(oracles):
    with np.load(oracles / "step_seed0_bn.npz") as file:
        golden = dict(file)
    w, theta = (
        {k.split("/")[1]: v for k, v in golden.items() if k.startswith(part + "/")}
        for part in ("w", "theta")
    )
    data = [golden[k] for k in ("x", "y", "x_meta", "y_meta", "alpha", "beta")]
    for method in METHODS:
        found = reference.step(w, theta, *data, normalised=method == "mwnet_normalised")
        for name, value in found.items():
            np.testing.assert_allclose(value, golden[f"{method}/{name}"], atol=1e-12, err_msg=name)


def test_weight_gradient_against_finite_differences_on_resnet32(float64):
    """Central differences of the meta loss after a virtual step, ResNet-32 with narrow stages."""
    rng = np.random.default_rng(0)
    spec = DataSpec("t", (8, 8, 3), "float64", tuple("abc"), np.zeros(3), np.ones(3))
    model = networks.resnet32(spec, seed=0, width=4)
    assert len(model.trainable_variables) == 3 * 31 + 2  # 31 convolutions with batch norm, one dense
    x, x_meta = (tf.constant(rng.normal(size=(n, 8, 8, 3))) for n in (6, 5))
    y, y_meta = tf.constant([0, 1, 2, 0, 1, 2]), tf.constant([2, 1, 0, 1, 0])
    parameters = [v.value for v in model.trainable_variables]
    state = [v.value for v in model.non_trainable_variables]
    alpha = 0.05

    def meta_loss(virtual):
        out, _ = model.stateless_call(virtual, state, x_meta, training=True)
        return tf.reduce_mean(cross_entropy(out, y_meta))

    @tf.function
    def loss_gradient(weights):
        with tf.GradientTape() as tape:
            out, _ = model.stateless_call(parameters, state, x, training=True)
            objective = tf.reduce_sum(weights * cross_entropy(out, y))
        return dense(tape.gradient(objective, parameters), parameters)

    @tf.function
    def objective(weights):
        gradients = loss_gradient(weights)
        return meta_loss([p - alpha * g for p, g in zip(parameters, gradients, strict=True)])

    weights = rng.uniform(0.05, 0.4, size=6)
    with tf.GradientTape(persistent=True) as tape:
        out, _ = model.stateless_call(parameters, state, x, training=True)
        losses = cross_entropy(out, y)

    def shared(w):
        return dense(tape.gradient(losses, parameters, output_gradients=w), parameters)

    gradient, loss, *_ = weight_gradient(shared, tf.constant(weights), parameters, alpha, meta_loss)
    np.testing.assert_allclose(loss, objective(tf.constant(weights)), rtol=1e-12)
    h = 1e-5
    for i in range(6):
        low, high = (weights + sign * h * np.eye(6)[i] for sign in (-1, 1))
        slope = (objective(tf.constant(high)) - objective(tf.constant(low))) / (2 * h)
        np.testing.assert_allclose(gradient[i], slope, rtol=1e-5, atol=1e-9)
    assert np.ptp(gradient) > 1e-4  # a gradient that says something
    assert keras.config.floatx() == "float64"
