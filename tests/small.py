"""A small network, a method of any name, and a fit, for the tests of model and methods."""

import inspect

import keras
import numpy as np

from tf_mwnet import ReweightedModel, methods, optimizers

# Constructor arguments that a run would fill in, for the data of the fixture `blobs`: the name of the
# argument, and a function that makes the value.
RUN_ARGUMENTS = {
    "num_examples": lambda: 120,
    "num_classes": lambda: 4,
    "class_sizes": lambda: (60, 30, 20, 10),
    "clean_share": lambda: (1.0, 0.5, 0.8, 0.9),
    "transition": lambda: (0.9 * np.eye(4) + 0.025).tolist(),
    "counts": lambda: np.diag([60, 30, 20, 10]).tolist(),
    "num_untrusted": lambda: 100,
    "num_trusted": lambda: 20,
    "peer": lambda: network(seed=5),
}


def required_arguments(name):
    """Names of the constructor arguments that a method has no default for."""
    parameters = inspect.signature(methods.METHODS[name]).parameters.values()
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in several]


def method_of(name, values=RUN_ARGUMENTS, **arguments):
    """A method by name, with the arguments that a run would fill in."""
    taken = inspect.signature(methods.METHODS[name]).parameters
    return methods.get({"name": name} | {k: v() for k, v in values.items() if k in taken} | arguments)


def network(seed=0, bn=False, dropout=0.0, dtype=None, softmax=False):
    layers = [keras.Input((6,))]
    layers.append(
        keras.layers.Dense(16, kernel_initializer=keras.initializers.HeNormal(seed), dtype=dtype)
    )
    if bn:
        layers.append(keras.layers.BatchNormalization(momentum=0.9))
    layers.append(keras.layers.ReLU())
    if dropout:
        layers.append(keras.layers.Dropout(dropout, seed=seed))
    last = keras.initializers.HeNormal(seed + 1)
    activation = "softmax" if softmax else None
    layers.append(keras.layers.Dense(4, kernel_initializer=last, activation=activation, dtype=dtype))
    return keras.Sequential(layers)


def subclassed_network():
    """A classifier of which neither inputs nor outputs are known."""

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.last = keras.layers.Dense(4)

        def call(self, x):
            return self.last(x)

    own = Own()
    own(np.zeros((2, 6)))
    return own


def model_of(method="mwnet", jit_compile=False, from_logits=True, meta_lr=None, **kwargs):
    # Fast, so that a few steps show something; mlc, l2rw and fsr run away at such rates.
    lr = 0.03 if method in ("l2rw", "fsr") else 0.1
    if meta_lr is None:
        meta_lr = 1e-3 if method == "mlc" else 1e-2
    if isinstance(method, str):
        # Without a burn-in its curriculum gives up the class that is hardest at the start.
        method = method_of(method, **({"burn_in": 0.5} if method == "mentornet" else {}))
    model = ReweightedModel(network(softmax=not from_logits, **kwargs), method, from_logits)
    model.compile(optimizers.SGD(lr, momentum=0.9), optimizers.Adam(meta_lr), jit_compile=jit_compile)
    return model


def fit(model, blobs, **kwargs):
    x, y, xm, ym = blobs
    settings = {"epochs": 4, "batch_size": 32, "verbose": 0} | kwargs
    return model.fit(x, y, meta_data=(xm, ym), **settings)


def numpy_weights(model):
    return [v.numpy() for v in model.trainable_variables]


def alike_on(replicas, blobs, **settings):
    """MW-Net trained with settings of `compile`, after the same on replicas gave the same variables."""

    def train():
        model = ReweightedModel(network(), method_of("mwnet"))
        model.compile(optimizers.SGD(0.1, momentum=0.9), keras.optimizers.SGD(1.0), **settings)
        fit(model, blobs, epochs=2)
        return model

    one = train()
    with replicas.scope():
        two = train()
    for a, b in zip(one.variables, two.variables, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=2e-3, atol=2e-5, err_msg=a.path)
    return one
