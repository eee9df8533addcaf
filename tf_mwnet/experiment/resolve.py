"""Loads, biases and splits the data of a run, and resolves "auto" in its configuration."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from tf_mwnet import data, features, methods, networks, strategies
from tf_mwnet.config import DEFAULTS, Experiment
from tf_mwnet.data import texts
from tf_mwnet.data.cache import KNOWN
from tf_mwnet.errors import UserError, choose
from tf_mwnet.experiment import choosing
from tf_mwnet.features import Backbone
from tf_mwnet.methods import options
from tf_mwnet.model import meta_scope
from tf_mwnet.networks.weight_function import version_folder
from tf_mwnet.types import Source, Splits

# Fields that `read` depends on: arguments of `data.load` and `features.load`, and of `embed`.
RAW = (
    "dataset", "data_dir", "label_key", "clean_label_key", "resize", "center_crop", "cache", "cache_dir",
    "resize_sides", "blank_images", "text_column",
)  # fmt: skip
BACKBONE = (
    "backbone", "backbone_size", "backbone_scaling", "backbone_pooling", "backbone_weights", "views",
    "precision",
)  # fmt: skip
STORED = ("features", "feature_dtype")
LONG_TAIL_RATE = 0.1  # of a weight net's own learning rate


def _values(config: Experiment, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


def resolve_bias(config: Experiment, source: Source) -> Experiment:
    """Resolves "auto" in noise, method and labels of the meta set.

    The digits are clean and get noise; other data is left unchanged. The method is that of
    `choosing.choose_method`.
    """
    config = _take_bias(config, source)
    clean, known = _labels_known(config, source)
    if config.meta_labels == "clean" and not known:
        logging.warning("meta_labels is clean, but the data has no labels that are known to be right")
    ratio = choosing.imbalance(config, source)
    return with_bias(config, source.built_in, clean, ratio, source.train.raw is not None)


def _labels_known(config: Experiment, source: Source) -> tuple[bool, bool]:
    """Tells whether labels are known to be right before noise is added, and whether any are then."""
    clean = source.trusted or source.meta is not None
    return clean, clean or config.noise not in ("none", "auto") or source.built_in


def log_method(config: Experiment, source: Source) -> None:
    """Says why the method of a resolved configuration was chosen."""
    _, known = _labels_known(config, source)
    ratio = choosing.imbalance(config, source)
    _, why = choosing.choose_method(known, config.noise != "none", ratio)
    logging.info("method %s: %s (docs/which_method.md)", config.method, why)


def with_bias(
    config: Experiment, digits: bool, clean: bool, ratio: float = 1.0, features: bool = False
) -> Experiment:
    """Resolves what depends on the kind of data: noise, method, labels of the meta set and meta_lr.

    With a linear head on features a weight net learns at a tenth of its rate for a long tail without
    added noise (docs/results.md), if that is one for all methods; the authors' code takes a hundredth
    for class imbalance.

    Args:
        config: the settings.
        digits: whether the data are the built-in digits.
        clean: whether the data has labels that are known to be right, before noise is added.
        ratio: see `choosing.imbalance`.
        features: whether the data are features; those that the settings name are.
    """
    noise = config.noise
    if noise == "auto":
        noise = "flip2" if digits else "none"
    clean = clean or noise != "none"
    method = config.method
    if method == "auto":
        method = choosing.choose_method(clean, noise != "none", ratio)[0]
        method = "mwnet" if config.weight_net else method
    meta_labels = config.meta_labels
    if meta_labels == "auto":
        meta_labels = methods.METHODS[method].meta_labels if clean else "noisy"
    config = dataclasses.replace(
        config,
        noise=noise,
        noise_rate=0.0 if noise == "none" else config.noise_rate,
        method=method,
        meta_labels=meta_labels,
    )
    features = features or bool(config.backbone or config.features)
    head = features and config.network in ("auto", "linear")
    if head and noise == "none" and ratio >= choosing.LONG_TAIL and not config.meta_lr:
        config = dataclasses.replace(config, meta_lr=LONG_TAIL_RATE * _own_rate(config))
    return config


def _own_rate(config: Experiment) -> float:
    """Returns the weight nets' learning rate by default; 0 if the methods have none, or not the same."""
    kinds = [methods.METHODS[name] for name in config.methods]
    rates = {kind.meta_lr for kind in kinds if kind.learns}
    return rates.pop() if len(rates) == 1 else 0.0


