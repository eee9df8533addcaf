"""What comes after a training: its best epoch, fine-tuning, the backbone, shifted logits."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf
from absl import logging

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


@dataclasses.dataclass(frozen=True)
class Trained:
    """A method whose training has ended, with all that a later stage takes.

    Attributes:
        config: the run's.
        splits: its data.
        name: of the method.
        folder: of the method, in the run's.
        model: what was trained.
        strategy: to train under.
    """

    config: Experiment
    splits: Splits
    name: str
    folder: pathlib.Path
    model: ReweightedModel
    strategy: tf.distribute.Strategy

    def stages(self) -> Iterator[tuple[str, dict[str, Any], keras.Model]]:
        """Does what comes afterwards; yields a name, a summary and a classifier for each."""
        classifier, name = self.model.final_classifier(), self.name
        if self.config.post_hoc_logit_adjustment and self.model.method.shifts_logits:
            logging.info("%s: its logits are shifted in training, and not once more", name)
        elif self.config.post_hoc_logit_adjustment:
            yield self._adjusted()
        if self.config.then_unfreeze:
            yield self._unfrozen()
        if self.splits.validation is not None:
            name = f"{name}+ES"
            classifier, epoch = training.best_classifier(classifier, self.folder)
            yield name, tables.at_epoch(_rows(self.folder), epoch), classifier
        if self.config.then_fine_tune:
            start, folder = time.perf_counter(), self.folder / "fine_tuned"
            model = training.fine_tune(self.config, self.splits, folder, classifier, self.strategy)
            summary = tables.summary(_rows(folder))
            summary["seconds"] = time.perf_counter() - start
            yield f"{name}+FT", summary, model.final_classifier()

    def _adjusted(self) -> tuple[str, dict[str, Any], keras.Model]:
        """Shifts the logits and exports the classifier; see ``post_hoc_logit_adjustment``."""
        start, tau = time.perf_counter(), self.config.post_hoc_logit_adjustment
        classifier = post_hoc.adjusted(self.model.final_classifier(), self.splits, tau)
        rows = _rows(self.folder)
        test = post_hoc.accuracy(classifier, self.splits)
        summary: dict[str, Any] = tables.at_epoch(rows, int(rows[-1]["epoch"]))
        summary |= {"last": test, "best": test, "seconds": time.perf_counter() - start, "tau": tau}
        further = {"post_hoc_logit_adjustment": tau}
        self._export(f"adjusted_{tau:g}", classifier, self.splits.spec, self.model, summary, further)
        return f"{self.name}+LA", summary, classifier

    def _unfrozen(self) -> tuple[str, dict[str, Any], keras.Model]:
        """Trains and exports backbone and head together; see ``then_unfreeze``."""
        start = time.perf_counter()
        whole, spec = unfreezing.unfreeze(
            self.config, self.splits, self.folder, self.model, self.strategy
        )
        summary = tables.summary(_rows(self.folder / "unfrozen"))
        summary["seconds"] = time.perf_counter() - start
        classifier = whole.final_classifier()
        self._export("unfrozen", classifier, spec, whole, summary)
        return f"{self.name}+UF", summary, classifier

    def _export(
        self,
        what: str,
        classifier: keras.Model,
        spec: DataSpec,
        model: ReweightedModel,
        summary: dict[str, Any],
        further: Mapping[str, Any] = EMPTY,
    ) -> None:
        """Exports a classifier with the losses of a model's record, unless an earlier start has."""
        path = saved_run.exported(self.folder.parent, self.name, what)
        if path.exists() or not strategies.is_chief(self.strategy):
            return
        seen = example_record.columns(model.record)["loss"]
        settings = dataclasses.asdict(self.config) | {"method": self.name, "normalise": None}
        card = model_card(settings, spec, summary, seen, "classifier")
        export_classifier(classifier, spec, path, card | dict(further))


def _rows(folder: pathlib.Path) -> list[dict[str, float]]:
    return saved_run.read_metrics(folder / "metrics.csv")
