"""Parts of global batches: what each of several replicas gets."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Share:
    """Whose parts of each global batch a stream gives, one after the other: those of some replicas.

    Attributes:
        first: number of the first of these replicas.
        count: how many they are.
        of: how many there are in all.
    """

    first: int = 0
    count: int = 1
    of: int = 1

    def numbers(self) -> tf.data.Dataset:
        return tf.data.Dataset.range(self.first, self.first + self.count)


WHOLE = Share()


class Stream(Protocol):
    """What gives a dataset of the parts of a share."""

    def __call__(self, share: Share = WHOLE) -> tf.data.Dataset: ...


def bounds(size: tf.Tensor, number: int | tf.Tensor, of: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where part ``number`` of a batch begins and ends; parts differ by at most one example."""
    return size * number // of, size * (number + 1) // of


def part(batch: Any, number: int | tf.Tensor, of: int | tf.Tensor) -> Any:
    """Part ``number`` of ``of`` of a structure of tensors ``[B, ...]`` of several B."""

    def cut(t: tf.Tensor) -> tf.Tensor:
        start, stop = bounds(tf.shape(t, out_type=tf.int64)[0], number, of)
        return t[start:stop]

    return tf.nest.map_structure(cut, batch)


def sharded(dataset: tf.data.Dataset) -> Stream:
    """The stream of the parts of a dataset's batches; each worker reads all of the dataset."""

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
    """A dataset that gives each replica its part of each global batch.

    TensorFlow's own splitting wants one batch size for all tensors of an element; here the two batches
    of a pair may differ in size. A worker reads the parts of its own replicas alone.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return stream(WHOLE)

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = replicas // context.num_input_pipelines
        return stream(Share(context.input_pipeline_id * count, count, replicas))

    return strategy.distribute_datasets_from_function(of_worker)
