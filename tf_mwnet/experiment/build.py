"""Builds the parts of a run from its configuration: method, optimizers, classifier, model."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import methods, networks, optimizers
from tf_mwnet.config import Experiment
from tf_mwnet.data.streams import Augmentation, Views
from tf_mwnet.errors import UserError, choose
from tf_mwnet.experiment import rates
from tf_mwnet.model import meta_scope
from tf_mwnet.model.meta_draws import MetaDraws
from tf_mwnet.model.reweighted import ReweightedModel
from tf_mwnet.types import DataSpec, Splits

PAD = 4  # pixels, of a random crop
AT_ONCE = 32  # steps
AT_MOST = 128  # steps at once, where they divide an epoch
EMPTY: Mapping[str, Any] = MappingProxyType({})

# Makes a fresh, built classifier.
Maker = Callable[[DataSpec], keras.Model]


# -------------------------------------------------------------------- what a run tells a method


def clean_share(config: Experiment, splits: Splits, make: Maker) -> tuple[float, ...]:
    """Returns the share of correct labels per given class, ``[K]``; 1 for a class without examples.

    Raises:
        UserError: the true labels are not known.
    """
    if not splits.truth_known:
        raise UserError(
            "the true labels are not known, and the method weights by them; allowed: data with true"
            " labels, or noise put in"
        )
    train, count = splits.train, splits.spec.num_classes
    given = np.bincount(train.y, minlength=count)
    right = np.bincount(train.y[~splits.corrupted], minlength=count)
    return tuple(np.where(given > 0, right / np.maximum(given, 1), 1.0).tolist())


def class_sizes(config: Experiment, splits: Splits, make: Maker) -> tuple[int, ...]:
    """Counts the training examples of each class as labelled, ``[K]``."""
    return tuple(np.bincount(splits.train.y, minlength=splits.spec.num_classes).tolist())


def wrong_share(config: Experiment, splits: Splits, make: Maker) -> float:
    """Returns the noise rate that was put in, or 0.2 without noise."""
    return config.noise_rate or 0.2


def peer(config: Experiment, splits: Splits, make: Maker) -> keras.Model:
    """Makes a second classifier whose initial values are those of the first in another order.

    In a network that may start from pre-trained weights only the last layer's values are reordered.
    """
    other, rng = make(splits.spec), np.random.default_rng(config.seed)
    pretrained = config.network in networks.PRETRAINED
    for variable in other.layers[-1].trainable_variables if pretrained else other.trainable_variables:
        values = variable.numpy()
        variable.assign(rng.permutation(values.reshape(-1)).reshape(values.shape))
    return other


# Constructor arguments of methods (`Method.from_run`) that are computed from the data.
FROM_DATA: dict[str, Callable[[Experiment, Splits, Maker], Any]] = {
    "num_examples": lambda config, splits, make: len(splits.train),
    "num_untrusted": lambda config, splits, make: len(splits.train),
    "num_trusted": lambda config, splits, make: 0 if splits.meta is None else len(splits.meta),
    "num_classes": lambda config, splits, make: splits.spec.num_classes,
    "class_sizes": class_sizes,
    "clean_share": clean_share,
    "wrong_share": wrong_share,
    "forget_rate": wrong_share,
    "peer": peer,
}


# -------------------------------------------------------------------- classifier and method


def classifier_maker(config: Experiment, classifier: Maker | None = None) -> Maker:
    """Returns a maker of fresh classifiers: the given one, seeded, or the configuration's network."""
    if classifier is None:
        return functools.partial(build_classifier, config)
    return functools.partial(_seeded, classifier, config.seed)


def _seeded(make: Maker, seed: int, spec: DataSpec) -> keras.Model:
    """Calls ``make`` with the global generators at the start of ``seed``, then restores them.

    Layers without a seed then get the same initial values and dropout each time.
    """
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    keras.utils.set_random_seed(seed)
    try:
        return make(spec)
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


def build_classifier(config: Experiment, spec: DataSpec) -> keras.Model:
    """Builds the configuration's network for the data."""
    arguments: dict[str, Any] = {"dropout": config.dropout} if config.network == "wrn28_10" else {}
    takes = inspect.signature(choose("network", config.network, networks.NETWORKS)).parameters
    if config.sync_batch_norm and "synchronized" in takes:  # else there is no batch norm
        arguments["synchronized"] = True
    return networks.build(config.network, spec, seed=config.seed, **arguments)


