"""An audit of the labels that a run was trained on."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pandas as pd
from absl import logging

from tf_mwnet import run_folder
from tf_mwnet.audit import evidence, scoring
from tf_mwnet.config import Experiment
from tf_mwnet.errors import UserError, choose
from tf_mwnet.experiment import resolve
from tf_mwnet.experiment.runner import Result
from tf_mwnet.files import load_arrays
from tf_mwnet.methods import METHODS
from tf_mwnet.types import LabelledSet, Source


@dataclasses.dataclass(frozen=True)
class Audit:
    """What was found about the labels of a run's data.

    Attributes:
        table: a row per example, worst label first; see `audit`.
        estimate: of the training set.
        precision: share of wrong labels among the E of lowest quality, where E is the true number
            of wrong labels in the training set, as far as it was looked at; None where the truth is
            unknown or nothing is wrong.
        folder: of the run.
        method: whose training it is.
        config: the run's.
        examples: those in ``table``, whose index has their rows here; None without the data.
        source: the data as it was found; None where it could not be loaded.
    """

    table: pd.DataFrame
    estimate: scoring.Estimate
    precision: float | None
    folder: pathlib.Path
    method: str
    config: Experiment
    examples: LabelledSet | None
    source: Source | None


def examine(
    run: str | pathlib.Path | Result,
    method: str = "",
    source: Source | None = None,
    data_dir: str | None = None,
) -> Audit:
    """Audits the labels that a finished run was trained on.

    Args:
        run: its folder, or what `tf_mwnet.run` gave back.
        method: the method of the run to go by; that of the run by default.
        source: the data, for the folder of a run on data in memory.
        data_dir: where the data is now, if it has moved.

    Raises:
        UserError: there is no finished run, it has no such method, its files are damaged, or the data
            is not what it was trained on.
    """
    result = run if isinstance(run, Result) else None
    folder = result.run_dir if result else pathlib.Path(run)
    config, trained = run_folder.finished(folder)
    config = result.config if result else config
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=data_dir)
    method = method or config.method
    choose("method of this run", method, {name: 0 for name in trained if "+" not in name})
    if METHODS[method].trains_on == "meta":
        raise UserError(f"method '{method}' has seen the meta set alone; allowed: another of the run")
    arrays = load_arrays(folder / run_folder.SPLIT)
    if result:
        source, splits = result.source, result.splits
    else:
        source, splits = _data(folder, config, source, arrays)
    names, truth = run_folder.data_facts(folder, arrays)
    found = evidence.recorded(folder / method / "examples", arrays["train_y"], len(names))
    sets = {"train": (found, arrays["train_ids"], arrays["train_true_y"])}
    for name, part in _held_out(source, splits, config).items():
        x = evidence.classify(run_folder.exported(folder, method, "classifier"), part.x)
        sets[name] = (evidence.predicted(x, part.y), part.ids, part.true_y)
    table, estimate = _table(sets, names, truth)
    examples = None if splits is None else _joined(splits, list(sets))
    precision = _precision(table) if truth else None
    return Audit(table, estimate, precision, folder, method, config, examples, source)


def _data(folder, config, source, arrays):
    """The run's data, or Nones where it can not be loaded; a warning says why."""
    try:
        _, source, splits = resolve.load(config, source)
    except UserError as error:
        logging.warning("no pictures and no held-out examples, since the data is not there: %s", error)
        return None, None
    run_folder.check_labels(folder, splits.labels(), arrays)
    return source, splits


def _held_out(source, splits, config) -> dict[str, LabelledSet]:
    """What was taken out of the training set with the labels as they are."""
    if splits is None:
        return {}
    parts = {"validation": splits.validation}
    if config.meta_labels == "noisy":
        parts["meta"] = splits.meta
    if not splits.truth_known:  # else its labels are the true ones
        parts["test"] = splits.test
    out = {k: v for k, v in parts.items() if v is not None}
    return {k: v for k, v in out.items() if np.isin(v.ids, source.train.ids).all()}


def _joined(splits, names) -> LabelledSet:
    found = getattr(splits, names[0])
    for name in names[1:]:
        found = found.joined(getattr(splits, name))
    return found


def _table(sets, names, truth) -> tuple[pd.DataFrame, scoring.Estimate]:
    # Of an example that was never drawn nothing is known: it counts as neither right nor wrong.
    train = sets["train"][0]
    estimate = scoring.estimate(train)
    every = evidence.join([found for found, *_ in sets.values()])
    quality = scoring.label_quality(every, estimate.transition)
    best = scoring.suggested(every)
    count = len(train)
    issues, threshold = scoring.flag(quality[:count], train.labels, best[:count], estimate)
    held = (quality[count:] <= threshold) & (best[count:] != every.labels[count:])
    names = np.array(names)
    table = pd.DataFrame(
        {
            "id": np.concatenate([ids for _, ids, _ in sets.values()]),
            "set": np.repeat(list(sets), [len(found) for found, *_ in sets.values()]),
            "given_label": names[every.labels],
            "predicted_label": names[best],
            "label_quality": quality,
            "is_label_issue": np.concatenate([issues, held]),
            "weight": every.weight,
            "loss": every.loss,
            "probability": every.probability,
        }
    )
    if truth:
        true = np.concatenate([true_y for *_, true_y in sets.values()])
        table["is_correct"] = every.labels == true
    return table.sort_values("label_quality", kind="stable"), estimate


def _precision(table: pd.DataFrame) -> float | None:
    train = table[(table.set == "train") & table.label_quality.notna()]
    wrong = int((~train.is_correct).sum())
    return float((~train.is_correct[:wrong]).mean()) if wrong else None
