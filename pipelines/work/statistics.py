"""Statistics of records: examples of each class, pixel values, and repeated inputs.

Each file is read by itself (`of_shard`) and the sums are added up (`merge_two`), so that many workers
can share a data set of any size. `pipelines.beam_jobs.look` does that.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import numpy as np
from tensorflow_metadata.proto.v0 import statistics_pb2

from tf_mwnet.data import records
from tf_mwnet.errors import UserError
from tf_mwnet.files import write_atomically

Place = tuple[str, str]  # split and id of an input
STATISTICS, DUPLICATES = "statistics.pb", "duplicates.csv"
SHOWN = 5  # ids of constant inputs to keep


@dataclasses.dataclass(frozen=True)
class Part:
    """Sums over some examples of a split, with K classes and C channels, made by `of_shard`.

    Attributes:
        split: "train", "meta" or "test".
        counts: examples of each given label, int ``[K]``.
        outside: examples whose label is not in 0..K-1.
        values: number of input values per channel; the one channel of texts is their length in
            characters.
        total: sum of the values, ``[C]``.
        square: sum of their squares, ``[C]``.
        low, high: smallest and largest value, ``[C]``.
        constant: ids of the first few inputs whose values are all equal.
        num_constant: number of such inputs.
    """

    split: str
    counts: np.ndarray
    outside: int
    values: int
    total: np.ndarray
    square: np.ndarray
    low: np.ndarray
    high: np.ndarray
    constant: tuple[str, ...]
    num_constant: int

    @property
    def mean(self) -> np.ndarray:
        """Mean of each channel, ``[C]``."""
        return self.total / max(self.values, 1)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of each channel, ``[C]``."""
        return np.sqrt(np.maximum(self.square / max(self.values, 1) - self.mean**2, 0))


