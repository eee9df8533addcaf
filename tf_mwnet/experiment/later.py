"""What comes after a training: its best epoch, fine-tuning, the backbone, shifted logits."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_mwnet import strategies
from tf_mwnet.config import Experiment
from tf_mwnet.experiment import post_hoc, training, unfreezing
from tf_mwnet.experiment.build import EMPTY
from tf_mwnet.export.saved_models import export_classifier, model_card
from tf_mwnet.figures import tables
from tf_mwnet.model import example_record
from tf_mwnet.model.reweighted import ReweightedModel
from tf_mwnet.runs import saved_run
from tf_mwnet.types import DataSpec, Splits


def later_stages(
    config: Experiment,
    splits: Splits,
    name: str,
    folder: pathlib.Path,
    model: ReweightedModel,
    strategy: tf.distribute.Strategy,
) -> Iterator[tuple[str, dict[str, Any], keras.Model]]:
    """Does what comes after a method's training; yields a name, a summary and a classifier for each."""
    classifier = model.final_classifier()
    if config.post_hoc_logit_adjustment:
        yield _adjusted(config, splits, name, folder, model, strategy)
    if config.then_unfreeze:
        yield _unfrozen(config, splits, name, folder, model, strategy)
    if splits.validation is not None:
        name = f"{name}+ES"
        rows = saved_run.read_metrics(folder / "metrics.csv")
        classifier, epoch = training.best_classifier(classifier, folder)
        yield name, tables.at_epoch(rows, epoch), classifier
    if config.then_fine_tune:
        start, folder = time.perf_counter(), folder / "fine_tuned"
        model = training.fine_tune(config, splits, folder, classifier, strategy)
        summary = tables.summary(saved_run.read_metrics(folder / "metrics.csv"))
        summary["seconds"] = time.perf_counter() - start
        yield f"{name}+FT", summary, model.final_classifier()


def _adjusted(
    config: Experiment,
    splits: Splits,
    name: str,
    folder: pathlib.Path,
    model: ReweightedModel,
    strategy: tf.distribute.Strategy,
) -> tuple[str, dict[str, Any], keras.Model]:
    """Shifts the logits and exports the classifier; see ``post_hoc_logit_adjustment``."""
    start, tau = time.perf_counter(), config.post_hoc_logit_adjustment
    classifier = post_hoc.adjusted(model.final_classifier(), splits, tau)
    rows = saved_run.read_metrics(folder / "metrics.csv")
    test = post_hoc.accuracy(classifier, splits)
    summary: dict[str, Any] = tables.at_epoch(rows, int(rows[-1]["epoch"]))
    summary |= {"last": test, "best": test, "seconds": time.perf_counter() - start, "tau": tau}
    path = saved_run.exported(folder.parent, name, f"adjusted_{tau:g}")
    if strategies.is_chief(strategy):
        further = {"post_hoc_logit_adjustment": tau}
        _export(config, name, path, classifier, splits.spec, model, summary, further)
    return f"{name}+LA", summary, classifier


def _export(
    config: Experiment,
    name: str,
    path: pathlib.Path,
    classifier: keras.Model,
    spec: DataSpec,
    model: ReweightedModel,
    summary: dict[str, Any],
    further: Mapping[str, Any] = EMPTY,
) -> None:
    """Exports a classifier with the losses of a model's record, unless an earlier start has."""
    if not path.exists():
        seen = example_record.columns(model.record)["loss"]
        settings = dataclasses.asdict(config) | {"method": name, "normalise": None}
        card = model_card(settings, spec, summary, seen, "classifier")
        export_classifier(classifier, spec, path, card | dict(further))


def _unfrozen(
    config: Experiment,
    splits: Splits,
    name: str,
    folder: pathlib.Path,
    model: ReweightedModel,
    strategy: tf.distribute.Strategy,
) -> tuple[str, dict[str, Any], keras.Model]:
    """Trains and exports backbone and head together; see ``then_unfreeze``."""
    start = time.perf_counter()
    whole, spec = unfreezing.unfreeze(config, splits, folder, model, strategy)
    summary = tables.summary(saved_run.read_metrics(folder / "unfrozen" / "metrics.csv"))
    summary["seconds"] = time.perf_counter() - start
    path, classifier = saved_run.exported(folder.parent, name, "unfrozen"), whole.final_classifier()
    if strategies.is_chief(strategy):
        _export(config, name, path, classifier, spec, whole, summary)
    return f"{name}+UF", summary, classifier
