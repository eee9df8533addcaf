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
        UserError: it is not built, does not return what ``from_logits`` says (judged by its outputs on
            random inputs), or has fewer than two classes or several outputs.
    """
    if not classifier.built:
        raise UserError(f"classifier '{classifier.name}' is not built; call it once on data")
    outputs = getattr(classifier, "outputs", None)  # a subclassed model has none
    if outputs and len(outputs) > 1:
        raise UserError(
            f"classifier '{classifier.name}' has {len(outputs)} outputs; allowed: one, as of"
            " keras.Model(classifier.inputs, classifier.outputs[0])"
        )
    num_classes = outputs[0].shape[-1] if outputs else None
    if num_classes is not None and num_classes < 2:
        raise UserError(
            f"classifier '{classifier.name}' has {num_classes} output; allowed: two or more, one per"
            " class (networks.SigmoidLogits makes two of one)"
        )
    ending = _ending(classifier)
    if from_logits and ending == "sigmoid":
        raise UserError(
            f"classifier '{classifier.name}' ends in sigmoid; allowed: logits, or pass from_logits=False"
        )
    if (probed := _probed(classifier)) is not None:
        check_outputs(classifier.name, probed, from_logits)
        ending = "softmax" if _are_probabilities(probed) else ending
    last = last_dense(classifier)
    features = None if last is None else int(last.kernel.shape[0])
    ending = "softmax" if from_logits else ending
    parameters = tuple((tuple(v.shape), v.dtype) for v in classifier.trainable_variables)
    return Head(classifier.name, num_classes, features, ending, parameters)


def check_outputs(name: str, outputs: np.ndarray, from_logits: bool) -> None:
    """Raises ``UserError`` if outputs ``[B, K]`` are not what ``from_logits`` says."""
    if from_logits and _are_probabilities(outputs):
        raise UserError(
            f"classifier '{name}' ends in softmax: its outputs are above 0 and sum to 1; allowed:"
            " logits, or pass from_logits=False"
        )
    if not from_logits and (outputs.min() < -1e-6 or outputs.max() > 1 + 1e-2):
        raise UserError(
            f"classifier '{name}' returns values from {outputs.min():.3g} to {outputs.max():.3g} with"
            " from_logits=False; allowed: probabilities, or from_logits=True"
        )


def _are_probabilities(outputs: np.ndarray) -> bool:
    exact = 1e-3 if outputs.dtype.itemsize >= 4 else 3e-2
    return bool((outputs >= 0).all() and (np.abs(outputs.astype(float).sum(axis=-1) - 1) < exact).all())


def _probed(classifier: keras.Model) -> np.ndarray | None:
    """Returns outputs on two random inputs; None if the inputs are not known, or are texts."""
    rng = np.random.default_rng(0)
    if not getattr(classifier, "inputs", None):
        return None

    def draw(tensor: keras.KerasTensor) -> np.ndarray:
        shape = [2, *(size or 32 for size in tensor.shape[1:])]
        if "float" in tensor.dtype:
            return rng.normal(size=shape).astype(np.float32)
        return rng.integers(0, 2, shape).astype(tensor.dtype)

    try:
        several = len(classifier.inputs) > 1
        drawn = keras.tree.map_structure(draw, classifier.input if several else classifier.inputs[0])
        outputs = keras.ops.convert_to_numpy(classifier(drawn, training=False))
    except Exception:  # of the user's layers, which may want other values
        return None
    return outputs if np.isfinite(outputs.astype(float)).all() else None


def inference(classifier: keras.Model) -> Callable[[tf.data.Dataset], np.ndarray]:
    """Returns a function from a dataset ``(x, y)`` to a classifier's outputs ``[N, K]``.

    It runs in this process alone, whatever strategy the classifier was built under.
    """
    forward = tf.function(lambda x: classifier(x, training=False), autograph=False)
    return lambda batches: np.concatenate([forward(x).numpy() for x, _ in batches])


def _ending(classifier: keras.Model) -> str:
    last = classifier.layers[-1] if classifier.layers else classifier  # one may have variables alone
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    name = getattr(getattr(last, "activation", None), "__name__", "")
    return name if name in ("softmax", "sigmoid") else type(last).__name__


def last_dense(classifier: keras.Model) -> keras.layers.Dense | None:
    """Returns the dense layer that a Sequential or functional model ends in, else None.

    Layers without weights may follow it, as activations, softmax and scalings do.
    """
    found = _last_dense(classifier)
    return found and found[0]


def _last_dense(classifier: keras.Model) -> tuple[keras.layers.Dense, keras.KerasTensor] | None:
    """Returns the layer of `last_dense` and its input ``[B, D]`` in this model, from its output back.

    A layer may also be part of other models, where it has other inputs.
    """
    if not getattr(classifier, "inputs", None):  # neither Sequential nor functional
        return None
    tensor = classifier.outputs[0]
    while (history := getattr(tensor, "_keras_history", None)) is not None:
        layer = history.operation
        given = layer._inbound_nodes[history.node_index].input_tensors
        if len(given) != 1 or len(given[0].shape) != 2:
            return None
        if isinstance(layer, keras.layers.Dense):
            return layer, given[0]
        if getattr(layer, "weights", None):
            return None
        tensor = given[0]
    return None


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
    found = _last_dense(classifier)
    if found is None:
        raise UserError(
            f"classifier '{classifier.name}' has no features; allowed: a Sequential or functional model"
            " that ends in a dense layer"
        )
    both = keras.Model(inputs, [classifier.outputs[0], found[1]])
    return lambda x, training: both(x, training=training)
