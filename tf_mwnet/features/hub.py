"""Backbones of images and of texts from Keras Hub's presets (extra ``hub``)."""

from __future__ import annotations

import difflib
import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from tf_mwnet.errors import UserError, quoted
from tf_mwnet.features.kinds import Network, digest_of_weights


def _library() -> Any:
    try:
        import keras_hub
    except ImportError:
        raise UserError(
            "backbone is of keras_hub, which is not installed; allowed: pip install 'tf-mwnet[hub]'"
        ) from None
    return keras_hub


def _presets(hub: Any) -> dict[str, Any]:
    """Returns the built-in presets of all backbones: name -> class."""
    found: dict[str, Any] = {}
    for name, kind in sorted(vars(hub.models).items()):
        if name.endswith("Backbone"):
            found |= {preset: kind for preset in getattr(kind, "presets", {})}
    return found


def _from_preset(hub: Any, preset: str) -> Any:
    try:
        return hub.models.Backbone.from_preset(preset)
    except UserError:
        raise
    except Exception as error:  # of a download, of a damaged folder, of an unknown name
        known = _presets(hub)
        reason = " ".join(str(error).split())[:160]
        if preset in known:
            raise UserError(
                f"preset '{preset}' cannot be loaded ({reason}); allowed: with a network, or the folder"
                " of its files as keras_hub:<folder>, which save_to_preset(<folder>) writes"
            ) from error
        if pathlib.Path(preset).is_dir():
            raise UserError(
                f"preset folder '{preset}' cannot be loaded ({reason}); allowed: one that"
                " save_to_preset has written"
            ) from error
        close = difflib.get_close_matches(preset, known, n=3, cutoff=0.4)
        hint = f" (did you mean {quoted(close)}?)" if close else ""
        raise UserError(f"unknown preset '{preset}'{hint}; allowed: keras_hub's presets") from error


def network(preset: str, size: int) -> Network:
    """Reads the backbone of a preset; of CLIP and the like its vision encoder.

    Args:
        preset: name, or folder.
        size: side in pixels, or number of tokens; 0 for the preset's own.

    Raises:
        UserError: there is no such preset, it cannot be downloaded, or its backbone takes neither
            images nor texts.
    """
    hub = _library()
    backbone = _from_preset(hub, preset)
    model = getattr(backbone, "vision_encoder", None) or backbone
    if shapes := _image_shapes(model):
        return _image_network(hub, preset, size, model, shapes[0])
    given = getattr(model, "input", None)
    if isinstance(given, dict) and "token_ids" in given:
        return _text_network(hub, preset, size, model)
    raise UserError(
        f"preset '{preset}' is a {type(backbone).__name__}, which takes neither images nor tokens;"
        " allowed: an image or a text backbone"
    )


def _image_network(hub: Any, preset: str, size: int, model: Any, of: tuple[str, Any]) -> Network:
    key, shape = of
    converter = _converter(hub, preset)
    own = None if converter is None else getattr(converter, "image_size", None)
    height, width = (size, size) if size else (own or shape[1:3])
    if None in (height, width):
        raise UserError(f"preset '{preset}' takes images of any size; allowed: with --backbone_size")
    if None not in shape[1:3] and (height, width) != tuple(shape[1:3]):
        raise UserError(
            f"backbone_size is {size} with preset '{preset}' of {shape[1]}; allowed: its own size"
        )
    outputs = model(_inputs(model, key, tf.zeros([1, height, width, 3])), training=False)
    name, pooling = _output(outputs)

    def apply(images: tf.Tensor) -> tf.Tensor:
        made = model(_inputs(model, key, images), training=False)
        return made[name] if isinstance(made, dict) else made

    return Network(
        apply, (int(height), int(width)), _fingerprint(model), "signed", pooling, model,
        None if converter is None else _preprocessing(converter, int(height), int(width)),
    )  # fmt: skip


def _fingerprint(model: Any) -> str:
    return digest_of_weights(type(model).__name__, model)


