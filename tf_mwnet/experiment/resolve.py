"""The data of a run, found, biased and split; and what "auto" stands for in its configuration."""

from __future__ import annotations

import dataclasses

from absl import logging

from tf_mwnet import data, methods, networks
from tf_mwnet.config import DEFAULTS, Experiment
from tf_mwnet.errors import UserError
from tf_mwnet.methods import options
from tf_mwnet.model import meta_scope
from tf_mwnet.types import Source, Splits


def resolve_bias(config: Experiment, source: Source) -> Experiment:
    """Replaces what is "auto" in noise, method and labels of the meta set.

    The digits are clean and get some noise; other data stays as it is. Where nothing is known to be
    clean (your own data without a meta set, true labels or noise put in on purpose), the method is
    the one that is made for a noisy meta set.
    """
    if source.bias is not None:
        config = _take_bias(config, source)
    noise = config.noise
    if noise == "auto":
        noise = "flip2" if source.name == "digits" else "none"
    clean = source.trusted or source.meta is not None or noise != "none"
    method = config.method
    if method == "auto":
        method = "mwnet" if clean or config.weight_net else "rmnw"
        if not clean and not config.weight_net:
            logging.info(
                "no label is known to be right: learning from a class-balanced sample of the training"
                " data with a loss that stands noise (method rmnw)"
            )
    meta_labels = config.meta_labels
    if meta_labels == "auto":
        meta_labels = methods.METHODS[method].meta_labels if clean else "noisy"
    elif meta_labels == "clean" and not clean:
        logging.warning("meta_labels is clean, but the data has no labels that are known to be right")
    return dataclasses.replace(
        config,
        noise=noise,
        noise_rate=0.0 if noise == "none" else config.noise_rate,
        method=method,
        meta_labels=meta_labels,
    )


def _take_bias(config: Experiment, source: Source) -> Experiment:
    """The configuration with what has been done to the source already; a meta_size of 0 leaves its
    meta set out.

    Raises:
        UserError: the configuration asks for something else.
    """
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
    """Replaces every other "auto", and 0, by what they stand for."""
    spec = splits.spec
    network = networks.default_network(spec) if config.network == "auto" else config.network
    rates = {m.meta_lr for m in map(methods.METHODS.get, config.methods) if m.learns}
    augment = config.augment
    if augment == "auto":
        augment = "crop_flip" if len(spec.shape) == 3 and spec.shape[-1] == 3 else "none"
    steps = config.steps_per_epoch or -(-len(splits.train) // config.batch_size)
    if config.speed == "fast":
        fast = meta_scope.FAST | {"meta_warmup": round(meta_scope.FAST_START * config.epochs * steps)}
        found = {k: v for k, v in fast.items() if getattr(config, k) == DEFAULTS[k]}
        config = dataclasses.replace(config, **found)
    return dataclasses.replace(
        config,
        network=network,
        augment=augment,
        meta_lr=config.meta_lr or (rates.pop() if len(rates) == 1 else 0.0),
        steps_per_epoch=steps,
        method_options={
            name: options.filled(methods.METHODS[name], config.options_of(name))
            for name in config.methods
        },
        meta_size=0 if splits.meta is None else len(splits.meta),
        meta_batch_size=min(config.meta_batch_size, config.meta_size or config.meta_batch_size),
    )


def bias_of(config: Experiment) -> data.BiasConfig:
    """The part of a configuration that says what is done to the data."""
    return data.BiasConfig(
        **{f.name: getattr(config, f.name) for f in dataclasses.fields(data.BiasConfig)}
    )


def find(config: Experiment, source: Source | None = None) -> tuple[Experiment, Source]:
    """The data of a run as it was found, and the configuration with what is "auto" in its bias.

    Args:
        config: what to do.
        source: data in memory in place of ``config.dataset``.

    Raises:
        UserError: the data can not be read, or does not fit.
    """
    source = source or data.load(
        config.dataset,
        config.data_dir,
        config.label_key,
        config.clean_label_key,
        config.resize,
        config.center_crop,
        config.cache,
        config.cache_dir,
    )
    return resolve_bias(config, source), source


def load(config: Experiment, source: Source | None = None) -> tuple[Experiment, Source, Splits]:
    """The data of a run: the resolved configuration, the source, and the splits made of it.

    Args:
        config: what to do, or what a run has resolved, which gives its splits again.
        source: data in memory in place of ``config.dataset``.

    Raises:
        UserError: something in the configuration or in the data does not fit.
    """
    config, source = find(config, source)
    bias = bias_of(config)
    if config.weight_net:
        bias = dataclasses.replace(bias, meta_size=0)
    splits = data.make_splits(source, bias)
    return resolve(config, splits), source, splits
