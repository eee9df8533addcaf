"""Inspects the last layers of a classifier, for the model and the methods."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet.errors import UserError
from tf_mwnet.types import Head


def inspect(classifier: keras.Model, from_logits: bool) -> Head:
    """Checks how a classifier ends, and describes it.

    Args:
        classifier: any Keras model ``x -> [B, K]``.
        from_logits: whether the user says that it returns logits.

    Raises:
        UserError: it is not built, ends in probabilities while ``from_logits`` is True, or has fewer
            than two outputs.
    """
    if not classifier.built:
        raise UserError(f"classifier '{classifier.name}' is not built; call it once on data")
    ending = _ending(classifier)
    if from_logits and ending in ("softmax", "sigmoid"):
        raise UserError(
            f"classifier '{classifier.name}' ends in {ending}; allowed: logits, or pass"
            " from_logits=False"
        )
    outputs = getattr(classifier, "outputs", None)  # a subclassed model has none
    num_classes = outputs[0].shape[-1] if outputs else None
    if num_classes is not None and num_classes < 2:
        raise UserError(
            f"classifier '{classifier.name}' has {num_classes} output; allowed: two or more, one per"
            " class (networks.SigmoidLogits makes two of one)"
        )
    last = last_dense(classifier)
    features = None if last is None else int(last.kernel.shape[0])
    ending = "softmax" if from_logits else ending
    parameters = tuple((tuple(v.shape), v.dtype) for v in classifier.trainable_variables)
    return Head(classifier.name, num_classes, features, ending, parameters)


def inference(classifier: keras.Model) -> Callable[[tf.data.Dataset], np.ndarray]:
    """Returns a function from a dataset ``(x, y)`` to a classifier's outputs ``[N, K]``.

    It runs in this process alone, whatever strategy the classifier was built under.
    """
    forward = tf.function(lambda x: classifier(x, training=False), autograph=False)
    return lambda batches: np.concatenate([forward(x).numpy() for x, _ in batches])


def _ending(classifier: keras.Model) -> str:
    last = classifier.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    name = getattr(getattr(last, "activation", None), "__name__", "")
    return name if name in ("softmax", "sigmoid") else type(last).__name__


def last_dense(classifier: keras.Model) -> keras.layers.Dense | None:
    """Returns the last dense layer of a Sequential or functional model that ends in one, else None."""
    if not getattr(classifier, "inputs", None):  # neither Sequential nor functional
        return None
    dense = [layer for layer in classifier.layers if isinstance(layer, keras.layers.Dense)]
    return dense[-1] if dense and len(dense[-1].input.shape) == 2 else None


def forward(classifier: keras.Model, features: bool) -> Callable:
    """Returns a function ``(x, training) -> (outputs [B, K], features [B, D] or None)``.

    The features are the input of the last dense layer. Layers and variables are the classifier's.

    Args:
        classifier: with features, one that `last_dense` finds such a layer in.
        features: whether they are needed.
    """
    if not features:
        return lambda x, training: (classifier(x, training=training), None)
    inputs = classifier.inputs[0] if len(classifier.inputs) == 1 else classifier.inputs
    last = last_dense(classifier)
    if last is None:
        raise UserError(
            f"classifier '{classifier.name}' has no features; allowed: a Sequential or functional model"
            " that ends in a dense layer"
        )
    both = keras.Model(inputs, [classifier.outputs[0], last.input])
    return lambda x, training: both(x, training=training)
