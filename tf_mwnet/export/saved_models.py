"""Exports the weight function and the classifier as SavedModels with model cards."""

from __future__ import annotations

import json
import os
import pathlib
import platform
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet.data.streams import normalise
from tf_mwnet.errors import UserError
from tf_mwnet.files import new_folder
from tf_mwnet.model import classifier_head
from tf_mwnet.networks.course import Course
from tf_mwnet.networks.weight_function import CARD
from tf_mwnet.types import DataSpec


def library_versions() -> dict[str, str]:
    """Returns the versions of the libraries that a result depends on."""
    from tf_mwnet import __version__

    return {
        "tf_mwnet": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _save(
    module: tf.Module, path: str | pathlib.Path, card: dict[str, Any], **signatures: Callable[..., Any]
) -> pathlib.Path:
    path = pathlib.Path(path)
    if path.exists():
        raise UserError(f"'{path}' is there already; allowed: a version that is not")
    if not path.name.isdigit():
        raise UserError(f"'{path}' does not end in a version; allowed: <name>/<version number>")
    # Renamed at the end: a server that watches the folder never sees a partial version.
    with new_folder(path) as temporary:
        tf.saved_model.save(module, str(temporary), signatures=signatures)
        (temporary / CARD).write_text(json.dumps(card, indent=2) + "\n", "utf-8")
    return path


def export_weight_net(
    weight_net: keras.Model,
    path: str | pathlib.Path,
    card: dict[str, Any],
    course: Course | None = None,
) -> pathlib.Path:
    """Writes a weight function as a SavedModel that plain TensorFlow can load and serve.

    ``serving_default`` maps ``loss`` float32 ``[batch, 1]`` to ``weight`` float32 ``[batch, 1]``,
    the unnormalised weight, 0 to 1. A net with G groups of classes returns ``[batch, G]``, the group of
    the smallest classes first. With a course there is also the signature ``at_progress``, which takes
    ``progress`` float32 ``[batch, 1]``, 0 to 1, and the loss.

    Args:
        weight_net: Keras model ``[B, 1] -> [B, 1]``, or ``[B, G]``.
        path: ``<name>/<version number>``, the layout of TensorFlow Serving.
        card: content of ``model_card.json``; "normalised" says how the weights are used.
        course: of the function over its training, which another training can follow.

    Raises:
        UserError: ``path`` exists, or does not end in a number.

    Examples:
        >>> net = model.method.weight_net  # of a trained `ReweightedModel`
        >>> tf_mwnet.export.export_weight_net(net, "saved_models/mine/1", {"normalised": True})
    """
    module = tf.Module()
    module.parameters = [v.value for v in weight_net.variables]
    dtype = weight_net.variables[0].dtype

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="loss")])
    def weigh(loss: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"weight": tf.cast(weight_net(tf.cast(loss, dtype)), tf.float32)}

    if course is None:
        return _save(module, path, card, serving_default=weigh)
    module.course = course
    column = tf.TensorSpec([None, 1], tf.float32)

    @tf.function
    def weigh_at(loss: tf.Tensor, progress: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"weight": course(loss, progress)}

    at_progress = weigh_at.get_concrete_function(loss=column, progress=column)
    return _save(module, path, card, serving_default=weigh, at_progress=at_progress)


