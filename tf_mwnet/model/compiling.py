"""Checks and converts what a user gives to ``compile`` and ``fit`` beside the data."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import keras
from absl import logging

from tf_mwnet.errors import UserError, check_range
from tf_mwnet.methods.base import Method


def metrics(given: Any) -> list[Any]:
    """Returns metrics as a list, also a single one."""
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def whole(name: str, value: Any, low: int = 0) -> int:
    """Returns a whole number; raises ``UserError`` for anything else, or one below ``low``."""
    try:
        number = operator.index(value)
    except TypeError:
        raise UserError(f"{name} is {value!r}; allowed: an integer") from None
    check_range(name, number, low, 2**63 - 1)
    return number


def callbacks(given: Any) -> list[keras.callbacks.Callback]:
    """Returns callbacks as a list, also a single one, or those of a `keras.callbacks.CallbackList`."""
    if given is None:
        return []
    if isinstance(given, keras.callbacks.CallbackList):
        return list(given.callbacks)
    return list(given) if isinstance(given, (list, tuple)) else [given]


def step_count(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """Returns what counts the training steps behind an optimizer, also of a wrapped one.

    With gradient accumulation its public ``iterations`` are updates, each after several steps.
    """
    return getattr(optimizer, "inner_optimizer", optimizer)._iterations


def steps_taken(optimizer: keras.optimizers.Optimizer) -> int:
    """Returns the number of training steps behind an optimizer; see `step_count`."""
    return int(step_count(optimizer).value.numpy())


def two_optimizers(optimizer: Any, meta_optimizer: Any) -> None:
    """Raises ``UserError`` if both roles have one optimizer, whose state they would share."""
    if optimizer is meta_optimizer and not isinstance(optimizer, str):
        raise UserError("optimizer and meta_optimizer are one object; allowed: two")


def check_learned(method: Method) -> None:
    """Raises ``UserError`` if a method that learns variables by the meta gradient has none to learn."""
    if method.learns and type(method).learn is Method.learn and not method.trainable_variables:
        raise UserError(
            f"{type(method).__name__} has no trainable variables; allowed: a weight net with some, or"
            " methods.FrozenWeights for a function that stays"
        )


def check_velocity(look_ahead: float, optimizer: keras.optimizers.Optimizer) -> None:
    """Raises ``UserError`` if a method looks ahead along a momentum that the optimizer does not have."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if look_ahead and not (hasattr(inner, "velocity_of") and inner.momentum):
        raise UserError(
            f"optimizer is {type(inner).__name__} with a method that looks ahead by its momentum;"
            " allowed: tf_mwnet.optimizers.SGD with momentum above 0, or the method with momentum 0"
        )


def plain_kernels(layers: Iterable[keras.Layer]) -> None:
    """Keeps recurrent layers from cuDNN's kernels, which have no second derivative.

    Raises:
        UserError: a layer demands them.
    """
    for layer in layers:
        wanted = getattr(layer, "use_cudnn", False)
        if wanted is True:
            raise UserError(
                f"layer '{layer.name}' has use_cudnn=True, whose kernel has no second derivative;"
                " allowed: False or 'auto', or a method that learns nothing (erm)"
            )
        if wanted == "auto":
            logging.info("layer '%s' does without cuDNN, which has no second derivative", layer.name)
            layer.use_cudnn = False


def all_layers(classifier: keras.Model) -> list[keras.Layer]:
    """Returns a model's layers and those in them."""
    out: list[keras.Layer] = []
    for layer in classifier.layers:
        inner = getattr(layer, "layer", None)  # of a wrapper, as Bidirectional or TimeDistributed
        parts = [getattr(layer, f"{k}_layer", None) for k in ("forward", "backward")]
        out += [layer, *(part for part in [inner, *parts] if isinstance(part, keras.Layer))]
        if isinstance(layer, keras.Model):
            out += all_layers(layer)
    return out


def check_trained(
    built_for: Collection[int], trained: Sequence[keras.Variable], names: Sequence[str]
) -> None:
    """Raises ``UserError`` if variables are trained that the optimizer does not know.

    Args:
        built_for: ids of the variables that the optimizer was built for.
        trained: the variables to train now.
        names: of layers, for the message.
    """
    if new := [v for v in trained if id(v) not in built_for]:
        places = new[0].path.split("/")
        layer = next((name for name in names if name in places), new[0].path)
        raise UserError(
            f"layer '{layer}' is trained since compile; allowed: compile again after a change of"
            " trainable"
        )