def is_frozen(config: Experiment, name: str) -> bool:
    """Tells whether a weight function learned elsewhere replaces the method's own."""
    return bool(config.weight_net) and methods.METHODS[name].replaceable


def first_stage(config: Experiment, name: str) -> str:
    """Returns the name of the method to train first, see `Method.first_stage`; "" for none."""
    return methods.METHODS[name].first_stage(config.options_of(name))


def arguments_of(config: Experiment, name: str, splits: Splits, make: Maker) -> dict[str, Any]:
    """Collects a method's constructor arguments: from the run, the data, and the method's options."""
    kind = methods.METHODS[name]
    arguments = {
        argument: FROM_DATA[argument](config, splits, make)
        if argument in FROM_DATA
        else getattr(config, argument)
        for argument in kind.from_run
    }
    if kind.learns and config.meta_loss != "auto":
        arguments["meta_loss"] = config.meta_loss
    return arguments | config.options_of(name)


def make_method(
    config: Experiment, name: str, splits: Splits, make: Maker, estimated: Mapping[str, Any] = EMPTY
) -> methods.Method:
    """Makes a method from configuration, training set and first stage.

    Args:
        config: the run's.
        name: in `methods.METHODS`.
        splits: the data.
        make: makes a fresh classifier.
        estimated: what `Method.estimate` returned after the first stage.
    """
    if is_frozen(config, name):
        sizes = class_sizes(config, splits, make)
        replay = config.weight_net_replay
        loss = config.options_of(name).get("loss", "cross_entropy")
        return methods.FrozenWeights(config.weight_net, replay=replay, class_sizes=sizes, loss=loss)
    return methods.METHODS[name](**arguments_of(config, name, splits, make), **estimated)


# -------------------------------------------------------------------- schedule and model


