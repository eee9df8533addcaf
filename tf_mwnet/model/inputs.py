"""Converts what a user gives to ``fit`` into the stream that the model trains on."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_mwnet.data import meta_sets, orders, shares, streams
from tf_mwnet.errors import UserError
from tf_mwnet.methods.base import Method
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
) -> tuple[shares.Stream, int | None, int | None]:
    """Builds the stream for a method, see `streams.paired`.

    Args:
        method: it may need a meta set, row numbers, or batches drawn in another way.
        x, y, meta_data, batch_size, meta_batch_size, shuffle, seed: see `ReweightedModel.fit`; ``x``
            may be a stream.

    Returns:
        The stream, steps per epoch, and number of examples; the last two are None for datasets, which
        end by themselves and carry no row numbers.

    Raises:
        UserError: something is missing, or does not fit together or with the method.
    """
    if callable(x):
        return x, None, None
    if streams.is_paired(x):
        return shares.sharded(x), None, None
    if method.takes_meta_batches and meta_data is None:
        if method.meta_labels == "clean" or isinstance(x, tf.data.Dataset):
            raise UserError(f"{type(method).__name__} needs meta_data; got None")
        (x, y), meta_data = meta_sets.hold_out_meta(x, y, seed)
    meta = meta_data if method.takes_meta_batches else None
    meta = _meta_batches(meta, meta_batch_size, shuffle, seed)
    if isinstance(x, tf.data.Dataset):
        if y is not None:
            raise UserError("y was given beside a tf.data.Dataset; allowed: batches (x, y) in it")
        if method.sampling != EACH_ONCE:
            raise UserError(
                "x is a tf.data.Dataset, which the method can not draw from; allowed: arrays"
            )
        method.check_rows(None)
        return streams.paired(shares.sharded(x.map(_plain_batch)), meta), None, None
    size = _length("x", x, y)
    method.check_rows(size)
    rows = orders.training(y, batch_size, seed, 0, shuffle, method.sampling)
    return streams.paired(streams.batches(x, y, rows), meta), -(-size // batch_size), size


def in_order(data: Any, batch_size: int) -> shares.Stream:
    """Makes a stream of batches ``(x, y)`` from a stream, a dataset of batches, or arrays ``(x, y)``."""
    if callable(data):
        return data
    if isinstance(data, tf.data.Dataset):
        return shares.sharded(data)
    x, y = data
    rows = tf.data.Dataset.range(_length("data", x, y)).batch(batch_size)
    return streams.once(streams.batches(x, y, rows), rows.cardinality())


def _meta_batches(meta_data: Any, batch_size: int, shuffle: bool, seed: int) -> shares.Stream | None:
    if meta_data is None:
        return None
    if isinstance(meta_data, tf.data.Dataset):
        return shares.sharded(meta_data.map(_plain_batch).repeat())
    if not isinstance(meta_data, (tuple, list)) or len(meta_data) != 2:
        raise UserError("meta_data is neither (x, y) nor a tf.data.Dataset")
    x, y = meta_data
    size = _length("meta_data", x, y)
    rows = orders.cycle(size, min(batch_size, size), (seed, orders.META_ORDER), 0, shuffle)
    return streams.batches(x, y, rows)


def _plain_batch(*batch: Any) -> Batch:
    if len(batch) != 2:
        raise UserError(f"a dataset gives elements of {len(batch)} parts; allowed: (x, y)")
    x, y = batch
    size = tf.shape(tf.nest.flatten(x)[0])[0]
    return Batch(x, y, tf.fill([size], tf.constant(-1, tf.int64)))


def _length(name: str, x: Any, y: Any) -> int:
    if x is None or y is None:
        raise UserError(f"{name} has no labels; allowed: arrays x and y, or a dataset of (x, y)")
    sizes = {len(part) for part in tf.nest.flatten((x, y))}
    if len(sizes) != 1 or 0 in sizes:
        raise UserError(f"{name} has parts of {sorted(sizes)} examples; allowed: one size above 0")
    return sizes.pop()