def export_classifier(
    classifier: keras.Model, spec: DataSpec, path: str | pathlib.Path, card: dict[str, Any]
) -> pathlib.Path:
    """Writes a classifier with its preprocessing as a SavedModel.

    ``serving_default`` maps ``image`` ``[batch, H, W, C]``, raw pixels in the type and range of the
    data, or ``text`` ``[batch]`` to ``probabilities`` float32 ``[batch, K]``; ``hidden`` maps it to
    ``hidden`` float32 ``[batch, D]``, the inputs of the last dense layer, if there is one. Of a
    classifier on features, the backbone is part of it, and ``from_features`` maps ``features``
    float32 ``[batch, D]`` to the same. Without a backbone, or with one that cannot be part of a graph
    (TensorFlow Lite), this is the only signature, ``serving_default``.

    Args:
        classifier: Keras model from normalised images to logits.
        spec: shape, type, mean and deviation.
        path, card: as for `export_weight_net`.

    Raises:
        UserError: ``path`` exists, or does not end in a number.
    """
    module = tf.Module()
    module.parameters = [v.value for v in classifier.variables]

    def probabilities(x: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = classifier(normalise(x, spec), training=False)
        return {"probabilities": tf.nn.softmax(tf.cast(logits, tf.float32))}

    @tf.function(input_signature=[tf.TensorSpec([None, *spec.shape], spec.dtype, name="features")])
    def from_features(features: tf.Tensor) -> dict[str, tf.Tensor]:
        return probabilities(features)

    on_features, what = bool(spec.raw_dtype), "text" if spec.raw_dtype == "string" else "image"
    if on_features and (spec.encoder is None or spec.encoder.network.module is None):
        return _save(module, path, card, serving_default=from_features)
    shape, dtype = (spec.raw_shape, spec.raw_dtype) if on_features else (spec.shape, spec.dtype)

    @tf.function(input_signature=[tf.TensorSpec([None, *shape], dtype, name=what)])
    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return probabilities(spec.encoder(image) if on_features else image)

    if not on_features:
        further = {}
        if classifier_head.last_dense(classifier) is not None:
            forward = classifier_head.forward(classifier, features=True)

            @tf.function(input_signature=[tf.TensorSpec([None, *shape], dtype, name="image")])
            def hidden(image: tf.Tensor) -> dict[str, tf.Tensor]:
                return {"hidden": tf.cast(forward(normalise(image, spec), False)[1], tf.float32)}

            further["hidden"] = hidden
        return _save(module, path, card, serving_default=classify, **further)
    module.backbone = spec.encoder.network.module
    return _save(module, path, card, serving_default=classify, from_features=from_features)


def without_folders(value: Any, parts: int = 1) -> Any:
    """Returns the last parts of a path, for files that others read; any other value as it is."""
    if not isinstance(value, str) or os.sep not in value:
        return value
    return os.sep.join(pathlib.Path(value).parts[-parts:])


def _origin(path: str) -> str:
    """Returns the end of a weight net's path: of a run's the run, else the name; a version stays."""
    parts = pathlib.Path(path).parts
    version = bool(parts) and parts[-1].isdecimal()
    of_run = parts[: len(parts) - version][-2:] == ("saved_models", "weight_net")
    return without_folders(path, (4 if of_run else 1) + version)


def model_card(
    config: dict[str, Any],
    spec: DataSpec,
    summary: dict[str, Any],
    losses: np.ndarray,
    what: str,
    group_of_class: np.ndarray | None = None,
) -> dict[str, Any]:
    """Describes an exported file for its users.

    Args:
        config: the resolved configuration; "normalise" is None if the method has no such choice.
        spec: the data.
        summary: of the run's test accuracy, see `figures.tables.summary`.
        losses: losses of the training examples in the last epoch, ``[N]``.
        what: "weight_net" or "classifier".
        group_of_class: see `Method`.
    """
    seen = losses[np.isfinite(losses)].astype(float)
    bias = ("noise", "noise_rate", "background_class", "imbalance_factor", "class_counts", "train_size",
            "classes", "meta_size", "meta_labels", "meta_balance")  # fmt: skip
    schedule = ("epochs", "steps_per_epoch", "batch_size", "meta_batch_size", "lr", "schedule",
                "lr_drops", "momentum", "nesterov", "l2", "meta_optimizer", "meta_lr", "meta_l2",
                "meta_schedule", "precision", "augment")  # fmt: skip
    measures = ("last", "mean_last_5", "best", "best_epoch")
    own = config["method_options"].get(config["method"], {})
    loss = own.get("loss", "cross_entropy").replace("_", "-")
    return {
        "what": what,
        "method": config["method"],
        "data_set": spec.name,
        "classes": list(spec.class_names),
        "bias": {k: without_folders(config[k]) for k in bias},
        "seeds": {k: config[k] for k in ("data_seed", "noise_seed", "seed")},
        "network": config["network"],
        "hidden": list(config["hidden"]),
        "group_of_class": None if group_of_class is None else group_of_class.tolist(),
        "transferred_from": _origin(config["weight_net"]) or None,
        "schedule": {k: config[k] for k in schedule},
        "normalised": config["normalise"],
        "loss": f"{loss} in nats, of the example's given label, in the training pass",
        "loss_range_seen": {
            "min": float(seen.min()),
            "quantile_01": float(np.quantile(seen, 0.01)),
            "quantile_99": float(np.quantile(seen, 0.99)),
            "max": float(seen.max()),
        },
        "test_accuracy": {k: summary[k] for k in measures if k in summary},
        "versions": library_versions(),
    }