def two_stages(config: Experiment) -> tuple[Experiment, Experiment]:
    """Returns a configuration for each of two stages of half the epochs, with the whole schedule."""
    first = max(1, config.epochs // 2)

    def stage(epochs: int) -> Experiment:
        share = epochs / config.epochs
        drops = tuple(max(1, round(drop * share)) for drop in config.lr_drops)
        return dataclasses.replace(config, epochs=epochs, lr_drops=drops)

    return stage(first), stage(max(1, config.epochs - first))


def make_optimizers(
    config: Experiment, name: str, plain_epochs: int = 0
) -> tuple[keras.optimizers.Optimizer, keras.optimizers.Optimizer]:
    """Makes the optimizers of the classifier and of what the method learns.

    Args:
        config: resolved, of a run.
        name: the method's.
        plain_epochs: first epochs in which the method learns nothing.
    """
    sgd = functools.partial(optimizers.SGD, momentum=config.momentum, nesterov=config.nesterov)
    rate = rates.of_classifier(config)
    classifier: keras.optimizers.Optimizer
    if config.optimizer == "adamw":
        classifier = keras.optimizers.AdamW(rate, weight_decay=config.l2, epsilon=1e-8)
    elif config.optimizer == "adam":
        classifier = optimizers.Adam(rate, l2=config.l2)
    else:
        classifier = sgd(rate, l2=config.l2)
    kind = methods.METHODS[name]
    averaged = config.meta_ema > 0 and meta_scope.learns_as_usual(kind)
    later = rates.learning_later(config, plain_epochs * config.steps_per_epoch)
    meta_rate = rates.of_weights(later, config.meta_lr or kind.meta_lr, averaged)
    if config.meta_optimizer == "sgd":
        return classifier, sgd(meta_rate, l2=config.meta_l2)
    amsgrad = config.meta_optimizer == "amsgrad"
    return classifier, optimizers.Adam(meta_rate, l2=config.meta_l2, amsgrad=amsgrad)


def check_sizes(config: Experiment, splits: Splits, replicas: int) -> None:
    """Raises ``UserError`` if a replica would get no example: batch norm could average over none."""
    sizes = {"batch_size": config.batch_size, "meta_batch_size": config.meta_batch_size}
    for name, size in sizes.items():
        if size < replicas:
            raise UserError(f"{name} is {size} with {replicas} replicas; allowed: at least {replicas}")
    for size, batch in sorted(_passes(config, splits)):
        last = size % batch or batch
        if last < replicas:
            raise UserError(
                f"replicas is {replicas}, more than the last batch of a pass of {size} examples, {last};"
                f" allowed: at most {last}, or another batch_size"
            )


def _passes(config: Experiment, splits: Splits) -> set[tuple[int, int]]:
    """Returns the sizes of what is passed over in batches, and of the batches."""
    train, meta = len(splits.train), 0 if splits.meta is None else len(splits.meta)
    sizes = {"train": train, "meta": meta or train, "both": train + meta}
    found = {(meta, config.batch_size)} if config.then_fine_tune and meta else set()
    for name in config.methods:
        for kind in (methods.METHODS.get(first_stage(config, name)), methods.METHODS[name]):
            if kind is not None and not kind.sampling.balanced:
                sets = {kind.trains_on} | ({"train"} if config.then_unfreeze else set())
                found |= {(sizes[part], config.batch_size * kind.sampling.batch_factor) for part in sets}
    return found


def check_draws(method: methods.Method, splits: Splits, replicas: int) -> None:
    """Raises ``UserError`` if a replica would get no example of a meta set that the method draws."""
    if method.draws_meta and (size := len(MetaDraws(method, splits.train.y).rows)) < replicas:
        raise UserError(
            f"{type(method).__name__} draws a meta set of {size} examples with {replicas} replicas;"
            f" allowed: at least {replicas}"
        )


def make_augmentation(config: Experiment, splits: Splits) -> Augmentation | Views | None:
    """Makes the configuration's augmentation of training images, or of features with several views."""
    if splits.train.x.ndim > len(splits.spec.shape) + 1:
        return Views()
    if config.augment == "none":
        return None
    return Augmentation(PAD if "crop" in config.augment else 0, "flip" in config.augment)


def cheaper(config: Experiment, method: methods.Method) -> dict[str, Any]:
    """Returns the arguments of `ReweightedModel.compile` about cheaper meta gradients, for a method.

    With ``speed="fast"`` a method that keeps nothing from one step to the next has the meta gradient of
    every step, and one whose weights belong to their own step is not late and averages none.
    """
    exact = {"meta_scope": "all", "meta_every": 1, "meta_start": 0, "meta_warmup": 0}
    exact |= {"meta_late": False, "meta_ema": 0.0}
    if not method.learns:
        return exact
    if config.speed == "fast" and not method.trainable_variables:
        return exact | {"meta_scope": config.meta_scope}
    asked = {name: getattr(config, name) for name in exact}
    if config.speed == "fast" and not meta_scope.can_be_late(method):
        asked |= {"meta_late": False, "meta_ema": 0.0}
    return asked


def steps_at_once(config: Experiment, splits: Splits, cheaper: Mapping[str, Any]) -> int:
    """Returns how many steps one call of the train function takes.

    On vectors a step takes less time than the call; the results are the same. Elsewhere one, so that
    progress is shown and signals are heard; also under a strategy, the configuration's or the caller's.
    A number that divides the epoch's steps is preferred: other numbers need a new iterator for each
    epoch.
    """
    some = cheaper["meta_every"] > 1 or cheaper["meta_start"] > 0  # not all steps are alike
    one = len(splits.spec.shape) > 1 or some or config.jit_compile
    if one or tf.distribute.has_strategy():
        return 1
    steps = config.steps_per_epoch
    dividing = max(count for count in range(1, AT_MOST + 1) if steps % count == 0)
    return dividing if 2 * dividing >= min(AT_ONCE, steps) else min(AT_ONCE, steps)


def build_model(
    config: Experiment,
    splits: Splits,
    name: str,
    make: Maker,
    estimated: Mapping[str, Any] = EMPTY,
    own: Callable[[], methods.Method] | None = None,
) -> ReweightedModel:
    """Builds and compiles a model, with room for the record of examples.

    Args:
        config, splits, name, make, estimated: see `make_method`.
        own: makes another method instead.
    """
    method = make_method(config, name, splits, make, estimated) if own is None else own()
    classifier = make(splits.spec)
    if method.cosine_scale is not None:
        classifier = networks.with_cosine_head(classifier, method.cosine_scale, config.seed)
    model = ReweightedModel(classifier, method, name=f"reweighted_{name}")
    optimizer, meta_optimizer = make_optimizers(config, name, method.plain_epochs(config.epochs))
    cheap = cheaper(config, method)
    model.compile(
        optimizer, meta_optimizer, jit_compile=config.jit_compile,
        steps_per_execution=steps_at_once(config, splits, cheap),
        mixup=config.mixup, meta_mixup=config.meta_mixup, mixup_seed=config.seed,
        label_smoothing=config.label_smoothing, grad_clip=config.grad_clip, ema=config.ema, **cheap,
    )  # fmt: skip
    model.record_examples(len(splits.seen_by(method.trains_on).train))
    return model
