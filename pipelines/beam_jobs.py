"""Processes many files with Apache Beam, on this machine or wherever the runner sends the work."""

from __future__ import annotations

import contextlib
import io
import pathlib
import pickle
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from absl import logging
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.work import statistics
from tf_mwnet.data import records
from tf_mwnet.errors import UserError

# Used for "DirectRunner", because Beam's own class of that name first tries to download a program.
HERE = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def options(runner: str, extra: Sequence[str] = ()) -> PipelineOptions:
    """Returns Beam's options.

    Examples:
        ``options("DirectRunner", ["--direct_num_workers=2"])``

    Args:
        runner: "DirectRunner" for this machine, or "FlinkRunner", "SparkRunner", "DataflowRunner" …
        extra: options of the runner, as ``--name=value``.

    Raises:
        UserError: Beam does not know the runner, an option, or the value of one.
    """
    try:
        beam.runners.create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(
            f"unknown runner '{runner}'; allowed: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner"
        ) from error
    name = HERE if runner == "DirectRunner" else runner
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:  # a hundred lines of usage
            settings = PipelineOptions([f"--runner={name}", *extra])
            given = settings.get_all_options(drop_default=True, retain_unknown_options=True)
            known = settings.get_all_options(retain_unknown_options=False)
    except SystemExit:
        reason = said.getvalue().strip().rpartition("error: ")[2]
        raise UserError(f"beam has a bad value: {reason}; allowed: as Beam's options have it") from None
    if unknown := sorted(set(given) - set(known)):
        raise UserError(f"beam has the option '{unknown[0]}'; allowed: those of Apache Beam's runners")
    return settings


def _packed(task: records.Task) -> bytes:
    # Compressed: the paths of a task are similar, and Beam keeps several copies of its input.
    return zlib.compress(pickle.dumps(task), 1)


def _write(task: bytes) -> int:
    return records.write_shard(*pickle.loads(zlib.decompress(task)))


def write_shards(tasks: Sequence[records.Task], settings: PipelineOptions) -> None:
    """Calls `records.write_shard` with each of ``tasks`` on Beam's workers."""
    start = time.perf_counter()
    with beam.Pipeline(options=settings) as pipeline:
        packed = [_packed(task) for task in tasks]
        _ = pipeline | beam.Create(packed) | beam.Reshuffle() | beam.Map(_write)
    size = sum(len(task[0]) for task in tasks)
    seconds = time.perf_counter() - start
    logging.info("%d examples written in %.0f s, %.0f a second", size, seconds, size / seconds)


class _Look(beam.DoFn):
    """Yields the sums of a file, and as side output the digests of its inputs."""

    def __init__(self, folder: str):
        self.folder = folder

    def process(self, task: tuple[str, str]) -> Iterator[statistics.Part | beam.pvalue.TaggedOutput]:
        split, path = task
        part, digests = statistics.of_shard(pathlib.Path(self.folder), split, pathlib.Path(path))
        yield part
        for digest, *place in digests:
            yield beam.pvalue.TaggedOutput("digests", (digest, tuple(place)))


def look(
    folder: pathlib.Path, settings: PipelineOptions, out: pathlib.Path
) -> tuple[dict[str, statistics.Part], list[list[statistics.Place]]]:
    """Computes the statistics of records.

    Args:
        folder: the records.
        settings: see `options`.
        out: an empty folder for the results of Beam's workers.

    Returns:
        The sums of each split; and groups of equal inputs, each as a list of split and id.

    Raises:
        UserError: a record file is missing or damaged.
    """
    tasks = [(split, str(path)) for split, path in statistics.shards(folder)]
    with beam.Pipeline(options=settings) as pipeline:
        looked = (
            pipeline
            | beam.Create(tasks)
            | beam.Reshuffle()
            | beam.ParDo(_Look(str(folder))).with_outputs("digests", main="parts")
        )
        _ = (
            looked.parts
            | beam.Map(lambda part: (part.split, part))
            | beam.CombinePerKey(_Sum())
            | "write parts" >> beam.Map(_keep, str(out), "part")
        )
        _ = (
            looked.digests
            | beam.GroupByKey()
            | beam.Map(lambda item: (item[0], statistics.repeated(item[1])))
            | beam.Filter(lambda item: item[1])
            | "write groups" >> beam.Map(_keep, str(out), "group")
        )
    parts = {part.split: part for part in _kept(out, "part")}
    order = dict.fromkeys(split for split, _ in tasks)
    return {split: parts[split] for split in order}, sorted(_kept(out, "group"))


class _Sum(beam.CombineFn):
    """Adds up sums with `statistics.merge_two`."""

    def create_accumulator(self) -> statistics.Part | None:
        return None

    def add_input(self, total: statistics.Part | None, part: statistics.Part) -> statistics.Part:
        return part if total is None else statistics.merge_two(total, part)

    def merge_accumulators(self, totals: Iterable[statistics.Part | None]) -> statistics.Part | None:
        merged = None
        for part in totals:
            if part is not None:
                merged = self.add_input(merged, part)
        return merged

    def extract_output(self, total: statistics.Part | None) -> statistics.Part | None:
        return total


def _keep(item: tuple[str, Any], folder: str, kind: str) -> None:
    key, value = item
    (pathlib.Path(folder) / f"{kind}-{key}.pkl").write_bytes(pickle.dumps(value))


def _kept(folder: pathlib.Path, kind: str) -> list[Any]:
    return [pickle.loads(path.read_bytes()) for path in sorted(folder.glob(f"{kind}-*.pkl"))]
