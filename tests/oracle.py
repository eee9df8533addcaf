"""The golden step: loads a file of expected arrays and builds the same networks in Keras."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, methods, optimizers
from tf_mwnet.meta import dense, weight_gradient
from tf_mwnet.model.reweighted import ReweightedModel
from tf_mwnet.networks import weight_net
from tf_mwnet.types import Batch

CLASSIFIER = {"plain": ("w1", "b1", "w2", "b2"), "bn": ("w1", "b1", "gamma", "beta", "w2", "b2")}
WEIGHT_NET = ("v1", "c1", "v2", "c2")


def classifier(arrays: dict, dtype: str) -> keras.Model:
    """``relu(BN(x @ w1 + b1)) @ w2 + b2`` with the file's parameters; BN where it has gamma."""
    bn = "w/gamma" in arrays
    features, hidden = arrays["w/w1"].shape
    layers = [keras.Input((features,), dtype=dtype), keras.layers.Dense(hidden, dtype=dtype)]
    if bn:
        layers.append(keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, dtype=dtype))
    layers += [keras.layers.ReLU(dtype=dtype)]
    layers += [keras.layers.Dense(arrays["w/w2"].shape[1], dtype=dtype)]
    model = keras.Sequential(layers)
    for variable, name in zip(model.trainable_variables, names(arrays), strict=True):
        variable.assign(arrays[f"w/{name}"])
    return model


def names(arrays: dict) -> tuple[str, ...]:
    return CLASSIFIER["bn" if "w/gamma" in arrays else "plain"]


class Constant(keras.optimizers.schedules.LearningRateSchedule):
    """A step size in double precision; Keras keeps a plain number in single precision."""

    def __init__(self, value, dtype):
        self.value, self.dtype = value, dtype

    def __call__(self, step):
        return tf.constant(self.value, self.dtype)

    def get_config(self):
        return {"value": self.value, "dtype": self.dtype}


def make_method(arrays: dict, dtype: str, method: str) -> methods.Method:
    """The method that the golden files have under this name, with the file's weight net."""
    if method == "l2rw":
        return methods.L2RW()
    net = weight_net((arrays["theta/v1"].shape[1],), dtype=dtype)
    for variable, name in zip(net.trainable_variables, WEIGHT_NET, strict=True):
        variable.assign(arrays[f"theta/{name}"])
    if method == "gdw":
        return methods.GDW(weight_net=net, eta=float(arrays["eta"]), clip=float(arrays["clip"]))
    if method == "rmnw":
        return methods.RMNW(weight_net=net)
    return methods.MWNet(weight_net=net, normalise=method == "mwnet_normalised")


def build(arrays: dict, dtype: str, method: str) -> ReweightedModel:
    """The file's classifier and method, both optimizers plain SGD."""
    made = make_method(arrays, dtype, method)
    model = ReweightedModel(classifier(arrays, dtype), made, dtype=dtype)
    alpha, beta = (Constant(float(arrays[k]), dtype) for k in ("alpha", "beta"))
    model.compile(optimizers.SGD(alpha), optimizers.SGD(beta))
    return model


def pair(arrays: dict, dtype: str) -> dict[str, Batch]:
    rows = {k: tf.range(len(arrays[f"y{k}"]), dtype=tf.int64) for k in ("", "_meta")}
    return {
        name: Batch(tf.constant(arrays[f"x{k}"], dtype), tf.constant(arrays[f"y{k}"]), rows[k])
        for name, k in (("train", ""), ("meta", "_meta"))
    }


def stages(model: ReweightedModel, data: dict, arrays: dict) -> dict[str, np.ndarray]:
    """The values before the update, from the library's parts, under the file's names."""
    parameters = [v.value for v in model.classifier.trainable_variables]
    state = [v.value for v in model.classifier.non_trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        logits = model.classifier(data["train"].x, training=True)
        each = model.method.example_losses(logits, data["train"].y)

    def loss_gradient(weights):
        return dense(tape.gradient(each, parameters, output_gradients=weights), parameters)

    def meta_loss(virtual):
        out, _ = model.classifier.stateless_call(virtual, state, data["meta"].x, training=True)
        return tf.reduce_mean(losses.cross_entropy(out, data["meta"].y))

    with tf.GradientTape() as theta_tape:
        values = model.method.weight_function(each)
        weights = methods.batch_weights(values, model.method.normalise)
    gradient, loss, virtual, _ = weight_gradient(
        loss_gradient, tf.stop_gradient(weights), parameters, arrays["alpha"], meta_loss
    )
    theta = [v.value for v in model.method.weight_net.trainable_variables]
    meta_gradient = theta_tape.gradient(weights, theta, output_gradients=gradient)
    result = {"loss": each, "weight": values, "meta_loss": loss}
    result |= {f"virtual/{n}": v for n, v in zip(names(arrays), virtual, strict=True)}
    result |= {f"meta_grad/{n}": g for n, g in zip(WEIGHT_NET, meta_gradient, strict=True)}
    return {k: np.asarray(v) for k, v in result.items()}


def parameters_after(model: ReweightedModel, arrays: dict) -> dict[str, np.ndarray]:
    """Classifier and weight net as they are now, under the file's names."""
    variables = model.classifier.trainable_variables
    result = {f"w_after/{n}": v for n, v in zip(names(arrays), variables, strict=True)}
    if model.method.trainable_variables:
        theta = model.method.weight_net.trainable_variables
        result |= {f"theta_after/{n}": v for n, v in zip(WEIGHT_NET, theta, strict=True)}
    return {k: np.asarray(v) for k, v in result.items()}


def after(model: ReweightedModel, stage: dict, arrays: dict) -> dict[str, np.ndarray]:
    """The values after the model's own train step, under the file's names."""
    weights = model.method.weight_function(tf.constant(stage["loss"]))
    return parameters_after(model, arrays) | {"weight_after": np.asarray(weights)}
