"""Derives a schema from the training set and finds anomalies: where a data set breaks the schema."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from pipelines.work import statistics
from tf_mwnet.errors import UserError, check_range, quoted
from tf_mwnet.files import write_atomically

SCHEMA, ANOMALIES = "schema.pbtxt", "anomalies.pbtxt"
TRAIN, META, TEST = "train", "meta", "test"
Info = anomalies_pb2.AnomalyInfo


def schema_of(
    facts: Mapping[str, Any], numbers: statistics_pb2.DatasetFeatureStatisticsList
) -> schema_pb2.Schema:
    """Derives classes, type and value range of the input from the training set.

    Args:
        facts: see `records.read_facts`.
        numbers: statistics of the splits, see `statistics.to_proto`.
    """
    schema = schema_pb2.Schema()
    schema.feature.add(name="id", type=schema_pb2.BYTES)
    label = schema.feature.add(name="label", type=schema_pb2.INT)
    label.int_domain.min, label.int_domain.max = 0, len(facts["classes"]) - 1
    label.int_domain.is_categorical = True
    label.annotation.tag.extend(facts["classes"])
    whole = facts["dtype"] == "uint8"
    x = schema.feature.add(name="x", type=schema_pb2.BYTES if whole else schema_pb2.FLOAT)
    for size in facts["shape"]:
        x.shape.dim.add(size=size)
    train = next((d for d in numbers.datasets if d.name == TRAIN), None)
    channels = [f.num_stats for f in train.features if f.path.step[0] == "x"] if train else []
    if channels and not whole:
        x.float_domain.min = min(c.min for c in channels)
        x.float_domain.max = max(c.max for c in channels)
    return schema


def write_schema(schema: schema_pb2.Schema, folder: pathlib.Path) -> None:
    """Writes a schema as text."""
    text = text_format.MessageToString(schema)
    write_atomically(folder / SCHEMA, lambda file: file.write(text), mode="w")


def read_schema(folder: pathlib.Path) -> schema_pb2.Schema:
    """Reads what `write_schema` has written.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return text_format.Parse((folder / SCHEMA).read_text("utf-8"), schema_pb2.Schema())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise UserError(f"schema in '{folder}' cannot be read; allowed: as written") from error


def anomalies(
    schema: schema_pb2.Schema,
    numbers: statistics_pb2.DatasetFeatureStatisticsList,
    groups: Sequence[Sequence[statistics.Place]],
    max_duplicates: float = 0.01,
) -> anomalies_pb2.Anomalies:
    """Finds anomalies. Errors stop a pipeline; warnings do not.

    Errors are: a class without examples in a split; labels out of range; constant inputs; and more than
    ``max_duplicates`` of the meta or test set in the training set, or of the test set in the meta set.
    Fewer duplicates are a warning, as published sets have some. Values far out of the schema's range are
    a warning, too.

    Args:
        schema: see `schema_of`.
        numbers: statistics of the splits, see `statistics.to_proto`.
        groups: split and id of equal inputs, see `pipelines.beam_jobs.look`.
        max_duplicates: share of a set, 0 to 1.

    Raises:
        UserError: ``max_duplicates`` is out of range.
    """
    check_range("max_duplicates", max_duplicates, 0, 1)
    result = anomalies_pb2.Anomalies(baseline=schema)
    sizes = {data.name: data.num_examples for data in numbers.datasets}

    def add(name: str, short: str, text: str, blocks: bool = True) -> None:
        result.anomaly_info[name].severity = Info.ERROR if blocks else Info.WARNING
        result.anomaly_info[name].short_description = short
        result.anomaly_info[name].description = text

    for data in numbers.datasets:
        label = next(f for f in data.features if f.path.step[0] == "label")
        custom = {c.name: c for c in label.custom_stats}
        buckets = label.string_stats.rank_histogram.buckets
        missing = [b.label for b in buckets if not b.sample_count]
        if missing:
            add(f"{data.name}/classes", "class missing",
                f"no example of class {quoted(missing[:5])} in {data.name}")  # fmt: skip
        if outside := int(custom["out_of_range"].num):
            top = next(f for f in schema.feature if f.name == "label").int_domain.max
            add(f"{data.name}/label", "label out of range",
                f"{outside} labels of {data.name} are not 0 to {top}")  # fmt: skip
        if constant := int(custom["constant_inputs"].num):
            add(f"{data.name}/constant", "constant inputs",
                f"{constant} inputs of {data.name} hold one value only:"
                f" {custom['constant_ids'].str}")  # fmt: skip
        _values(schema, data, add)
    for first, second in ((TRAIN, META), (TRAIN, TEST), (META, TEST)):
        twice = statistics.overlap(groups, first, second)
        if twice and second in sizes:
            share = len(twice) / sizes[second]
            text = (
                f"{len(twice)} of {sizes[second]} inputs of {second} are in {first} too"
                f" ({quoted(twice[:3])}); at most {100 * max_duplicates:g} % are allowed"
            )
            add(f"{second}/duplicates_of_{first}", "duplicates", text, share > max_duplicates)
    return result


def _values(
    schema: schema_pb2.Schema,
    data: statistics_pb2.DatasetFeatureStatistics,
    add: Callable[[str, str, str, bool], None],
) -> None:
    domain = next(f for f in schema.feature if f.name == "x").float_domain
    channels = [f.num_stats for f in data.features if f.path.step[0] == "x"]
    low, high = min(c.min for c in channels), max(c.max for c in channels)
    spread = domain.max - domain.min
    if spread and (low < domain.min - spread or high > domain.max + spread):
        add(f"{data.name}/range", "values far out of range",
            f"values of {data.name} are {low:g} to {high:g}, those of train {domain.min:g} to"
            f" {domain.max:g}", False)  # fmt: skip


def blocking(problems: anomalies_pb2.Anomalies) -> list[str]:
    """Returns the descriptions of the anomalies that are errors."""
    return [i.description for _, i in sorted(problems.anomaly_info.items()) if i.severity == Info.ERROR]


def write_anomalies(problems: anomalies_pb2.Anomalies, folder: pathlib.Path) -> None:
    """Writes anomalies as text."""
    text = text_format.MessageToString(problems)
    write_atomically(folder / ANOMALIES, lambda file: file.write(text), mode="w")
