"""Reads networks of every kind that a backbone can be."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet.errors import UserError, quoted
from tf_mwnet.features.scalings import of_application
from tf_mwnet.networks import litert

POOLINGS = ("none", "mean", "max", "first")
KINDS = (
    "keras_hub:<preset>, keras_app:<name>, a .keras or .tflite file, a SavedModel folder, or"
    " module:function"
)
RESCALE = ("Rescaling", "Normalization", "ImageConverter")


@dataclasses.dataclass(frozen=True)
class Network:
    """What the kinds of backbones have in common.

    Attributes:
        apply: from scaled images ``[b, h, w, 3]`` to outputs; of texts, from tokens, see `hub`.
        size: height and width, in pixels; of texts the number of tokens.
        fingerprint: of the weights.
        scaling, pooling: what "auto" stands for.
        module: what holds the variables, for an export; None where it cannot be part of a graph.
        own: the network's own preprocessing, from raw images or texts; None where it is a scaling.
        of_texts: whether it takes texts, ``[b]``, in place of images.
    """

    apply: Callable[[Any], Any]
    size: tuple[int, ...]
    fingerprint: str
    scaling: str = "signed"
    pooling: str = "none"
    module: Any = None
    own: Callable[[tf.Tensor], Any] | None = None
    of_texts: bool = False


def pooled(outputs: Any, pooling: str) -> tf.Tensor:
    """Returns features ``[b, D]`` of a map ``[b, h, w, C]``, of tokens ``[b, T, C]``, or of vectors.

    Args:
        outputs: of a network; of texts the tokens, and which of them are no padding, bool ``[b, T]``.
        pooling: "mean" or "max" over the places, "first" token, or "none".
    """
    if isinstance(outputs, tuple):
        outputs, kept = outputs
        if pooling in ("mean", "max"):
            return _pooled_tokens(tf.cast(outputs, tf.float32), kept[:, :, None], pooling)
    outputs = tf.convert_to_tensor(outputs)
    if pooling == "none" or outputs.shape.rank == 2:
        return outputs
    flat = tf.reshape(outputs, [tf.shape(outputs)[0], -1, outputs.shape[-1]])
    if pooling == "first":
        return flat[:, 0]
    return tf.reduce_max(flat, axis=1) if pooling == "max" else tf.reduce_mean(flat, axis=1)


def _pooled_tokens(tokens: tf.Tensor, kept: tf.Tensor, pooling: str) -> tf.Tensor:
    if pooling == "max":
        return tf.reduce_max(tf.where(kept, tokens, tokens.dtype.min), axis=1)
    kept = tf.cast(kept, tokens.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(tokens * kept, axis=1), tf.reduce_sum(kept, axis=1))


def read(backbone: Any, size: int, weights: str) -> tuple[str, Network]:
    """Reads a backbone; returns its name and the network. Arguments: see `backbones.load`."""
    if isinstance(backbone, keras.Model):
        return backbone.name, of_model(backbone.name, backbone, size)
    if callable(backbone):
        name = getattr(backbone, "__name__", "function")
        return name, of_model(name, backbone(), size)
    text = str(backbone)
    path = pathlib.Path(text).expanduser()
    kind, _, rest = text.partition(":")
    if kind == "keras_hub" and rest:
        from tf_mwnet.features.hub import network

        return pathlib.Path(rest).name, network(rest, size)
    if weights and kind != "keras_app":
        raise UserError(f"backbone_weights is set with '{text}'; allowed: with keras_app:<name>")
    if kind == "keras_app" and rest:
        return rest, _application(rest, size, weights)
    if path.suffix in (".keras", ".h5") and path.is_file():
        return path.stem, of_model(path.name, _loaded(path), size, _digest(path))
    if path.suffix == ".tflite" and path.is_file():
        return path.stem, _tflite(path, size)
    if (path / "saved_model.pb").is_file():
        return path.name, _saved_model(path, size)
    if path.exists() or "/" in text or path.suffix in (".keras", ".h5", ".tflite"):
        state = "is no network" if path.exists() else "is not there"
        raise UserError(f"backbone '{text}' {state}; allowed: {KINDS}")
    if rest:
        return rest, of_model(text, _from_function(kind, rest), size)
    raise UserError(f"backbone is '{text}'; allowed: {KINDS}")


def set_precision(network: Network, policy: str) -> None:
    """Gives the layers of a network a policy of Keras; one that is no Keras model keeps its own."""
    model = getattr(network.module, "model", network.module)
    for layer in model._flatten_layers() if isinstance(model, keras.Model) else ():
        layer.dtype_policy = policy


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _loaded(path: pathlib.Path) -> keras.Model:
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # damaged files and unknown layers raise many types
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"backbone '{path}' cannot be loaded ({reason}); allowed: a model that Keras saved"
        ) from error


def _from_function(module: str, name: str) -> Any:
    sys.path.insert(0, "")  # a module in the working folder, also for the console script
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"backbone '{module}:{name}' cannot be imported ({error}); allowed: {KINDS}"
        ) from error
    finally:
        sys.path.remove("")
    try:
        made = function()
    except Exception as error:  # of the user's code
        raise UserError(
            f"backbone '{module}:{name}' fails ({type(error).__name__}: {error}); allowed: a function"
            " without arguments that returns a keras.Model"
        ) from error
    if not isinstance(made, keras.Model):
        raise UserError(
            f"backbone '{module}:{name}' returns a {type(made).__name__}; allowed: a keras.Model"
        )
    return made


def of_model(name: str, model: keras.Model, size: int, fingerprint: str = "") -> Network:
    """Makes a network of a Keras model, built anew if it is for images of another size.

    Args:
        name: for messages.
        model: functional or Sequential, from images.
        size: side in pixels, or 0.
        fingerprint: of its file; "" to compute it from the values.
    """
    shape = getattr(model, "input_shape", None)
    if not (isinstance(shape, tuple) and len(shape) == 4 and shape[-1] == 3):
        raise UserError(f"backbone '{name}' takes {shape}; allowed: RGB images (None, H, W, 3)")
    height, width = (size, size) if size else shape[1:3]
    if height is None or width is None:
        raise UserError(f"backbone '{name}' takes images of any size; allowed: with --backbone_size")
    if (height, width) != shape[1:3] and shape[1:3] != (None, None):
        model = _resized_model(name, model, height)
    if not fingerprint:
        fingerprint = digest_of_weights(_without_names(model), model)
    scales = any(type(layer).__name__ in RESCALE for layer in model.layers)
    rank = len(model.output_shape)
    return Network(
        lambda x: model(x, training=False),
        (height, width),
        fingerprint,
        "pixels" if scales else "signed",
        "none" if rank == 2 else "mean",
        model,
    )


def digest_of_weights(about: str, model: keras.Model) -> str:
    """Returns a digest of a text about a model and of its weights, without states of random numbers."""
    digest = hashlib.sha256(about.encode())
    for variable in model.weights:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def _without_names(model: keras.Model) -> str:
    """Returns a model's configuration with numbers for the names of its layers, which Keras counts."""
    names: dict[str, str] = {}

    def mapped(value: Any) -> Any:
        if isinstance(value, dict):
            if isinstance(name := value.get("name"), str):
                names.setdefault(name, str(len(names)))
            return {k: mapped(v) for k, v in value.items()}
        if isinstance(value, list):
            return [mapped(v) for v in value]
        return names.get(value, value) if isinstance(value, str) else value

    content = json.loads(model.to_json())
    mapped(content)  # finds all names
    return json.dumps(mapped(content), sort_keys=True)


