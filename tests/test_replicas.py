"""Two replicas give what one gives on the same global batch, and XLA what plain TensorFlow gives."""

import keras
import numpy as np
import pytest
import small

from tf_mwnet import ReweightedModel, methods, networks, optimizers
from tf_mwnet.types import DataSpec

FACTS = {
    "num_examples": lambda: 36,
    "class_sizes": lambda: (18, 12, 6),
    "clean_share": lambda: (1.0, 0.5, 0.8),
    "transition": lambda: (0.7 * np.eye(3) + 0.1).tolist(),
    "num_untrusted": lambda: 30,
    "num_trusted": lambda: 6,
    "peer": lambda: plain_network(seed=3),
}


def method_of(name):
    if name == "mwnet_mean":
        return methods.MWNet(normalise=False)
    return methods.get({"name": name} | {k: FACTS[k]() for k in small.facts(name)})


METHODS = [*methods.METHODS, "mwnet_mean"]


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 8, 8, 1)).astype(np.float32)
    y = rng.integers(3, size=50)
    return x[:36], y[:36], x[36:], y[36:]


def train(build, method, batch_size=12, meta_batch_size=7, jit_compile=False):
    x, y, x_meta, y_meta = data()
    model = ReweightedModel(build(), method_of(method))
    steps = optimizers.SGD(0.05, momentum=0.9, l2=1e-3), keras.optimizers.SGD(1.0)
    model.compile(*steps, jit_compile=jit_compile)
    assert model.jit_compile == jit_compile
    history = model.fit(
        x, y, meta_data=(x_meta, y_meta), batch_size=batch_size, meta_batch_size=meta_batch_size,
        epochs=2, verbose=0, validation_data=(x_meta, y_meta),
    )  # fmt: skip
    weights = [v.numpy() for v in (*model.classifier.variables, *model.method.variables)]
    return weights, model.record.numpy()[:-1], {k: v[-1] for k, v in history.history.items()}


def plain_network(seed=0):
    spec = DataSpec("t", (8, 8, 1), "float32", tuple("abc"), np.zeros(1), np.ones(1))
    return networks.mlp(spec, seed=seed, hidden=(16,))


def synchronised_network():
    spec = DataSpec("t", (8, 8, 1), "float32", tuple("abc"), np.zeros(1), np.ones(1))
    return networks.small_cnn(spec, seed=0, filters=(4, 8), synchronized=True)


def residual_network():
    spec = DataSpec("t", (8, 8, 1), "float32", tuple("abc"), np.zeros(1), np.ones(1))
    return networks.resnet32(spec, seed=0, blocks=1, width=4, synchronized=True)


@pytest.mark.parametrize("method", METHODS)
def test_two_replicas_and_xla_equal_one(two_replicas, method):
    one = compare(two_replicas, plain_network, method)
    assert_close(train(plain_network, method, jit_compile=True), one)


@pytest.mark.parametrize("method", ["erm", "mwnet", "gdw"])
def test_synchronised_batch_norm(two_replicas, method):
    compare(two_replicas, synchronised_network, method)


def test_synchronised_resnet(two_replicas):
    compare(two_replicas, residual_network, "mwnet")


def test_uneven_parts(two_replicas):
    """A global batch of odd size, and a last batch of another size."""
    compare(two_replicas, plain_network, "mwnet", batch_size=11)


def compare(strategy, build, method, **kwargs):
    one = train(build, method, **kwargs)
    with strategy.scope():
        two = train(build, method, **kwargs)
    assert_close(two, one)
    return one


def assert_close(found, expected):
    for a, b in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=2e-3, atol=2e-4)
    assert set(found[2]) == set(expected[2])
    for name, value in expected[2].items():
        np.testing.assert_allclose(found[2][name], value, rtol=2e-3, err_msg=name)
