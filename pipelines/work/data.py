"""The components from raw data to biased examples."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from pipelines.work import validation
from pipelines.work.shared import FACTS_JSON, bias_of, experiment_of, keep_page, records_of, write_json
from pipelines.work.statistics import read as read_statistics
from pipelines.work.statistics import write as write_statistics
from tf_mwnet import data
from tf_mwnet.data import records
from tf_mwnet.errors import UserError
from tf_mwnet.experiment import resolve
from tf_mwnet.files import new_folder

if TYPE_CHECKING:
    from kfp import dsl


def example_gen(
    flags: Sequence[str], runner: str, beam_options: Sequence[str], examples: dsl.Dataset
) -> dict[str, Any]:
    """Writes the training, test and (clean) meta set as records, without noise and imbalance."""
    from pipelines import beam_jobs  # Beam takes a second to import

    config = experiment_of(flags)
    if config.dataset == "folder":  # images are decoded by the workers that write them
        config = dataclasses.replace(config, cache="none")
    config, source = resolve.find(config)
    bias = bias_of(config)
    noisy = config.meta_labels == "noisy" and source.meta is None
    bias = dataclasses.replace(
        bias,
        noise="none",
        imbalance_factor=1.0,
        class_counts=(),
        train_size=0,
        background_class="",
        meta_size=0 if noisy else bias.meta_size,
    )
    split = data.biased_source(source, data.make_splits(source, bias), bias)
    split = dataclasses.replace(split, bias=None, truth_known=source.truth_known)
    settings = beam_jobs.options(runner, beam_options)
    records.write(
        split, examples.path, each=functools.partial(beam_jobs.write_shards, settings=settings)
    )
    sizes = {name: len(part) for name, part in split.sets.items()}
    examples.metadata.update(sizes)
    return {"data_set": split.name, "examples": sizes}


def statistics_gen(
    examples: dsl.Dataset,
    runner: str,
    beam_options: Sequence[str],
    statistics: dsl.Artifact,
    page: dsl.HTML,
) -> dict[str, Any]:
    """Writes the statistics of records, and a page about them."""
    from pipelines import beam_jobs
    from pipelines.work import pages

    folder = pathlib.Path(examples.path)
    with tempfile.TemporaryDirectory() as work:
        settings = beam_jobs.options(runner, beam_options)
        parts, groups = beam_jobs.look(folder, settings, pathlib.Path(work))
    facts = records.read_facts(folder)
    with new_folder(pathlib.Path(statistics.path)) as out:
        write_statistics(facts, parts, groups, out)
    keep_page(page, lambda out: pages.of_data(out, facts, parts, groups))
    return {k: {"examples": int(p.counts.sum()), "mean": p.mean.tolist()} for k, p in parts.items()}


def schema_gen(examples: dsl.Dataset, statistics: dsl.Artifact, schema: dsl.Artifact) -> None:
    """Writes the schema that the training set follows."""
    numbers, _ = read_statistics(pathlib.Path(statistics.path))
    facts = records.read_facts(pathlib.Path(examples.path))
    with new_folder(pathlib.Path(schema.path)) as out:
        validation.write_schema(validation.schema_of(facts, numbers), out)


def example_validator(
    statistics: dsl.Artifact, schema: dsl.Artifact, max_duplicates: float, anomalies: dsl.Artifact
) -> dict[str, Any]:
    """Compares statistics with a schema; writes the anomalies.

    Raises:
        UserError: an anomaly is an error.
    """
    rule = validation.read_schema(pathlib.Path(schema.path))
    numbers, groups = read_statistics(pathlib.Path(statistics.path))
    problems = validation.anomalies(rule, numbers, groups, max_duplicates)
    for info in problems.anomaly_info.values():
        logging.warning("%s", info.description)
    if reasons := validation.blocking(problems):
        raise UserError(f"the data cannot be trained on: {'; '.join(reasons)}")
    with new_folder(pathlib.Path(anomalies.path)) as out:
        validation.write_anomalies(problems, out)
    return {"anomalies": {name: info.description for name, info in problems.anomaly_info.items()}}


def bias_gen(
    examples: dsl.Dataset, flags: Sequence[str], biased: dsl.Dataset, matrices: dsl.Artifact
) -> dict[str, Any]:
    """Puts noise and imbalance into records; writes the transition matrix, asked for and realised."""
    config, source = records_of(examples, flags)
    bias = bias_of(config)
    # The classes were chosen in `example_gen` and have been renumbered since.
    remaining = dataclasses.replace(bias, classes=())
    splits = data.make_splits(source, remaining)
    result = data.biased_source(source, splits, remaining)
    records.write(dataclasses.replace(result, bias=dataclasses.asdict(bias)), biased.path)
    train, classes = splits.train, splits.spec.num_classes
    counts = np.bincount(train.y, minlength=classes).tolist()
    rate = float(splits.corrupted.mean()) if splits.truth_known else None
    with new_folder(pathlib.Path(matrices.path)) as out:
        if splits.transition is not None:
            np.savetxt(out / "transition_matrix.csv", splits.transition, "%.6f", ",")
        if splits.truth_known:
            realised = data.realised_matrix(train.true_y, train.y, classes)
            np.savetxt(out / "realised_matrix.csv", realised, "%.6f", ",")
        write_json(out / FACTS_JSON, {"counts": counts, "noise_rate": rate})
    return {"bias": dataclasses.asdict(bias), "counts": counts, "noise_rate": rate}
