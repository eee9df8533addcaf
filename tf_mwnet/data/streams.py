"""Streams of a training batch and a meta batch with `tf.data`, as a pure function of seed and step.

The order of a pass depends on the seed and the number of the pass; the augmentation of a batch depends
on the seed and the number of the step. A stream can therefore start at any step and continues exactly
as an uninterrupted one would, which makes an exact resume possible. Random draws are made for the whole
batch, even if a replica gets only a part of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_mwnet.data import orders
from tf_mwnet.data.images import LazyImages
from tf_mwnet.data.shares import WHOLE, Share, Stream, bounds
from tf_mwnet.types import EACH_ONCE, Batch, DataSpec, LabelledSet, Sampling

KEPT = 256 * 2**20  # bytes of a set for evaluation, in float32

# (inputs of a part of a batch, number of the step, start of the part, size of the whole batch)
Transform = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random crops of the padded image and horizontal flips (He et al., CVPR 2016, section 4.2).

    Examples:
        >>> augment = Augmentation(pad=4, flip=True)
        >>> augment(tf.zeros([16, 32, 32, 3]), seed=tf.constant([0, 1])).shape
        TensorShape([16, 32, 32, 3])

    Attributes:
        pad: pixels of reflected border on each side before the random crop; 0 for no crop.
        flip: whether to mirror each image left to right with probability 1/2.
    """

    pad: int = 0
    flip: bool = False

    def __call__(
        self,
        images: tf.Tensor,
        seed: tf.Tensor,
        start: int | tf.Tensor = 0,
        size: int | tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Augments images.

        Args:
            images: ``[b, H, W, C]``, a batch or a part of one.
            seed: int ``[2]``; the same seed gives the same result.
            start: number of the first image in its batch.
            size: size of the whole batch; b by default.
        """
        count = tf.shape(images)[0]
        start, size = tf.cast(start, tf.int32), count if size is None else tf.cast(size, tf.int32)
        height, width = images.shape[1], images.shape[2]
        seeds = tf.random.split(seed, 3)
        if self.pad:
            border = [[0, 0], [self.pad, self.pad], [self.pad, self.pad], [0, 0]]
            images = tf.pad(images, border, mode="REFLECT")
            reach = 2 * self.pad + 1
            top = tf.random.stateless_uniform([size, 1], seeds[0], 0, reach, tf.int32)
            left = tf.random.stateless_uniform([size, 1], seeds[1], 0, reach, tf.int32)
            top, left = top[start : start + count], left[start : start + count]
            images = tf.gather(images, top + tf.range(height), axis=1, batch_dims=1)
            images = tf.gather(images, left + tf.range(width), axis=2, batch_dims=1)
        if self.flip:
            mirror = tf.random.stateless_uniform([size, 1, 1, 1], seeds[2]) < 0.5
            mirror = mirror[start : start + count]
            images = tf.where(mirror, tf.reverse(images, axis=[2]), images)
        return images


@dataclasses.dataclass(frozen=True)
class Views:
    """Takes one view of each example at random, of features ``[b, V, D]``.

    Examples:
        >>> Views()(tf.zeros([16, 4, 100]), seed=tf.constant([0, 1])).shape
        TensorShape([16, 100])
    """

    def __call__(
        self,
        x: tf.Tensor,
        seed: tf.Tensor,
        start: int | tf.Tensor = 0,
        size: int | tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Takes views ``[b, D]``. Arguments: see `Augmentation`."""
        count = tf.shape(x)[0]
        start, size = tf.cast(start, tf.int32), count if size is None else tf.cast(size, tf.int32)
        draws = tf.random.stateless_uniform([size], seed, 0, x.shape[1], tf.int32)
        return tf.gather(x, draws[start : start + count], axis=1, batch_dims=1)


def normalise(x: tf.Tensor, spec: DataSpec) -> tf.Tensor:
    """Returns ``(x - mean) / std`` per channel, float32; of features with several views the first."""
    if len(x.shape) == len(spec.shape) + 2:
        x = x[:, 0]
    return (tf.cast(x, tf.float32) - spec.mean) / spec.std


# -------------------------------------------------------------------- streams


def _reader(x: Any) -> Callable[[tf.Tensor], Any]:
    """Returns a function from rows, int64 ``[B]``, to their examples.

    ``x`` is an array, a structure of arrays, or `LazyImages`.
    """
    if isinstance(x, LazyImages):

        def read(index: tf.Tensor) -> tf.Tensor:
            pixels = tf.numpy_function(x.read, [index], tf.as_dtype(x.dtype), stateful=False)
            return tf.ensure_shape(pixels, [None, *x.image_shape])

        return read
    # As tensors, which the pipeline captures. Arrays would be copied into its graph.
    with tf.device("CPU:0"):
        tensors = tf.nest.map_structure(tf.convert_to_tensor, x)
    return lambda index: tf.nest.map_structure(lambda t: tf.gather(t, index), tensors)


def batches(
    x: Any,
    y: Any,
    indices: tf.data.Dataset,
    start_step: orders.Start = 0,
    transform: Transform | None = None,
) -> Stream:
    """Returns a stream of `Batch`.

    Args:
        x, y: inputs and labels: arrays ``[N, ...]``, structures of arrays, or `LazyImages`.
        indices: dataset of the rows of each batch, int64 ``[B]``.
        start_step: number of the first batch, see `orders.Start`.
        transform: applied to the inputs of a batch, see `Transform`; None for no change.
    """
    x_rows, y_rows = _reader(x), _reader(y)

    def load(step: tf.Tensor, index: tf.Tensor, number: int | tf.Tensor, of: int) -> Batch:
        size = tf.shape(index, out_type=tf.int64)[0]
        start, stop = bounds(size, number, of)
        index = index[start:stop]
        bx, by = x_rows(index), y_rows(index)
        return Batch(bx if transform is None else transform(bx, step, start, size), by, index)

    def stream(share: Share = WHOLE) -> tf.data.Dataset:
        steps = orders.from_step(start_step, lambda step: tf.data.Dataset.range(step, orders.FOREVER))
        each = tf.data.Dataset.zip(steps, indices)
        if share.of > 1:
            each = each.flat_map(
                lambda step, index: share.numbers().map(lambda number: (step, index, number))
            )
        return each.map(
            lambda step, index, number=0: load(step, index, number, share.of),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    return stream


def paired(train: Stream, meta: Stream | None) -> Stream:
    """Returns a stream of ``{"train": Batch, "meta": Batch}``, without "meta" if ``meta`` is None."""

    def stream(share: Share = WHOLE) -> tf.data.Dataset:
        of_train = train(share)
        if meta is None:
            pairs = of_train.map(lambda t: {"train": t})
        else:
            pairs = tf.data.Dataset.zip(of_train, meta(share))
            pairs = pairs.map(lambda t, m: {"train": t, "meta": m})
        if of_train.cardinality() >= 0:  # lost if that of the endless meta stream is unknown
            pairs = pairs.apply(tf.data.experimental.assert_cardinality(of_train.cardinality()))
        return pairs.prefetch(tf.data.AUTOTUNE)

    return stream


def epochs(stream: Stream, steps: int) -> Stream:
    """Returns a stream that ends after an epoch of ``steps``, and is read anew for the next one."""

    def epoch(share: Share = WHOLE) -> tf.data.Dataset:
        count = steps * share.count
        return stream(share).take(count).apply(tf.data.experimental.assert_cardinality(count))

    return epoch


def is_paired(x: Any) -> bool:
    """Returns whether ``x`` is a dataset with the elements of `paired`."""
    if not isinstance(x, tf.data.Dataset):
        return False
    return isinstance(x.element_spec, dict) and "train" in x.element_spec


def training_stream(
    train: LabelledSet,
    meta: LabelledSet | None,
    spec: DataSpec,
    batch_size: int,
    meta_batch_size: int,
    seed: int,
    augmentation: Augmentation | Views | None = None,
    start_step: orders.Start = 0,
    sampling: Sampling = EACH_ONCE,
    draw: Callable[[], np.ndarray] | None = None,
) -> Stream:
    """Returns an endless stream of pairs, see `paired`.

    Each pass covers the training set once, unless ``sampling`` says otherwise; its last batch may be
    smaller. The meta set is repeated, each time in a new order. Both are augmented and normalised. A
    training batch has the row of each example, but not its true label.

    Examples:
        >>> from tf_mwnet import data
        >>> splits = data.make_splits(data.load("digits"), data.BiasConfig(meta_size=50))
        >>> stream = training_stream(splits.train, splits.meta, splits.spec, 100, 20, seed=0)
        >>> pair = next(iter(stream()))
        >>> pair["train"].x.shape, pair["meta"].y.shape
        (TensorShape([100, 8, 8, 1]), TensorShape([20]))

    Args:
        train: the training set.
        meta: the meta set, or None.
        spec: mean and standard deviation of the inputs.
        batch_size, meta_batch_size: sizes of the global batches, at least 1. The latter is limited to
            the size of the meta set.
        seed: seed of orders and augmentation.
        augmentation: applied to the inputs of both; None for no augmentation.
        start_step: number of the first batch, for a run that is resumed; see `orders.Start`.
        sampling: how to draw the training batches.
        draw: returns the rows of the training set, int64 ``[n]``, that are the meta set instead of
            ``meta``; called whenever the stream is iterated anew.
    """

    def transform(stream: int) -> Transform:
        def apply(x: tf.Tensor, step: tf.Tensor, start: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
            if augmentation is not None:
                draws = tf.stack([tf.cast(seed, tf.int64), step * 8 + stream])
                x = augmentation(x, draws, start, size)
            return normalise(x, spec)

        return apply

    rows = orders.from_step(
        start_step, lambda step: orders.training(train.y, batch_size, seed, step, sampling=sampling)
    )
    of_train = batches(train.x, train.y, rows, start_step, transform(orders.CROP))
    of_seed = (seed, orders.META_ORDER)
    if draw is not None:
        meta, rows = train, orders.cycle_drawn(draw, meta_batch_size, of_seed, start_step)
    elif meta is None:
        return paired(of_train, None)
    else:
        size, each = len(meta), min(meta_batch_size, len(meta))
        rows = orders.from_step(start_step, lambda step: orders.cycle(size, each, of_seed, step))
    return paired(of_train, batches(meta.x, meta.y, rows, start_step, transform(orders.META_CROP)))


def evaluation_stream(
    examples: LabelledSet, spec: DataSpec, batch_size: int = 500, kept: bool = False
) -> Stream:
    """Returns a stream of batches ``(x, y)`` of all examples in order, normalised, not augmented.

    With ``kept`` up to `KEPT` bytes of them are kept in memory for further passes.
    """
    rows = tf.data.Dataset.range(len(examples)).batch(batch_size)
    stream = batches(examples.x, examples.y, rows, 0, lambda x, *where: normalise(x, spec))
    size = len(examples) * math.prod(spec.shape) * np.dtype(np.float32).itemsize
    return once(stream, rows.cardinality(), kept and size <= KEPT)


def once(stream: Stream, number: int | tf.Tensor, kept: bool = False) -> Stream:
    """Returns ``(x, y)`` of each of a stream's ``number`` batches, which ``kept`` keeps in memory."""

    def pairs(share: Share = WHOLE) -> tf.data.Dataset:
        examples = stream(share).map(lambda batch: (batch.x, batch.y))
        known = tf.data.experimental.assert_cardinality(number * share.count)
        examples = examples.apply(known)
        return (examples.cache() if kept else examples).prefetch(tf.data.AUTOTUNE)

    return pairs
