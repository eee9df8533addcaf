"""Types that flow between the parts. Shapes: B examples in a batch, K classes, N examples in a set."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import numpy as np


class Batch(NamedTuple):
    """One batch as the model sees it; the true label is never part of it.

    Attributes:
        x: inputs, ``[B, ...]``.
        y: given labels, integer ``[B]`` or class probabilities ``[B, K]``.
        index: int64 ``[B]``, the example's row in its set; -1 if unknown.
    """

    x: Any
    y: Any
    index: Any


class Examples(NamedTuple):
    """A training batch as a method sees it. All are constants: no gradient flows back.

    Attributes:
        losses: as ``example_losses`` gave them: ``[B]``; ``[B, K]`` for methods with soft labels
            (`methods.targets.SoftTargets`, CMW-Net-SL, data-driven MentorNet) or weights per class
            (GDW), joint optimisation ``[B, 2K + 1]``; with a second network ``[B, 2]``.
        logits: ``[B, K]``.
        labels: given labels, integer ``[B]`` or ``[B, K]``.
        index: int64 ``[B]``, see `Batch`.
        features: ``[B, D]``, what enters the classifier's last dense layer; None unless the method
            ``uses_features``.
        averaged: ``[B, K]``, logits of the classifier's moving average on the inputs as they are, not
            mixed; None unless the method has an ``ema``.
    """

    losses: Any
    logits: Any
    labels: Any
    index: Any
    features: Any = None
    averaged: Any = None


class Sampling(NamedTuple):
    """How training batches are drawn.

    Attributes:
        balanced: each class equally often, with replacement, instead of each example once per pass.
        batch_factor: batches are this many times as large as asked for.
    """

    balanced: bool = False
    batch_factor: int = 1


EACH_ONCE = Sampling()


class Head(NamedTuple):
    """The end of the classifier, as a method sees it before training.

    Attributes:
        name: the classifier's name, for messages.
        num_classes: K, or None for a subclassed model that does not tell.
        num_features: D, inputs of the last dense layer, or None without one.
        ending: "softmax" (logits included), "sigmoid", or the last layer's class.
        parameters: shape and dtype name of each trainable variable.
    """

    name: str
    num_classes: int | None
    num_features: int | None
    ending: str
    parameters: tuple[tuple[tuple[int, ...], str], ...] = ()


class Outputs(NamedTuple):
    """The predictions of a first stage's classifier, for methods that start from them.

    Attributes:
        train: class probabilities of the training examples, float ``[N, K]``.
        labels: their given labels, int ``[N]``.
        meta: class probabilities of the meta set, float ``[M, K]``; None without one.
        meta_labels: its labels, int ``[M]``, or None.
        method: the `Method` that it was trained with.
    """

    train: np.ndarray
    labels: np.ndarray
    meta: np.ndarray | None = None
    meta_labels: np.ndarray | None = None
    method: Any = None


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """A description of the data, for building and exporting a classifier.

    Attributes:
        name: the data set's name.
        shape: shape of one input, ``(H, W, C)`` for images.
        dtype: numpy dtype name of the raw input ("uint8", "float32").
        class_names: K names.
        mean: what is taken off each channel, float32 ``[C]``, in the raw input's units.
        std: what each channel is then divided by, float32 ``[C]``, positive.
        encoder: what maps raw inputs to these inputs, where they are features; else None.
        raw_shape, raw_dtype: of the raw inputs of the encoder.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    class_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    encoder: Any = None
    raw_shape: tuple[int, ...] = ()
    raw_dtype: str = ""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class Images(Protocol):
    """Images ``[N, H, W, C]`` that are read when they are needed, see `data.images.LazyImages`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def ndim(self) -> int: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> Images: ...

    def joined(self, other: np.ndarray | Images) -> Images: ...

    def read(self, rows: np.ndarray) -> np.ndarray: ...

    def fingerprint(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class LabelledSet:
    """Labelled examples.

    Attributes:
        x: raw inputs, ``[N, H, W, C]`` uint8 or float32: an array, or images that are read when they
            are needed.
        y: given labels, int64 ``[N]`` in 0..K-1.
        true_y: true labels, int64 ``[N]``; equal to ``y`` if nothing better is known.
        ids: N unique strings that stay with the examples through every split.
        raw: where ``x`` are features: what they were computed from, ``[N, ...]``; else None.
    """

    x: np.ndarray | Images
    y: np.ndarray
    true_y: np.ndarray
    ids: np.ndarray
    raw: np.ndarray | Images | None = None

    @property
    def originals(self) -> np.ndarray | Images:
        """The inputs as people see them: ``raw`` where ``x`` are features, else ``x``."""
        return self.x if self.raw is None else self.raw

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray) -> LabelledSet:
        """Returns the examples at ``rows`` (integer or boolean ``[N]``)."""
        raw = None if self.raw is None else self.raw[rows]
        return LabelledSet(self.x[rows], self.y[rows], self.true_y[rows], self.ids[rows], raw)

    def with_labels(self, y: np.ndarray) -> LabelledSet:
        return dataclasses.replace(self, y=y)

    def joined(self, other: LabelledSet) -> LabelledSet:
        """Appends other examples of the same shape; both in memory, or both on disk."""
        y, true_y, ids = (
            np.concatenate([getattr(self, k), getattr(other, k)]) for k in ("y", "true_y", "ids")
        )
        raw = None
        if self.raw is not None and other.raw is not None:
            raw = _joined(self.raw, other.raw)
        return LabelledSet(_joined(self.x, other.x), y, true_y, ids, raw)


def _joined(first: np.ndarray | Images, second: np.ndarray | Images) -> np.ndarray | Images:
    if not isinstance(first, np.ndarray):
        return first.joined(second)
    if not isinstance(second, np.ndarray):
        return second.joined(first)
    return np.concatenate([first, second])


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as it was loaded, before any bias or split.

    Attributes:
        name: the data set's name.
        train: the examples to train on.
        test: held-out examples, or None.
        meta: trusted examples, or None.
        class_names: K names.
        superclass: int ``[K]``, the coarse class of each class, or None.
        truth_known: whether ``train.true_y`` comes from a trusted label column.
        trusted: whether ``train.true_y`` may be taken to be right, as that of published sets.
        bias: what has been done to it already, fields of `data.BiasConfig`; None for nothing: a source
            with bias is split as it is.
        transition: ``[K, K]``, row = true class, the noise that ``bias`` asked for; None without.
        encoder: the `features.Backbone` that the inputs are features of; None for other inputs.
        built_in: whether it is the example data that comes with the package, to which a run adds noise
            unless it is told otherwise.
        in_memory: whether the user made it of arrays: a command line cannot load it again.
    """

    name: str
    train: LabelledSet
    test: LabelledSet | None
    meta: LabelledSet | None
    class_names: tuple[str, ...]
    superclass: np.ndarray | None = None
    truth_known: bool = False
    trusted: bool = False
    bias: dict[str, Any] | None = None
    transition: np.ndarray | None = None
    in_memory: bool = False
    encoder: Any = None
    built_in: bool = False

    @property
    def sets(self) -> dict[str, LabelledSet]:
        """The sets that there are, by name: "train", "test", "meta"."""
        parts = {"train": self.train, "test": self.test, "meta": self.meta}
        return {name: part for name, part in parts.items() if part is not None}


