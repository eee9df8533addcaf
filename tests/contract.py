"""The contract of a method outside of a model: what a batch looks like, and which methods do what.

The groups of names are made from properties of the classes in `methods.METHODS`, so that a new method
joins those it belongs to.
"""

import numpy as np
import pytest
import tensorflow as tf
from small import method_of, required_arguments

from tf_mwnet import methods, optimizers, types

PARAMETERS = tuple((s, "float32") for s in ((6, 16), (16,), (16, 4), (4,)))
HEAD = types.Head("t", 4, 16, "softmax", PARAMETERS)


def those_that(applies):
    """Names of the methods whose class has a property."""
    return [name for name, kind in methods.METHODS.items() if applies(kind)]


LEARNING = those_that(lambda kind: kind.learns)
FIXED = those_that(lambda kind: not kind.learns)
WITH_META_BATCHES = those_that(lambda kind: kind.learns and kind.meta_gradient != "none")
WITH_FUNCTION = those_that(lambda kind: kind.weight_function is not methods.Method.weight_function)
WITH_REQUIRED_ARGUMENTS = [name for name in methods.METHODS if required_arguments(name)]
# Their weights sum to 1 whatever is learned: they cannot all be zero.
SUM_TO_ONE = ["insw", "mlc", "fsr"]
# One of each kind of step: where the step is tested and not the method, the others are slow tests.
EACH_STEP = (
    "erm", "mwnet", "l2rw", "gdw", "insw", "cmwnet_sl", "mlc", "mlnt", "fsr", "co_teaching", "elr",
    "lccn",
)  # fmt: skip
FEWER = [
    pytest.param(name, marks=() if name in EACH_STEP else pytest.mark.slow) for name in methods.METHODS
]
CAN_BE_ZERO = [name for name in WITH_META_BATCHES if name not in SUM_TO_ONE]


def examples_of(method, labels=(0, 1, 2, 3, 0, 1), dtype="float32", seed=0):
    """A batch as the model would hand it to the method."""
    rng = np.random.default_rng(seed)
    size = len(labels)
    logits = tf.constant(rng.normal(size=(size, 4)), dtype)
    labels = tf.constant(labels, tf.int64)
    losses = method.example_losses(logits, labels)
    if method.peer is not None:  # the second network's losses in a second column
        losses = tf.stack([losses, losses[::-1]], axis=1)
    return types.Examples(
        losses,
        logits,
        labels,
        tf.constant(rng.permutation(120)[:size]),
        tf.constant(rng.normal(size=(size, 16)), dtype),
    )


def prepared(name):
    """A method by name, as a model has prepared it."""
    method = method_of(name)
    method.prepare(HEAD)
    return method


def learn(method, examples, gradient):
    """One step of what the method learns; returns the new weights."""
    optimizer = optimizers.Adam(1e-2) if method.trainable_variables else None
    if optimizer is not None:
        optimizer.build(method.trainable_variables)
    return method.learn(gradient, examples, optimizer)