def _resized_model(name: str, model: keras.Model, size: int) -> keras.Model:
    try:
        other = keras.models.clone_model(model, input_tensors=keras.Input((size, size, 3)))
        other.set_weights(model.get_weights())
    except Exception as error:  # of layers that want the first size
        raise UserError(
            f"backbone '{name}' is for images of {model.input_shape[1:3]}, and cannot be built for"
            f" {size}x{size} ({' '.join(str(error).split())[:100]}); allowed: without --backbone_size"
        ) from error
    return other


def _application(name: str, size: int, weights: str) -> Network:
    classes = {n: c for n, c in vars(keras.applications).items() if callable(c) and n[0].isupper()}
    if name not in classes:
        close = difflib.get_close_matches(name, classes, n=3, cutoff=0.4)
        hint = f" (did you mean {quoted(close)}?)" if close else ""
        raise UserError(
            f"unknown network 'keras_app:{name}'{hint}; allowed: the {len(classes)} of"
            " keras.applications"
        )
    if not pathlib.Path(weights).is_file():
        raise UserError(
            f"backbone_weights is '{weights}' for keras_app:{name}; allowed: a file of weights without"
            " the top, as keras.applications has them"
        )
    shape = {"input_shape": (size, size, 3)} if size else {}
    try:
        model = classes[name](include_top=False, weights=None, pooling="avg", **shape)
        model.load_weights(weights)
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"backbone_weights '{weights}' do not fit keras_app:{name} ({reason}); allowed: its own"
        ) from error
    network = of_model(name, model, size or 224)
    return dataclasses.replace(network, scaling=of_application(name))