@dataclasses.dataclass(frozen=True)
class Splits:
    """Biased training data with the sets that go with it. Ids are disjoint.

    Attributes:
        train: what is trained on, labels possibly wrong.
        meta: the examples that the weights are learned from; None if not asked for.
        test: what is reported on.
        spec: see `DataSpec`; mean and deviation are those of ``train``, unless it was scaled otherwise.
        transition: ``[K, K]``, row = true class, the noise that was asked for; None without noise.
        truth_known: whether ``train.true_y`` is known apart from ``train.y``.
        test_checked: whether the labels of ``test`` may be taken to be right: those of a part that was
            held out of unchecked labels may not.
        validation: held out of the biased training set to choose an epoch; None if not asked for.
    """

    train: LabelledSet
    meta: LabelledSet | None
    test: LabelledSet
    spec: DataSpec
    transition: np.ndarray | None
    truth_known: bool
    validation: LabelledSet | None = None
    test_checked: bool = True

    def labels(self) -> dict[str, np.ndarray]:
        """Returns the arrays ``<set>_ids``, ``<set>_y`` and ``<set>_true_y`` of each set."""
        parts = {
            "train": self.train,
            "meta": self.meta,
            "test": self.test,
            "validation": self.validation,
        }
        return {
            f"{name}_{field}": getattr(part, field)
            for name, part in parts.items()
            if part is not None
            for field in ("ids", "y", "true_y")
        }

    def seen_by(self, trains_on: str) -> Splits:
        """Returns these splits with the training set of a method, see `Method.trains_on`."""
        if trains_on == "train" or self.meta is None:
            return self
        train = self.meta if trains_on == "meta" else self.train.joined(self.meta)
        return dataclasses.replace(self, train=train)

    @property
    def corrupted(self) -> np.ndarray:
        """Tells which training labels differ from the true ones, bool ``[N]``."""
        return self.train.y != self.train.true_y