def shards(folder: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
    """Returns split and path of each record file in a folder."""
    facts = records.read_facts(folder)
    return [
        (split, path)
        for split, sizes in facts["splits"].items()
        for path in records.files_of(folder, split, sizes["shards"])
    ]


def of_shard(
    folder: pathlib.Path, split: str, path: pathlib.Path
) -> tuple[Part, list[tuple[str, str, str]]]:
    """Reads a record file.

    Args:
        folder: folder of the records.
        split: the file's split.
        path: the file.

    Returns:
        The sums over its examples, and digest, split and id of each input.

    Raises:
        UserError: the file is missing or damaged.
    """
    facts = records.read_facts(folder)
    channels = facts["shape"][-1] if facts["shape"] else 1
    count = len(facts["classes"])
    part = _nothing(split, count, channels)
    digests = []
    for batch in records.batches(facts, [path], pixels=True):
        x, ids = batch["x"], [i.decode() for i in batch["id"]]
        texts = facts["dtype"] == records.STRING
        contents = x.tolist() if texts else (v.tobytes() for v in x)
        digests += [
            (hashlib.sha256(v).hexdigest(), split, i) for v, i in zip(contents, ids, strict=True)
        ]
        if texts:  # their lengths, in characters
            x = np.array([[len(v.decode())] for v in x])
        flat = x.reshape(len(x), -1)
        constant = (flat == flat[:, :1]).all(axis=1) & (flat.shape[1] > 1)
        rows = np.flatnonzero(constant)
        label, values = batch["label"], x.reshape(-1, channels).astype(np.float64)
        inside = (label >= 0) & (label < count)
        part = merge_two(
            part,
            Part(
                split, np.bincount(label[inside], minlength=count), int((~inside).sum()), len(values),
                values.sum(axis=0), (values**2).sum(axis=0), values.min(axis=0), values.max(axis=0),
                tuple(ids[i] for i in rows[:SHOWN]), len(rows),
            ),
        )  # fmt: skip
    return part, digests


def _nothing(split: str, classes: int, channels: int) -> Part:
    zero = np.zeros(channels)
    none = np.zeros(classes, np.int64)
    return Part(split, none, 0, 0, zero, zero, zero + np.inf, zero - np.inf, (), 0)


def merge_two(a: Part, b: Part) -> Part:
    """Adds the sums of two parts of the same split."""
    return Part(
        a.split, a.counts + b.counts, a.outside + b.outside, a.values + b.values, a.total + b.total,
        a.square + b.square, np.minimum(a.low, b.low), np.maximum(a.high, b.high),
        (a.constant + b.constant)[:SHOWN], a.num_constant + b.num_constant,
    )  # fmt: skip


def repeated(places: Iterable[Place]) -> list[Place]:
    """Returns the places of one input in order, or nothing if it occurs only once."""
    ordered = sorted(places)
    return ordered if len(ordered) > 1 else []


def overlap(groups: Sequence[Sequence[Place]], first: str, second: str) -> list[str]:
    """Returns the ids in split ``second`` of inputs that are also in split ``first``.

    Examples:
        >>> overlap([[("train", "a"), ("test", "b")], [("test", "c"), ("test", "d")]], "train", "test")
        ['b']

    Args:
        groups: places of equal inputs.
        first, second: names of splits.
    """
    return sorted(
        name
        for group in groups
        if first in {split for split, _ in group}
        for split, name in group
        if split == second
    )


# -------------------------------------------------------------------- as protos


def to_proto(
    facts: Mapping[str, Any], parts: Mapping[str, Part]
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Converts sums to TensorFlow Data Validation's format.

    Each split is a data set, with a feature for the label and one for each channel of the input. The
    label's `rank_histogram` has a bucket per class.

    Args:
        facts: see `records.read_facts`.
        parts: split -> its sums.
    """
    message = statistics_pb2.DatasetFeatureStatisticsList()
    for split, part in parts.items():
        size = int(part.counts.sum()) + part.outside
        data = message.datasets.add(name=split, num_examples=size)
        label = data.features.add(type=statistics_pb2.FeatureNameStatistics.INT)
        label.path.step.append("label")
        strings = label.string_stats
        strings.common_stats.num_non_missing = size
        strings.unique = int((part.counts > 0).sum())
        for name, count in zip(facts["classes"], part.counts, strict=True):
            strings.rank_histogram.buckets.add(label=name, sample_count=float(count))
        for name, number in (("out_of_range", part.outside), ("constant_inputs", part.num_constant)):
            label.custom_stats.add(name=name, num=number)
        label.custom_stats.add(name="constant_ids", str=", ".join(part.constant))
        for channel in range(len(part.total)):
            pixels = data.features.add(type=statistics_pb2.FeatureNameStatistics.FLOAT)
            pixels.path.step.extend(["x", str(channel)])
            numbers = pixels.num_stats
            numbers.common_stats.num_non_missing = size
            numbers.mean, numbers.std_dev = float(part.mean[channel]), float(part.std[channel])
            numbers.min, numbers.max = float(part.low[channel]), float(part.high[channel])
    return message


def write(
    facts: Mapping[str, Any],
    parts: Mapping[str, Part],
    groups: Sequence[Sequence[Place]],
    folder: pathlib.Path,
) -> None:
    """Writes the statistics as a protobuf file and the repeated inputs as a table.

    Args:
        facts: see `records.read_facts`.
        parts: split -> its sums.
        groups: places of equal inputs.
        folder: an existing folder.
    """
    message = to_proto(facts, parts).SerializeToString()
    write_atomically(folder / STATISTICS, lambda file: file.write(message))

    def rows(file: IO[str]) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["group", "split", "id"])
        for number, group in enumerate(groups):
            writer.writerows([number, split, name] for split, name in group)

    write_atomically(folder / DUPLICATES, rows, mode="w")


def read(
    folder: pathlib.Path,
) -> tuple[statistics_pb2.DatasetFeatureStatisticsList, list[list[Place]]]:
    """Reads what `write` has written: the statistics, and groups of equal inputs.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        message = (folder / STATISTICS).read_bytes()
        numbers = statistics_pb2.DatasetFeatureStatisticsList.FromString(message)
        with open(folder / DUPLICATES, newline="") as file:
            rows = list(csv.DictReader(file))
        groups: dict[str, list[Place]] = collections.defaultdict(list)
        for row in rows:
            groups[row["group"]].append((row["split"], row["id"]))
    except Exception as error:  # protobuf's own errors, and those of a damaged table
        raise UserError(f"statistics in '{folder}' cannot be read; allowed: as written") from error
    return numbers, list(groups.values())
