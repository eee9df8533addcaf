"""From raw data to biased examples."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import logging

from pipelines.work.shared import FACTS, bias_of, experiment_of, keep_page, records_of, write_json
from tf_mwnet.errors import UserError
from tf_mwnet.files import new_folder

if TYPE_CHECKING:
    from kfp import dsl


def example_gen(
    flags: Sequence[str], runner: str, beam_options: Sequence[str], examples: dsl.Dataset
) -> dict[str, Any]:
    from pipelines import beam_jobs
    from tf_mwnet import data
    from tf_mwnet.data import records
    from tf_mwnet.experiment.resolve import find

    config = experiment_of(flags)
    if config.dataset == "folder":  # each image is decoded where it is written
        config = dataclasses.replace(config, cache="none")
    config, source = find(config)
    bias = bias_of(config)
    noisy = config.meta_labels == "noisy" and source.meta is None
    bias = dataclasses.replace(
        bias,
        noise="none",
        imbalance_factor=1.0,
        class_counts=(),
        meta_size=0 if noisy else bias.meta_size,
    )
    splits = data.make_splits(source, bias)
    found = data.biased_source(source, splits, bias)
    found = dataclasses.replace(found, bias=None, truth_known=source.truth_known)
    settings = beam_jobs.options(runner, beam_options)
    records.write(
        found, examples.path, each=functools.partial(beam_jobs.write_shards, settings=settings)
    )
    sizes = {k: len(v) for k in ("train", "meta", "test") if (v := getattr(found, k)) is not None}
    examples.metadata.update(sizes)
    return {"data_set": found.name, "examples": sizes}


def statistics_gen(
    examples: dsl.Dataset,
    runner: str,
    beam_options: Sequence[str],
    statistics: dsl.Artifact,
    page: dsl.HTML,
) -> dict[str, Any]:
    from pipelines import beam_jobs
    from pipelines.work import pages
    from pipelines.work import statistics as found
    from tf_mwnet.data import records

    folder = pathlib.Path(examples.path)
    with tempfile.TemporaryDirectory() as work:
        settings = beam_jobs.options(runner, beam_options)
        parts, groups = beam_jobs.look(folder, settings, pathlib.Path(work))
    facts = records.read_facts(folder)
    with new_folder(pathlib.Path(statistics.path)) as out:
        found.write(facts, parts, groups, out)
    keep_page(page, lambda out: pages.of_data(out, facts, parts, groups))
    return {k: {"examples": int(p.counts.sum()), "mean": p.mean.tolist()} for k, p in parts.items()}


def schema_gen(examples: dsl.Dataset, statistics: dsl.Artifact, schema: dsl.Artifact) -> None:
    from pipelines.work import statistics as found
    from pipelines.work import validation
    from tf_mwnet.data import records

    numbers, _ = found.read(pathlib.Path(statistics.path))
    facts = records.read_facts(pathlib.Path(examples.path))
    with new_folder(pathlib.Path(schema.path)) as out:
        validation.write_schema(validation.schema_of(facts, numbers), out)


def example_validator(
    statistics: dsl.Artifact, schema: dsl.Artifact, max_duplicates: float, anomalies: dsl.Artifact
) -> dict[str, Any]:
    from pipelines.work import statistics as numbers
    from pipelines.work import validation

    rule = validation.read_schema(pathlib.Path(schema.path))
    found = validation.anomalies(rule, *numbers.read(pathlib.Path(statistics.path)), max_duplicates)
    for info in found.anomaly_info.values():
        logging.warning("%s", info.description)
    if reasons := validation.blocking(found):
        raise UserError(f"the data can not be trained on: {'; '.join(reasons)}")
    with new_folder(pathlib.Path(anomalies.path)) as out:
        validation.write_anomalies(found, out)
    return {"anomalies": {k: v.description for k, v in found.anomaly_info.items()}}


def bias_gen(
    examples: dsl.Dataset, flags: Sequence[str], biased: dsl.Dataset, matrices: dsl.Artifact
) -> dict[str, Any]:
    import numpy as np

    from tf_mwnet import data
    from tf_mwnet.data import records

    config, source = records_of(examples, flags)
    bias = bias_of(config)
    # Classes were chosen with the examples, and have other numbers now.
    splits = data.make_splits(source, dataclasses.replace(bias, classes=()))
    found = dataclasses.replace(
        data.biased_source(source, splits, dataclasses.replace(bias, classes=())),
        bias=dataclasses.asdict(bias),
    )
    records.write(found, biased.path)
    train, classes = splits.train, splits.spec.num_classes
    counts = np.bincount(train.y, minlength=classes).tolist()
    rate = float(splits.corrupted.mean()) if splits.truth_known else None
    with new_folder(pathlib.Path(matrices.path)) as out:
        if splits.transition is not None:
            np.savetxt(out / "transition_matrix.csv", splits.transition, "%.6f", ",")
        if splits.truth_known:
            realised = data.realised_matrix(train.true_y, train.y, classes)
            np.savetxt(out / "realised_matrix.csv", realised, "%.6f", ",")
        write_json(out / FACTS, {"counts": counts, "noise_rate": rate})
    return {"bias": dataclasses.asdict(bias), "counts": counts, "noise_rate": rate}
