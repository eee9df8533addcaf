"""tf.data streams: pairs of a training batch and a meta batch, a pure function of seed and step.

The order of a pass depends on the seed and the number of the pass, the augmentation of a batch on
the seed and the number of the step. A stream can therefore start at any step and gives what an
uninterrupted one would have given from there: this is what makes an exact resume possible.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_mwnet.data import orders
from tf_mwnet.data.images import ImageFiles
from tf_mwnet.types import EACH_ONCE, Batch, DataSpec, LabelledSet, Sampling


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random crops of the padded image and horizontal flips (He et al., CVPR 2016, section 4.2).

    Attributes:
        pad: pixels of reflected border on each side before the random crop; 0 for no crop.
        flip: whether half of the images are mirrored left to right.
    """

    pad: int = 0
    flip: bool = False

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments ``[B, H, W, C]``; ``seed``: int ``[2]``, gives the same result each time."""
        size = tf.shape(images)[0]
        height, width = images.shape[1], images.shape[2]
        seeds = tf.random.split(seed, 3)
        if self.pad:
            border = [[0, 0], [self.pad, self.pad], [self.pad, self.pad], [0, 0]]
            images = tf.pad(images, border, mode="REFLECT")
            reach = 2 * self.pad + 1
            top = tf.random.stateless_uniform([size, 1], seeds[0], 0, reach, tf.int32)
            left = tf.random.stateless_uniform([size, 1], seeds[1], 0, reach, tf.int32)
            images = tf.gather(images, top + tf.range(height), axis=1, batch_dims=1)
            images = tf.gather(images, left + tf.range(width), axis=2, batch_dims=1)
        if self.flip:
            mirror = tf.random.stateless_uniform([size, 1, 1, 1], seeds[2]) < 0.5
            images = tf.where(mirror, tf.reverse(images, axis=[2]), images)
        return images


def normalise(x: tf.Tensor, spec: DataSpec) -> tf.Tensor:
    """``(x - mean) / std`` per channel, float32."""
    return (tf.cast(x, tf.float32) - spec.mean) / spec.std


# -------------------------------------------------------------------- streams


def _reader(x) -> Callable[[tf.Tensor], Any]:
    """Rows int64 ``[B]`` -> their examples, of arrays, structures of arrays or `ImageFiles`."""
    if isinstance(x, ImageFiles):

        def read(index):
            pixels = tf.numpy_function(x.read, [index], tf.as_dtype(x.dtype), stateful=False)
            return tf.ensure_shape(pixels, [None, *x.image_shape])

        return read
    # Copied into tensors once; the pipeline captures them instead of writing them into its graph.
    with tf.device("CPU:0"):
        tensors = tf.nest.map_structure(tf.convert_to_tensor, x)
    return lambda index: tf.nest.map_structure(lambda t: tf.gather(t, index), tensors)


def batches(x, y, indices, start_step, transform) -> tf.data.Dataset:
    """A dataset of `Batch` from arrays and index batches; ``transform(x, step)`` or None."""
    x_rows, y_rows = _reader(x), _reader(y)

    def load(step, index):
        bx, by = x_rows(index), y_rows(index)
        return Batch(bx if transform is None else transform(bx, step), by, index)

    steps = tf.data.Dataset.range(start_step, orders.FOREVER)
    pairs = tf.data.Dataset.zip(steps, indices)
    return pairs.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def paired(train: tf.data.Dataset, meta: tf.data.Dataset | None) -> tf.data.Dataset:
    """Elements ``{"train": Batch, "meta": Batch}``, or ``{"train": Batch}`` without a meta set."""
    if meta is None:
        pairs = train.map(lambda t: {"train": t})
    else:
        pairs = tf.data.Dataset.zip(train, meta).map(lambda t, m: {"train": t, "meta": m})
    if train.cardinality() >= 0:  # lost where the endless meta stream's is unknown
        pairs = pairs.apply(tf.data.experimental.assert_cardinality(train.cardinality()))
    return pairs.prefetch(tf.data.AUTOTUNE)


def is_paired(x: Any) -> bool:
    """Whether ``x`` is a dataset as `paired` makes it."""
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
    augmentation: Augmentation | None = None,
    start_step: int = 0,
    sampling: Sampling = EACH_ONCE,
) -> tf.data.Dataset:
    """An endless stream of pairs, see `paired`.

    Each pass covers the training set once (the last batch may be smaller), unless ``sampling`` has it
    otherwise; the meta set cycles with
    a new order each time; both are augmented and normalised. The training batch carries the row of
    each example, not its true label.

    Args:
        train, meta: what to draw from; without ``meta`` the elements have no "meta".
        spec: mean and deviation for `normalise`.
        batch_size, meta_batch_size: of the global batch, positive; ``meta_batch_size`` is cut to
            the size of the meta set.
        seed: of orders and augmentation.
        start_step: number of batches that an earlier part of the run has taken.
        sampling: how the training batches are drawn.
    """

    def transform(stream: int) -> Callable:
        def apply(x, step):
            if augmentation is not None:
                x = augmentation(x, tf.stack([tf.cast(seed, tf.int64), step * 8 + stream]))
            return normalise(x, spec)

        return apply

    rows = orders.training(train.y, batch_size, seed, start_step, sampling=sampling)
    of_train = batches(train.x, train.y, rows, start_step, transform(orders.CROP))
    if meta is None:
        return paired(of_train, None)
    size = min(meta_batch_size, len(meta))
    rows = orders.cycle(len(meta), size, (seed, orders.META_ORDER), start_step)
    return paired(of_train, batches(meta.x, meta.y, rows, start_step, transform(orders.META_CROP)))


def evaluation_stream(examples: LabelledSet, spec: DataSpec, batch_size: int = 500):
    """Batches ``(x, y)`` in order, once, normalised, not augmented."""
    x, y = _reader(examples.x), _reader(examples.y)
    rows = tf.data.Dataset.range(len(examples)).batch(batch_size)
    return rows.map(
        lambda index: (normalise(x(index), spec), y(index)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    ).prefetch(tf.data.AUTOTUNE)


def distribute(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy):
    """Cuts each global batch into one part per replica, training and meta batch alike.

    TensorFlow's own splitting wants one batch size for all parts of an element; here the two batches
    of a pair may differ in size. Parts differ by at most one example.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return dataset

    def part(batch, number):
        def cut(t):
            size = tf.shape(t, out_type=tf.int64)[0]
            return t[size * number // replicas : size * (number + 1) // replicas]

        return tf.nest.map_structure(cut, batch)

    def parts(batch):
        return tf.data.Dataset.range(replicas).map(lambda number: part(batch, number))

    cut = dataset.flat_map(parts).prefetch(tf.data.AUTOTUNE)
    return strategy.distribute_datasets_from_function(lambda _: cut)