class _TextModule(tf.Module):
    """A text backbone and its tokenizer, whose tables are part of an export."""

    def __init__(self, model: Any, preprocessor: Any) -> None:
        super().__init__()
        self.model, self.preprocessor = model, preprocessor


def _text_network(hub: Any, preset: str, size: int, model: Any) -> Network:
    """Makes a network of a text backbone: from tokens to ``[b, T, D]`` and which are no padding."""
    try:
        preprocessor = hub.models.TextClassifierPreprocessor.from_preset(preset)
    except Exception as error:  # the preset has no tokenizer, or one of another task
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"preset '{preset}' has no preprocessor of a text classifier ({reason}); allowed: a preset"
            " with one, as of BERT, RoBERTa, DeBERTa, DistilBERT, ALBERT or XLM-RoBERTa"
        ) from error
    longest = getattr(model, "max_sequence_length", None)
    if size and longest and size > longest:
        raise UserError(
            f"backbone_size is {size} with preset '{preset}'; allowed: 1 to {longest} tokens"
        )
    if size:
        preprocessor.sequence_length = size

    def apply(tokens: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        made = model(tokens, training=False)
        made = made["sequence_output"] if isinstance(made, dict) else made
        if "padding_mask" in tokens:
            return made, tf.cast(tokens["padding_mask"], tf.bool)
        return made, tf.ones(tf.shape(made)[:2], tf.bool)

    digest = hashlib.sha256(_fingerprint(model).encode())
    tokenizer = preprocessor.tokenizer
    options = {k: v for k, v in tokenizer.get_config().items() if k != "name"}
    digest.update(json.dumps([type(tokenizer).__name__, options], sort_keys=True, default=str).encode())
    digest.update("\n".join(map(str, tokenizer.get_vocabulary())).encode())
    return Network(
        apply, (int(preprocessor.sequence_length),), digest.hexdigest(), "signed", "mean",
        _TextModule(model, preprocessor), preprocessor, of_texts=True,
    )  # fmt: skip


def _image_shapes(model: Any) -> list[tuple[str, tuple[Any, ...]]]:
    given = getattr(model, "input", None)
    tensors = given if isinstance(given, dict) else {"": given}
    return [
        (name, tuple(t.shape))
        for name, t in tensors.items()
        if t is not None and len(getattr(t, "shape", ())) == 4 and t.shape[-1] == 3
    ]


def _inputs(model: Any, key: str, images: tf.Tensor) -> Any:
    return {key: images} if key else images


def _output(outputs: Any) -> tuple[str, str]:
    """Returns which output to take ("" for the only one), and how to pool it.

    Tokens of transformers are pooled by their first, the class token, where there is one.
    """
    if isinstance(outputs, dict):
        for name in ("pooled_output", "image_embeddings", "sequence_output"):
            if name in outputs:
                return name, "none" if outputs[name].shape.rank == 2 else "mean"
        name = list(outputs)[-1]
        return name, "none" if outputs[name].shape.rank == 2 else "mean"
    rank = len(outputs.shape)
    if rank == 2:
        return "", "none"
    tokens = int(outputs.shape[1])
    # With a class token their number is a square and one, or a few more (registers).
    square = int(np.sqrt(tokens))
    return "", "first" if rank == 3 and square * square != tokens else "mean"


def _converter(hub: Any, preset: str) -> Any:
    try:
        return hub.layers.ImageConverter.from_preset(preset)
    except Exception:  # the preset has none
        return None


def _preprocessing(converter: Any, height: int, width: int) -> Any:
    if getattr(converter, "image_size", None) not in (None, (height, width)):
        converter.image_size = (height, width)

    def prepare(images: tf.Tensor) -> tf.Tensor:
        images = tf.cast(images, tf.float32)
        if images.shape[-1] == 1:
            images = tf.repeat(images, 3, axis=-1)
        if getattr(converter, "image_size", None) is None:
            images = tf.image.resize(images, (height, width), antialias=True)
        return converter(images)

    return prepare
