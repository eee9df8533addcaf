"""The contract of a method on its own: what holds for every registered one that it applies to."""

import copy
import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from contract import (
    FIXED,
    HEAD,
    LEARNING,
    SUM_TO_ONE,
    WITH_FUNCTION,
    WITH_META_BATCHES,
    WITH_REQUIRED_ARGUMENTS,
    examples_of,
    learn,
    prepared,
)
from small import required_arguments

from tf_mwnet import UserError, methods
from tf_mwnet.errors import quoted

every_method = pytest.mark.parametrize("method", methods.METHODS)
# One label alone, and one class alone.
NARROW = ((2,), (1, 1, 1))


def test_no_group_of_methods_is_empty():
    for group in (FIXED, LEARNING, WITH_META_BATCHES, WITH_FUNCTION, WITH_REQUIRED_ARGUMENTS):
        assert group
    assert set(FIXED) | set(LEARNING) == set(methods.METHODS)
    assert set(SUM_TO_ONE) < set(WITH_META_BATCHES)


@every_method
def test_configuration_round_trip(method):
    first = prepared(method)
    config = keras.saving.serialize_keras_object(first)
    second = methods.get(copy.deepcopy(config))
    second.prepare(HEAD)
    assert type(second) is type(first)
    again = keras.saving.serialize_keras_object(second)
    assert again["config"].keys() == config["config"].keys()
    for key, value in config["config"].items():
        assert again["config"][key] == value, key
    assert len(second.variables) == len(first.variables)
    second.set_weights(first.get_weights())
    batch = examples_of(first)
    np.testing.assert_array_equal(second.example_weights(batch), first.example_weights(batch))


@every_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes_and_types(method, dtype):
    method = prepared(method)
    batch = examples_of(method, dtype=dtype)
    assert batch.losses.shape in ((6,), (6, 4), (6, 2), (6, 9))
    assert batch.losses.dtype == dtype
    assert np.isfinite(batch.losses).all()
    assert_weights(method, method.example_weights(batch), batch, dtype)


@pytest.mark.parametrize("method", LEARNING)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes_and_types_of_what_is_learned(method, dtype):
    method = prepared(method)
    batch = examples_of(method, dtype=dtype)
    gradient = tf.constant(np.random.default_rng(1).normal(size=batch.losses.shape), dtype)
    assert_weights(method, learn(method, batch, gradient), batch, dtype)


def assert_weights(method, weights, batch, dtype):
    assert weights.shape == batch.losses.shape
    assert weights.dtype == dtype
    assert np.isfinite(weights).all()
    assert method.label_weight(weights, batch).shape == (6,)


@pytest.mark.parametrize("method", WITH_FUNCTION)
def test_weight_function(method):
    method = prepared(method)
    for dtype in (tf.float32, tf.float64):
        weights = method.weight_function(tf.constant([0.0, 1.0, 2.0], dtype))
        groups = () if method.group_of_class is None else (method.group_of_class.max() + 1,)
        assert weights.shape == (3, *groups)
        assert weights.dtype == dtype
        assert ((weights.numpy() >= 0) & (weights.numpy() <= 1)).all()


@pytest.mark.parametrize("method", FIXED)
def test_weights_are_not_negative(method):
    made = prepared(method)
    batch = examples_of(made)
    made.observe(batch)
    weights = made.example_weights(batch).numpy()
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()


@every_method
def test_half_precision_logits_give_full_precision_losses(method):
    method = prepared(method)
    batch = examples_of(method, dtype="float16")
    assert batch.losses.dtype == tf.float32
    weights = method.example_weights(batch)
    assert weights.dtype == tf.float32
    np.testing.assert_allclose(
        weights, method.example_weights(examples_of(method)), rtol=2e-2, atol=2e-3
    )


@pytest.mark.parametrize("method", WITH_META_BATCHES)
def test_zero_gradient(method):
    """Where the meta set says nothing, the weights stay, and those of l2rw are all zero."""
    method = prepared(method)
    batch = examples_of(method)
    before = method.example_weights(batch)
    after = learn(method, batch, tf.zeros_like(batch.losses))
    assert np.isfinite(after).all()
    np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("method", SUM_TO_ONE)
def test_weights_that_sum_to_one(method):
    method = prepared(method)
    batch = examples_of(method)
    np.testing.assert_allclose(tf.reduce_sum(method.example_weights(batch)), 1, rtol=1e-5)


@every_method
@pytest.mark.parametrize("labels", NARROW, ids=["one_example", "one_class"])
def test_narrow_batches(method, labels):
    method = prepared(method)
    batch = examples_of(method, labels)
    method.observe(batch)
    assert np.isfinite(method.example_weights(batch)).all()


@pytest.mark.parametrize("method", LEARNING)
@pytest.mark.parametrize("labels", NARROW, ids=["one_example", "one_class"])
def test_learning_from_narrow_batches(method, labels):
    method = prepared(method)
    batch = examples_of(method, labels)
    method.observe(batch)
    assert np.isfinite(learn(method, batch, 0.1 * tf.ones_like(batch.losses))).all()


@pytest.mark.parametrize("method", WITH_REQUIRED_ARGUMENTS)
def test_missing_arguments_are_named(method):
    missing = quoted(required_arguments(method))
    with pytest.raises(UserError, match=re.escape(f"method '{method}' lacks {missing}; allowed")):
        methods.get(method)


@every_method
def test_docstrings_name_the_source_and_what_departs_from_it(method):
    text = inspect.getdoc(methods.METHODS[method])
    for part in ("Source: ", "Departures", "Args:", "Examples:\n    >>> "):
        assert part in text, part
