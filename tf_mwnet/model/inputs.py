"""Converts what a user gives to ``fit`` into the stream that the model trains on.

The order of arrays, and the place where a meta set goes on, depend on the seed and on the number of
steps that the optimizer has taken: ``fit`` called twice continues where it ended, also after loading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet.data import meta_sets, orders, shares, streams
from tf_mwnet.errors import UserError
from tf_mwnet.methods.base import Method
from tf_mwnet.model import examples
from tf_mwnet.model.meta_draws import MetaDraws
from tf_mwnet.types import EACH_ONCE, Batch


def pairs(
    method: Method,
    x: Any,
    y: Any,
    meta_data: Any,
    batch_size: int,
    meta_batch_size: int,
    shuffle: bool,
    seed: int,
    num_classes: int | None = None,
    expected: Sequence[keras.KerasTensor] = (),
    count: Callable[[], int] = lambda: 0,
    whole_passes: bool = True,
    anew: bool = False,
) -> tuple[shares.Stream, int | None, int | None, MetaDraws | None]:
    """Builds the stream for a method, see `streams.paired`.

    Args:
        method: it may need a meta set, row numbers, or batches drawn in another way.
        x, y, meta_data, batch_size, meta_batch_size, shuffle, seed: see `ReweightedModel.fit`; ``x``
            may be a stream.
        num_classes: K, or None if it is not known.
        expected: the classifier's inputs, none if they are unknown.
        count: returns the number of steps taken so far.
        whole_passes: whether the arrays begin with a new pass, not within one.
        anew: whether the stream of arrays will be read anew for each epoch, as it always is with draws.

    Returns:
        The stream; steps per epoch and number of examples, None for datasets, which end by themselves
        and carry no row numbers; and what draws the meta set before each epoch, None without. Then the
        stream is to be read anew for each epoch.

    Raises:
        UserError: something is missing, or does not fit together or with the method.
    """
    if isinstance(x, keras.utils.PyDataset):
        x = examples.from_py_dataset(x)
    if isinstance(x, tf.data.Dataset) and not streams.is_paired(x):
        x, y = _dataset(method, x, y, num_classes), None
    elif callable(x):
        return x, None, None, None
    elif streams.is_paired(x):
        return shares.sharded(x), None, None, None
    else:
        x, y, _ = examples.labelled("x", x, y, num_classes, expected)
    draws = method.draws_meta and meta_data is None and not isinstance(x, tf.data.Dataset)
    if method.takes_meta_batches and meta_data is None and not draws:
        if method.meta_labels == "clean" or isinstance(x, tf.data.Dataset):
            raise UserError(f"{type(method).__name__} needs meta_data; got None")
        (x, y), meta_data = meta_sets.hold_out_meta(x, y, seed)
    meta = None
    if method.takes_meta_batches and not draws:
        meta = _meta_batches(meta_data, meta_batch_size, shuffle, seed, num_classes, expected, count)
    if isinstance(x, tf.data.Dataset):
        return streams.paired(shares.sharded(x), meta), None, None, None
    size = len(y)
    method.check_rows(size)
    pass_size = -(-size // (batch_size * method.sampling.batch_factor))

    def start() -> int:
        return -(-count() // pass_size) * pass_size if whole_passes else count()

    def order(step: int | tf.Tensor) -> tf.data.Dataset:
        return orders.training(y, batch_size, seed, step, shuffle, method.sampling)

    drawn = None
    if draws:
        drawn = MetaDraws(method, y)
        of_seed = (seed, orders.META_ORDER)
        chosen = orders.cycle_drawn(lambda: drawn.rows, meta_batch_size, of_seed, count, shuffle)
        meta = streams.batches(x, y, chosen)
    rows = orders.from_step(start if draws or anew else start(), order)
    return streams.paired(streams.batches(x, y, rows), meta), -(-size // batch_size), size, drawn


def _dataset(method: Method, x: tf.data.Dataset, y: Any, num_classes: int | None) -> tf.data.Dataset:
    if y is not None:
        raise UserError("y was given beside a dataset; allowed: batches (x, y) in it")
    if method.sampling != EACH_ONCE:
        raise UserError("x is a tf.data.Dataset, which the method cannot draw from; allowed: arrays")
    method.check_rows(None)
    return examples.batches("x", x, num_classes)


def in_order(data: Any, batch_size: int) -> shares.Stream:
    """Makes a stream of batches ``(x, y)`` from a stream, a dataset of batches, or arrays ``(x, y)``."""
    if callable(data):
        return data
    if isinstance(data, tf.data.Dataset):
        return shares.sharded(data)
    x, y, size = examples.labelled("data", data[0], data[1], None)
    rows = tf.data.Dataset.range(size).batch(batch_size)
    return streams.once(streams.batches(x, y, rows), rows.cardinality())


def _meta_batches(
    meta_data: Any,
    batch_size: int,
    shuffle: bool,
    seed: int,
    num_classes: int | None,
    expected: Sequence[keras.KerasTensor],
    count: Callable[[], int],
) -> shares.Stream:
    if isinstance(meta_data, keras.utils.PyDataset):
        meta_data = examples.from_py_dataset(meta_data)
    if isinstance(meta_data, tf.data.Dataset):
        checked = examples.batches("meta_data", meta_data, num_classes)
        known = int(checked.cardinality())  # negative if it is not known, or if there is no end

        def rest(step: tf.Tensor) -> tf.data.Dataset:
            return checked.repeat().skip(step % known if known > 0 else step)

        return shares.sharded(orders.from_step(count, rest))
    if not isinstance(meta_data, (tuple, list)) or len(meta_data) != 2:
        raise UserError("meta_data is neither (x, y) nor a tf.data.Dataset; allowed: one of them")
    x, y = meta_data
    x, y, size = examples.labelled("meta_data", x, y, num_classes, expected)
    each = min(batch_size, size)
    of_seed = (seed, orders.META_ORDER)
    rows = orders.from_step(count, lambda step: orders.cycle(size, each, of_seed, step, shuffle))
    return streams.batches(x, y, rows)


def batch(x: Any, y: np.ndarray) -> Batch:
    """Returns a batch of all examples given, for a single step."""
    made = next(iter(streams.batches(x, y, tf.data.Dataset.range(len(y)).batch(len(y)))()))
    return made._replace(index=tf.fill([len(y)], tf.constant(-1, tf.int64)))