def _take_bias(config: Experiment, source: Source) -> Experiment:
    """Takes over what has been done to the source already; a meta_size of 0 leaves its meta set out.

    Raises:
        UserError: the configuration asks for something else.
    """
    if source.bias is None:
        return config
    apart = {"early_stopping"} | ({"meta_size"} if config.meta_size == 0 else set())
    taken = {k: v for k, v in source.bias.items() if k not in apart}
    for name, done in taken.items():
        asked = getattr(config, name)
        if asked not in (done, DEFAULTS[name], "auto"):
            raise UserError(
                f"{name} is {asked!r} with data that was biased before with {done!r}; allowed: the same"
            )
    return dataclasses.replace(config, **taken)


def resolve(config: Experiment, splits: Splits) -> Experiment:
    """Resolves every other "auto", and the zeros that stand for a default."""
    meta_size = 0 if splits.meta is None else len(splits.meta)
    if config.network == "auto" and splits.spec.raw_dtype:
        config = dataclasses.replace(config, network="linear")
    return with_sizes(config, splits.spec.shape, len(splits.train), meta_size)


def with_sizes(config: Experiment, shape: Sequence[int], train_size: int, meta_size: int) -> Experiment:
    """Resolves what depends on the shape of the inputs and the sizes of the sets.

    Args:
        config: the settings, see `with_bias`.
        shape: of one input.
        train_size, meta_size: number of examples.
    """
    network = config.network
    if network == "auto":
        network = "linear" if config.backbone or config.features else networks.network_for(shape)
    kinds = [methods.METHODS[name] for name in config.methods]
    augment = config.augment
    if augment == "auto":
        augment = "crop_flip" if len(shape) == 3 and shape[-1] == 3 else "none"
    steps = config.steps_per_epoch or -(-train_size // config.batch_size)
    if any(kind.learns for kind in kinds) and config.meta_start >= config.epochs * steps:
        raise UserError(
            f"meta_start is {config.meta_start} in a training of {config.epochs * steps} steps; allowed:"
            " fewer"
        )
    if config.speed == "fast":
        fast: dict[str, Any] = meta_scope.FAST | meta_scope.fast_steps(config.epochs * steps)
        if config.meta_scope != DEFAULTS["meta_scope"]:
            del fast["meta_late"]
        unset = {k: v for k, v in fast.items() if getattr(config, k) == DEFAULTS[k]}
        config = dataclasses.replace(config, **unset)
    return dataclasses.replace(
        config,
        network=network,
        augment=augment,
        meta_lr=config.meta_lr or _own_rate(config),
        steps_per_epoch=steps,
        method_options={
            name: options.filled(kind, config.options_of(name))
            for name, kind in zip(config.methods, kinds, strict=True)
        },
        meta_size=meta_size,
        meta_batch_size=min(config.meta_batch_size, meta_size or config.meta_batch_size),
    )


def bias_of(config: Experiment) -> data.BiasConfig:
    """Extracts the part of a configuration that says what is done to the data."""
    return data.BiasConfig(
        **{f.name: getattr(config, f.name) for f in dataclasses.fields(data.BiasConfig)}
    )


def find(config: Experiment, source: Source | None = None) -> tuple[Experiment, Source]:
    """Loads the data of a run, and resolves "auto" in the bias of its configuration; see `read`."""
    config, source = read(config, source)
    return resolve_bias(config, source), source


def read(config: Experiment, source: Source | None = None) -> tuple[Experiment, Source]:
    """Loads the data of a run, or its features; returns also the configuration with its image sizes.

    Args:
        config: the settings.
        source: data in memory instead of ``config.dataset``.

    Raises:
        UserError: the data cannot be read, or does not fit.
    """
    # Replicas share each batch of the embedding; workers share the data, see `features.storage`.
    mirrored = config.backbone and config.strategy == "mirrored"
    strategy = strategies.make("mirrored", config.replicas) if mirrored else None
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        backbone = backbone_of(config)
    images = config.dataset == "folder" and not texts.is_folder(config.data_dir or "")
    if backbone is not None and images and not (config.resize or config.center_crop):
        side = max(backbone.size)  # of images of any size and shape, the middle
        config = dataclasses.replace(config, resize=side, center_crop=side)
    if source is None:
        values = _values(config, RAW)
        if not_decoded_again(config):
            values["cache"] = KNOWN
        source = data.load(values.pop("dataset"), **values)
    if source.encoder is None:
        source = _with_features(config, source, backbone, strategy)
    return config, source


def not_decoded_again(config: Experiment) -> bool:
    """Tells whether the images of a folder are decoded only if they are new: a run takes features."""
    on_features = bool(config.backbone or config.features) and not config.then_unfreeze
    return config.dataset == "folder" and config.cache == "auto" and on_features


class LastData:
    """Keeps the data of the last run in a process, for a next run on the same data."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.source: Source | None = None

    def of(self, config: Experiment) -> Source:
        """Returns the data of a run; raises what `read` raises."""
        values = _values(config, (*RAW, *BACKBONE, *STORED, "then_unfreeze"))
        if self.source is None or values != self.values:
            self.source = None  # there is not always room for both
            self.source, self.values = read(config)[1], values
        return self.source


def backbone_of(config: Experiment) -> Backbone | None:
    """Loads the backbone of a configuration, with variables of its own; None without one."""
    if not config.backbone:
        return None
    values = _values(config, BACKBONE)
    backbone = values.pop("backbone")
    return features.load(backbone, **{key.removeprefix("backbone_"): v for key, v in values.items()})


def _with_features(
    config: Experiment,
    source: Source,
    backbone: Backbone | None,
    strategy: tf.distribute.Strategy | None,
) -> Source:
    if backbone is not None:
        folder = config.features or None
        return features.embed(source, backbone, folder, config.feature_dtype, strategy)
    if config.features:
        return features.given(source, config.features)
    return source


def _check_names(config: Experiment) -> None:
    """Checks, before data is loaded, what is looked up by its name afterwards."""
    if config.network != "auto":
        choose("network", config.network, networks.NETWORKS)
    data.bias.check_noise(config.noise)
    if config.weight_net:
        version_folder(config.weight_net)


def load(config: Experiment, source: Source | None = None) -> tuple[Experiment, Source, Splits]:
    """Loads the data of a run; returns the resolved configuration, the source, and the splits.

    Args:
        config: the settings, or those that a run has resolved, which give the same splits again.
        source: data in memory instead of ``config.dataset``.

    Raises:
        UserError: something in the configuration or in the data does not fit.
    """
    _check_names(config)
    config, source = find(config, source)
    if isinstance(source.train.x, texts.Texts):
        raise UserError(
            f"{source.name}: inputs are texts; allowed: with --backbone=keras_hub:<text preset>, or with"
            " --features"
        )
    bias = bias_of(config)
    if config.weight_net:
        bias = dataclasses.replace(bias, meta_size=0)
    try:
        splits = data.make_splits(source, bias, config.scaling)
    except UserError:
        needed = any(methods.METHODS[name].needs_meta for name in config.methods)
        if not bias.meta_size or needed or config.then_fine_tune:
            raise
        splits = data.make_splits(source, dataclasses.replace(bias, meta_size=0), config.scaling)
        logging.warning(
            "a meta set of %d examples does not fit; going on without one, since %s needs none",
            bias.meta_size, config.method,
        )  # fmt: skip
    return resolve(config, splits), source, splits
