"""Divides global batches among replicas."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Share:
    """The replicas whose parts of each global batch a stream yields, one after the other.

    Examples:
        ``Share(first=2, count=2, of=4)`` yields the parts of the last two of four replicas.

    Attributes:
        first: number of the first replica.
        count: number of replicas.
        of: number of all replicas.
    """

    first: int = 0
    count: int = 1
    of: int = 1

    def numbers(self) -> tf.data.Dataset:
        return tf.data.Dataset.range(self.first, self.first + self.count)


WHOLE = Share()


class Stream(Protocol):
    """Makes the dataset of a share's parts of each batch."""

    def __call__(self, share: Share = WHOLE) -> tf.data.Dataset: ...


def bounds(size: tf.Tensor, number: int | tf.Tensor, of: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns start and end of part ``number``; parts differ by one example at most."""
    return size * number // of, size * (number + 1) // of


def part(batch: Any, number: int | tf.Tensor, of: int | tf.Tensor) -> Any:
    """Returns part ``number`` of ``of`` of each tensor ``[B, ...]`` in a structure; B may differ."""

    def cut(t: tf.Tensor) -> tf.Tensor:
        start, stop = bounds(tf.shape(t, out_type=tf.int64)[0], number, of)
        return t[start:stop]

    return tf.nest.map_structure(cut, batch)


def sharded(dataset: tf.data.Dataset) -> Stream:
    """Returns the stream of a dataset's batches. Each worker reads the whole dataset."""

    def stream(share: Share = WHOLE) -> tf.data.Dataset:
        if share.of == 1:
            return dataset

        def parts(*elements: Any) -> tf.data.Dataset:
            batch = elements[0] if len(elements) == 1 else elements
            return share.numbers().map(lambda number: part(batch, number, share.of))

        return dataset.flat_map(parts).prefetch(tf.data.AUTOTUNE)

    return stream


def distribute(
    stream: Stream, strategy: tf.distribute.Strategy
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Returns a dataset that yields to each replica its part of each global batch.

    TensorFlow's own splitting needs the same batch size in all tensors of an element, but the two
    batches of a pair may differ in size. A worker reads only the parts of its own replicas.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return stream(WHOLE)

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = replicas // context.num_input_pipelines
        return stream(Share(context.input_pipeline_id * count, count, replicas))

    return strategy.distribute_datasets_from_function(of_worker)