def _saved_model(path: pathlib.Path, size: int) -> Network:
    try:
        loaded = tf.saved_model.load(str(path))
        serve = loaded.signatures["serving_default"]
    except Exception as error:  # damaged files raise many types
        raise UserError(
            f"backbone '{path}' cannot be loaded; allowed: a SavedModel with serving_default"
        ) from error
    inputs = serve.structured_input_signature[1]
    (name, spec), *more = inputs.items()
    if more or spec.shape.rank != 4 or spec.shape[-1] != 3 or not spec.dtype.is_floating:
        shown = ", ".join(f"{n} {s.dtype.name}{s.shape}" for n, s in inputs.items())
        raise UserError(f"backbone '{path}' takes {shown}; allowed: one float image (None, H, W, 3)")
    height, width = (size, size) if size else (spec.shape[1], spec.shape[2])
    if height is None or width is None:
        raise UserError(f"backbone '{path}' takes images of any size; allowed: with --backbone_size")

    def apply(images: tf.Tensor) -> tf.Tensor:
        outputs = serve(**{name: tf.cast(images, spec.dtype)})
        return outputs.get("features", next(iter(outputs.values())))

    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(_digest(file).encode())
    rank = len(
        serve.structured_outputs.get("features", next(iter(serve.structured_outputs.values()))).shape
    )
    pooling = "none" if rank == 2 else "mean"
    return Network(apply, (height, width), digest.hexdigest(), "signed", pooling, loaded)


def _tflite(path: pathlib.Path, size: int) -> Network:
    try:
        interpreter = litert.interpreter(model_path=str(path))
        (takes,), gives = interpreter.get_input_details(), interpreter.get_output_details()
    except Exception as error:
        raise UserError(
            f"backbone '{path}' cannot be loaded ({error}); allowed: a .tflite file"
        ) from error
    shape = tuple(int(n) for n in takes["shape"])
    if len(shape) != 4 or shape[-1] != 3 or takes["dtype"] is not np.float32:
        raise UserError(
            f"backbone '{path}' takes {takes['dtype'].__name__}{shape}; allowed: float32 (1, H, W, 3)"
        )
    if size and size != shape[1]:
        raise UserError(f"backbone_size is {size} with '{path}' of {shape[1]}; allowed: its own size")

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(takes["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(takes["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(gives[0]["index"]).astype(np.float32)

    def apply(images: tf.Tensor) -> tf.Tensor:
        outputs = tf.numpy_function(run, [images], tf.float32)
        return tf.ensure_shape(outputs, [None, *(int(n) for n in gives[0]["shape"][1:])])

    rank = len(gives[0]["shape"])
    return Network(apply, shape[1:3], _digest(path), "signed", "none" if rank == 2 else "mean")
