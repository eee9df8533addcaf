"""Splits a source into disjoint training, meta and test sets, and adds the bias."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from absl import logging

from tf_mwnet.data import bias, checks, equal, meta_sets, scaling
from tf_mwnet.errors import UserError, check_range, choose, quoted
from tf_mwnet.types import LabelledSet, Source, Splits


@dataclasses.dataclass(frozen=True)
class BiasConfig:
    """The bias and the splits to make of a source, see `make_splits`.

    Examples:
        40 % of the labels flipped to one other class, and 100 trusted examples:

        >>> config = BiasConfig(noise="flip", noise_rate=0.4, meta_size=100)

        A long tail whose largest class has 100 times as many examples as the smallest:

        >>> config = BiasConfig(imbalance_factor=100, meta_size=100)

    Attributes:
        classes: names or indices of the classes to keep, in this order, see `class_numbers`; empty for
            all.
        noise: see `bias.transition_matrix`.
        noise_rate: p, 0 to 1.
        background_class: the class of "background", by name or by number after ``classes``; "" for one
            drawn at random.
        imbalance_factor: see `bias.long_tail_counts`; 1 for no imbalance.
        class_counts: training examples to keep of each class, instead of the factor; empty to keep all.
        train_size: training examples to keep, whatever their class; 0 to keep all.
        meta_size: examples in the meta set; 0 for no meta set.
        meta_labels: "clean" draws the meta set before imbalance and noise, with true labels. "noisy"
            draws it from the biased training set, with the given labels.
        meta_balance: "given": the meta set has equally many examples of each class as labelled; "true":
            of each true class, also with noisy labels, as RMNW-Net's code has it; "none": it is drawn
            at random, as L2RW's code has it.
        test_fraction: share of each class to hold out for testing if the source has no test set.
        early_stopping: training examples to hold out with their given labels; 0 for none.
        drop_duplicates: leave out training examples that equal one of the test or the clean meta set, or
            a training example with another label, and further copies; see `equal.without`.
        data_seed: seed of the splits and the imbalance, and of the noise unless ``noise_seed`` is set.
        noise_seed: seed of the noise alone; None for ``data_seed``.
    """

    classes: tuple[str, ...] = ()
    noise: str = "none"
    noise_rate: float = 0.0
    background_class: str = ""
    imbalance_factor: float = 1.0
    class_counts: tuple[int, ...] = ()
    train_size: int = 0
    meta_size: int = 0
    meta_labels: str = "clean"
    meta_balance: str = "given"
    test_fraction: float = 0.25
    early_stopping: int = 0
    drop_duplicates: bool = False
    data_seed: int = 0
    noise_seed: int | None = None


def class_numbers(
    class_names: tuple[str, ...], asked: Sequence[object], kind: str = "class"
) -> list[int]:
    """Returns the indices of classes that are named by their names, or by their indices.

    Examples:
        Names come first:

        >>> class_numbers(("1", "2", "3"), ["1", "2"]), class_numbers(("cat", "dog"), ["1", "0"])
        ([0, 1], [1, 0])

    Args:
        class_names: K names.
        asked: names or indices.
        kind: what the classes are to be, for the message.

    Raises:
        UserError: there is no such class; or not all are names, and one is the name of a class and the
            index of another.
    """
    texts = [str(c) for c in asked]
    names = {named: k for k, named in enumerate(class_names)}
    numbers = {str(k): k for k in range(len(class_names))}
    if all(text in names for text in texts):
        return [names[text] for text in texts]
    for text in texts:
        if text in names and text in numbers and names[text] != numbers[text]:
            raise UserError(
                f"{kind} '{text}' among {quoted(texts)} is the name of one class and the number of"
                f" '{class_names[numbers[text]]}'; allowed: all by name, or all by number"
            )
    return [choose(kind, text, numbers if text in numbers else names) for text in texts]


def select_classes(source: Source, classes: tuple[str, ...]) -> Source:
    """Keeps some classes and numbers them from 0 in the given order.

    Args:
        source: the data.
        classes: indices or names; empty for all.

    Raises:
        UserError: a class is unknown or named twice, or fewer than two are named; see `class_numbers`.
    """
    if not classes:
        return source
    kept = class_numbers(source.class_names, classes)
    if len(set(kept)) != len(kept) or len(kept) < 2:
        raise UserError(f"classes are {quoted(classes)}; allowed: two or more different ones")
    new = np.full(len(source.class_names), -1)
    new[kept] = np.arange(len(kept))

    def keep(part: LabelledSet) -> LabelledSet:
        part = part.take((new[part.y] >= 0) & (new[part.true_y] >= 0))
        return dataclasses.replace(part, y=new[part.y], true_y=new[part.true_y])

    superclass = None if source.superclass is None else source.superclass[kept]
    return dataclasses.replace(
        source,
        train=keep(source.train),
        test=None if source.test is None else keep(source.test),
        meta=None if source.meta is None else keep(source.meta),
        class_names=tuple(source.class_names[k] for k in kept),
        superclass=superclass,
    )


def _without(part: LabelledSet, rows: np.ndarray) -> LabelledSet:
    left = np.ones(len(part), bool)
    left[rows] = False
    return part.take(left)


def _hold_out_test(
    source: Source, fraction: float, rng: np.random.Generator
) -> tuple[LabelledSet, LabelledSet]:
    train = source.train
    if source.test is not None:
        return train, dataclasses.replace(source.test, y=source.test.true_y)
    have = np.bincount(train.true_y, minlength=len(source.class_names))
    if have.min() < 2:
        k = int(np.argmin(have))
        raise UserError(
            f"{source.name}: class {source.class_names[k]} has {have[k]} example, too few to hold one"
            " out for testing; allowed: at least 2, or a test set of its own"
        )
    counts = np.maximum(np.floor(have * fraction), 1)
    rows = bias.keep_counts(train.true_y, counts.astype(int), rng)
    test = train.take(rows)
    logging.info("%s has no test set: holding out %d of %d examples", source.name, len(rows), len(train))
    return _without(train, rows), test.with_labels(test.true_y)


def _imbalance(
    train: LabelledSet, config: BiasConfig, num_classes: int, rng: np.random.Generator
) -> LabelledSet:
    check_range("imbalance_factor", config.imbalance_factor, 1)
    if config.class_counts:
        if len(config.class_counts) != num_classes:
            raise UserError(
                f"class_counts has {len(config.class_counts)} entries; allowed: {num_classes}, one per"
                " class"
            )
        counts = np.asarray(config.class_counts)
    elif config.imbalance_factor > 1:
        smallest = int(np.bincount(train.true_y, minlength=num_classes).min())
        counts = bias.long_tail_counts(smallest, config.imbalance_factor, num_classes)
    elif config.train_size:
        if config.train_size > len(train):
            raise UserError(f"train_size is {config.train_size}; allowed: at most {len(train)}")
        return train.take(np.sort(rng.choice(len(train), config.train_size, replace=False)))
    else:
        return train
    if config.train_size:
        raise UserError(
            f"train_size is {config.train_size} with class_counts or imbalance_factor; allowed: one of"
            " them"
        )
    return train.take(bias.keep_counts(train.true_y, counts, rng))


def _transition(source: Source, config: BiasConfig, rng: np.random.Generator) -> np.ndarray | None:
    names, target = source.class_names, None
    if config.background_class:
        target = class_numbers(names, [config.background_class], "background_class")[0]
    return bias.transition_matrix(
        config.noise, config.noise_rate, len(names), rng, source.superclass, target
    )


def biased_source(source: Source, splits: Splits, config: BiasConfig) -> Source:
    """Returns splits as a source, of which `make_splits` makes the same splits again.

    Args:
        source: the source of the splits.
        splits: the splits, without a validation set.
        config: the bias that they were made with.
    """
    source = select_classes(source, tuple(config.classes))
    return dataclasses.replace(
        source,
        train=splits.train,
        test=splits.test,
        meta=splits.meta,
        truth_known=splits.truth_known,
        bias=dataclasses.asdict(config),
        transition=splits.transition,
    )


def make_splits(source: Source, config: BiasConfig, scale: str = "standardised") -> Splits:
    """Holds out the test and the meta set, then adds imbalance and noise to the remaining examples.

    The order is: classes, test set (if the source has none), clean meta set, equal examples, imbalance,
    noise, noisy meta set, validation set. Each stage has its own random generator: with the same
    ``data_seed``, every method and every noise rate gets the same split. A source that is biased
    already keeps its sets.

    Examples:
        >>> from tf_mwnet import data
        >>> config = BiasConfig(noise="uniform", noise_rate=0.4, meta_size=50)
        >>> splits = make_splits(data.load("digits"), config)
        >>> {name: len(getattr(splits, name)) for name in ("train", "meta", "test")}
        {'train': 1302, 'meta': 50, 'test': 445}

    Args:
        source: the data.
        config: the bias and the sizes of the splits.
        scale: of the inputs, see `scaling.describe`.

    Raises:
        UserError: a value of ``config`` does not fit the source.
    """
    if config.meta_labels not in ("clean", "noisy"):
        raise UserError(f"meta_labels is '{config.meta_labels}'; allowed: clean, noisy")
    choose("meta_balance", config.meta_balance, dict.fromkeys(meta_sets.BALANCES))
    seeds = np.random.SeedSequence(config.data_seed).spawn(5)
    noise_seed = seeds[3] if config.noise_seed is None else config.noise_seed
    test_rng, meta_rng, imbalance_rng = (np.random.default_rng(s) for s in seeds[:3])
    noise_rng = np.random.default_rng(noise_seed)
    if source.bias is not None:
        if source.test is None:
            raise UserError(f"{source.name} was biased and has no test set; allowed: with its test set")
        meta = source.meta if config.meta_size else None
        return _splits(
            source, source.train, meta, source.test, source.transition, config, scale, seeds[4]
        )
    source = select_classes(source, tuple(config.classes))
    num_classes = len(source.class_names)
    train, test = _hold_out_test(source, config.test_fraction, test_rng)
    meta, size = None, config.meta_size
    if source.meta is not None and size:
        meta = source.meta
        logging.info("%s comes with a meta set: %d examples", source.name, len(meta))
    elif size and config.meta_labels == "clean":
        rows = meta_sets.rows(train.true_y, size, num_classes, config.meta_balance, meta_rng)
        meta, train = train.take(rows), _without(train, rows)
        meta = meta.with_labels(meta.true_y)
    others = {"test": test} if meta is None else {"test": test, "meta": meta}
    kept = equal.without(train, others, train.y, config.drop_duplicates, source.name)
    train = train if kept.all() else train.take(kept)
    train = _imbalance(train, config, num_classes, imbalance_rng)
    matrix = _transition(source, config, noise_rng)
    if matrix is not None:
        train = train.with_labels(bias.corrupt(train.y, matrix, noise_rng))
    if size and meta is None:
        true = config.meta_balance == "true"
        if true and matrix is None and not (source.truth_known or source.trusted):
            raise UserError("meta_balance is true, but no true labels are known; allowed: given, none")
        label = train.true_y if true else train.y
        rows = meta_sets.rows(label, size, num_classes, config.meta_balance, meta_rng)
        meta, train = train.take(rows), _without(train, rows)
    return _splits(source, train, meta, test, matrix, config, scale, seeds[4])


def _splits(
    source: Source,
    train: LabelledSet,
    meta: LabelledSet | None,
    test: LabelledSet,
    matrix: np.ndarray | None,
    config: BiasConfig,
    scale: str,
    seed: np.random.SeedSequence,
) -> Splits:
    validation = None
    if config.early_stopping:
        if config.early_stopping >= len(train):
            raise UserError(
                f"early_stopping is {config.early_stopping}; allowed: below {len(train)}, the size of"
                " the training set"
            )
        held_rng = np.random.default_rng(seed)
        rows = np.sort(held_rng.choice(len(train), config.early_stopping, replace=False))
        validation, train = train.take(rows), _without(train, rows)
    checks.no_empty_class(f"{source.name} train", train.true_y, source.class_names)
    checked = source.test is not None or source.trusted
    return Splits(
        train=train,
        meta=meta,
        test=test,
        spec=scaling.describe(source, train, scale),
        transition=matrix,
        truth_known=source.truth_known or matrix is not None,
        validation=validation,
        test_checked=checked or source.truth_known or matrix is not None,
    )
