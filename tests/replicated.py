"""A small model trained on one replica or several, and how to compare the results."""

import keras
import numpy as np
import small
import tensorflow as tf

from tf_mwnet import ReweightedModel, methods, networks, optimizers
from tf_mwnet.data import shares
from tf_mwnet.model import inputs
from tf_mwnet.types import DataSpec

# As `small.RUN_ARGUMENTS`, for the data below.
RUN_ARGUMENTS = {
    "num_examples": lambda: 36,
    "num_classes": lambda: 3,
    "class_sizes": lambda: (18, 12, 6),
    "clean_share": lambda: (1.0, 0.5, 0.8),
    "transition": lambda: (0.7 * np.eye(3) + 0.1).tolist(),
    "counts": lambda: np.diag([18, 12, 6]).tolist(),
    "num_untrusted": lambda: 30,
    "num_trusted": lambda: 6,
    "peer": lambda: plain_network(seed=3),
}


def method_of(name):
    if name == "mwnet_mean":
        return methods.MWNet(normalise=False)
    return small.method_of(name, RUN_ARGUMENTS)


METHODS = [*methods.METHODS, "mwnet_mean"]


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 8, 8, 1)).astype(np.float32)
    y = rng.integers(3, size=50)
    return x[:36], y[:36], x[36:], y[36:]


def make(build, method, metrics=()):
    model = ReweightedModel(build(), method_of(method))
    model.compile(optimizers.SGD(0.05, momentum=0.9, l2=1e-3), keras.optimizers.SGD(1.0), metrics)
    return model


def state(model):
    weights = [v.numpy() for v in (*model.classifier.variables, *model.method.variables)]
    return weights, model.record.numpy()[:-1]


def train(build, method, batch_size=12):
    """By ``fit``, with validation: state and the last epoch's logs."""
    x, y, x_meta, y_meta = data()
    model = make(build, method, ["accuracy"])
    history = model.fit(
        x, y, meta_data=(x_meta, y_meta), batch_size=batch_size, meta_batch_size=7, epochs=2,
        verbose=0, validation_data=(x_meta, y_meta),
    )  # fmt: skip
    return state(model), {k: v[-1] for k, v in history.history.items()}


def take_steps(build, method, strategy, jit_compile=False):
    """Two epochs of three steps, without what ``fit`` has around them: state and the last results."""
    x, y, x_meta, y_meta = data()
    with strategy.scope():
        model = make(build, method)
        pairs, steps, size, _ = inputs.pairs(model.method, x, y, (x_meta, y_meta), 12, 7, True, 0)
        model.record_examples(size)
    replicas = strategy.num_replicas_in_sync

    def step(batch):
        return strategy.run(model.train_step, args=(batch,))

    functions = {}  # plain epochs have a function of their own
    for number, batch in enumerate(pairs(shares.WHOLE).take(2 * steps)):
        if number % steps == 0:
            model.method.begin_epoch(number // steps, 2)
            plain = model.method.plain
            if plain not in functions:
                functions[plain] = tf.function(step, jit_compile=jit_compile, autograph=False)
        if replicas > 1:
            parts = [shares.part(batch, number, replicas) for number in range(replicas)]
            batch = strategy.experimental_distribute_values_from_function(
                lambda context, parts=parts: parts[context.replica_id_in_sync_group]
            )
        functions[plain](batch)
    return state(model), model.get_metrics_result()


def plain_network(seed=0):
    spec = DataSpec("t", (8, 8, 1), "float32", tuple("abc"), np.zeros(1), np.ones(1))
    return networks.mlp(spec, seed=seed, hidden=(16,))


def synchronised_network():
    spec = DataSpec("t", (8, 8, 1), "float32", tuple("abc"), np.zeros(1), np.ones(1))
    return networks.small_cnn(spec, seed=0, filters=(4, 8), synchronized=True)


def assert_close(found, expected):
    for a, b in zip(found[0][0], expected[0][0], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(found[0][1], expected[0][1], rtol=2e-3, atol=2e-4)
    assert set(found[1]) == set(expected[1])
    for name, value in expected[1].items():
        np.testing.assert_allclose(found[1][name], value, rtol=2e-3, err_msg=name)
