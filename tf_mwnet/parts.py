"""What a configuration stands for: method, optimizers, classifier, augmentation, model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tf_mwnet import methods, networks, optimizers
from tf_mwnet.config import Experiment
from tf_mwnet.data.streams import Augmentation
from tf_mwnet.errors import UserError
from tf_mwnet.model import ReweightedModel
from tf_mwnet.types import DataSpec, Splits

PAD = 4


def clean_share(splits: Splits) -> tuple[float, ...]:
    """Share of right labels among those given, per class, ``[K]``; 1 for a class that is not given.

    Raises:
        UserError: the true labels are not known.
    """
    if not splits.truth_known:
        raise UserError("the method needs the true labels, which this data has not; allowed: data with")
    train, count = splits.train, splits.spec.num_classes
    given = np.bincount(train.y, minlength=count)
    right = np.bincount(train.y[~splits.corrupted], minlength=count)
    return tuple(np.where(given > 0, right / np.maximum(given, 1), 1.0).tolist())


def class_sizes(splits: Splits) -> tuple[int, ...]:
    """Training examples of each class, as labelled, ``[K]``."""
    return tuple(np.bincount(splits.train.y, minlength=splits.spec.num_classes).tolist())


# What methods may ask to be told of the training set, by the names of their constructor arguments.
FACTS: dict[str, Callable[[Splits], Any]] = {
    "num_examples": lambda splits: len(splits.train),
    "class_sizes": class_sizes,
    "clean_share": clean_share,
}


def make_method(config: Experiment, name: str, splits: Splits) -> methods.Method:
    """The method with the arguments that the configuration and the training set have for it."""
    kind = methods.METHODS[name]
    if config.weight_net and issubclass(kind, methods.MWNet):
        return methods.FrozenWeights(config.weight_net, class_sizes=class_sizes(splits))
    arguments = {
        name: FACTS[name](splits) if name in FACTS else getattr(config, name) for name in kind.options
    }
    if kind.learns and config.meta_loss != "auto":
        arguments["meta_loss"] = config.meta_loss
    return kind(**arguments)


def make_optimizers(config: Experiment, name: str):
    """Optimizers of the classifier and of what the method learns."""
    meta_lr = config.meta_lr or methods.METHODS[name].meta_lr
    total = config.epochs * config.steps_per_epoch
    rate: Any = config.lr
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(config.lr, total)
    elif drops := sorted(d for d in config.lr_drops if d < config.epochs):
        # A boundary is the last step with the old value.
        boundaries = [d * config.steps_per_epoch - 1 for d in drops]
        values = [config.lr / 10**i for i in range(len(drops) + 1)]
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
    classifier = optimizers.SGD(rate, momentum=config.momentum, l2=config.l2)
    if config.meta_optimizer == "adam":
        return classifier, optimizers.Adam(meta_lr, l2=config.meta_l2)
    return classifier, optimizers.SGD(meta_lr, momentum=config.momentum, l2=config.meta_l2)


def make_augmentation(config: Experiment) -> Augmentation | None:
    if config.augment == "none":
        return None
    return Augmentation(PAD if "crop" in config.augment else 0, "flip" in config.augment)


def build_classifier(config: Experiment, spec: DataSpec) -> keras.Model:
    arguments = {"dropout": config.dropout} if config.network == "wrn28_10" else {}
    return networks.build(config.network, spec, seed=config.seed, **arguments)


def build_model(config: Experiment, splits: Splits, name: str, classifier=None) -> ReweightedModel:
    """A compiled model with room for the record of the training examples."""
    classifier = classifier or build_classifier(config, splits.spec)
    model = ReweightedModel(classifier, make_method(config, name, splits), name=f"reweighted_{name}")
    model.compile(*make_optimizers(config, name), jit_compile=config.jit_compile)
    model.record_examples(len(splits.train))
    return model
