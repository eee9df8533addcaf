"""An audit of the labels that a run was trained on."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from absl import logging

from tf_mwnet.audit import agreement, evidence, issue_summary, judging, scoring
from tf_mwnet.audit.agreement import Agreement
from tf_mwnet.config import Experiment
from tf_mwnet.errors import UserError, choose
from tf_mwnet.experiment import resolve
from tf_mwnet.experiment.runner import Result
from tf_mwnet.methods import METHODS
from tf_mwnet.runs import run_folder, saved_run
from tf_mwnet.types import LabelledSet, Source, Splits

# Set -> evidence, ids and true labels of its examples.
Sets = dict[str, tuple[evidence.Evidence, np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Audit:
    """The result of an audit of a run's labels.

    Attributes:
        table: a row per example, worst label first; see `audit`.
        classes: a row per class, see `issue_summary.of`.
        estimate: of the training set.
        precision: share of wrong labels among the E of lowest quality, where E is the true number
            of wrong labels in the training set, as far as it was seen; None if the truth is unknown or
            nothing is wrong.
        folder: of the run.
        method: the method whose training was used.
        config: the run's.
        examples: the audited examples; the index of ``table`` has their rows. None without the data.
        source: the data as it was loaded; None if it could not be loaded.
        agreement: with the test labels where nobody has checked these; else None.
        without: why near duplicates and outliers were not judged; "" if they were.
        errors: the number E.
    """

    table: pd.DataFrame
    classes: pd.DataFrame
    estimate: scoring.Estimate
    precision: float | None
    folder: pathlib.Path
    method: str
    config: Experiment
    examples: LabelledSet | None
    source: Source | None
    agreement: Agreement | None = None
    without: str = ""
    errors: int = 0


def examine(
    run: str | pathlib.Path | Result,
    method: str = "",
    source: Source | None = None,
    data_dir: str | None = None,
) -> Audit:
    """Audits the labels that a finished run was trained on.

    Args:
        run: its folder, or the result of `tf_mwnet.run`.
        method: the trained method whose record is used; by default the run's method.
        source: the data, for the folder of a run on data in memory.
        data_dir: where the data is now, if it has moved.

    Raises:
        UserError: there is no finished run, it has no such method, its files are damaged, or the data
            is not the data that it was trained on.

    Examples:
        >>> audit = examine("runs/mine")
        >>> audit.estimate.num_issues, audit.table.head()
    """
    folder = run.run_dir if isinstance(run, Result) else pathlib.Path(run)
    config, trained = saved_run.finished(folder)
    if isinstance(run, Result):
        config = run.config
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=data_dir)
    method = method or config.method
    choose("method of this run", method, {name: 0 for name in trained if "+" not in name})
    if METHODS[method].trains_on == "meta":
        raise UserError(f"method '{method}' has seen the meta set alone; allowed: another of the run")
    arrays = saved_run.split_arrays(folder)
    splits: Splits | None
    if isinstance(run, Result):
        source, splits = run.source, run.splits
    else:
        source, splits = _data(folder, config, source, arrays)
    names, truth = saved_run.data_facts(folder, arrays)
    seen = evidence.recorded(folder / method / "examples", arrays["train_y"], len(names))
    sets: Sets = {"train": (seen, arrays["train_ids"], arrays["train_true_y"])}
    classifier = saved_run.exported(folder, method, "classifier")
    for name, part in _held_out(source, splits, config).items():
        outputs = evidence.classify(classifier, part.x)
        sets[name] = (evidence.held_out(outputs, part.y), part.ids, part.true_y)
    examples = None if splits is None else judging.joined([getattr(splits, name) for name in sets])
    parts = None
    if splits is not None:
        parts = {name: getattr(splits, name) for name in sets} | _others(splits, sets)
    found = evidence.join([part for part, *_ in sets.values()])
    judged = judging.judge(found, len(seen), parts, functools.partial(evidence.hidden, classifier))
    table = _table(sets, found, judged, names, truth)
    if parts is not None and judged.neighbours is not None:
        table = table.join(judging.issues(judged, parts, names))
    classes = issue_summary.of(table, judged, names)
    table = table.sort_values("label_quality", kind="stable")
    precision, errors = _precision(table) if truth else (None, 0)
    agreed = None
    if not saved_run.is_test_checked(folder, config.dataset, truth):
        agreed = agreement.of_run(folder, method, arrays, judged.estimate.transition)
    return Audit(
        table, classes, judged.estimate, precision, folder, method, config, examples, source, agreed,
        judged.without, errors,
    )  # fmt: skip


def _data(
    folder: pathlib.Path, config: Experiment, source: Source | None, arrays: dict[str, np.ndarray]
) -> tuple[Source | None, Splits | None]:
    """Loads the run's data; returns Nones with a warning if it cannot be loaded."""
    try:
        _, source, splits = resolve.load(config, source)
    except UserError as error:
        logging.warning("no pictures and no held-out examples, since the data is not there: %s", error)
        return None, None
    run_folder.check_labels(folder, splits.labels(), arrays)
    return source, splits


def _held_out(
    source: Source | None, splits: Splits | None, config: Experiment
) -> dict[str, LabelledSet]:
    """Returns the sets that were held out of the training set with their given labels."""
    if source is None or splits is None:
        return {}
    parts = {"validation": splits.validation}
    if config.meta_labels == "noisy":
        parts["meta"] = splits.meta
    if not splits.truth_known:  # else its labels are the true ones
        parts["test"] = splits.test
    ids = source.train.ids
    return {k: v for k, v in parts.items() if v is not None and np.isin(v.ids, ids).all()}


def _others(splits: Splits, sets: Sets) -> dict[str, LabelledSet]:
    """Returns the sets that are not judged and have no example of those that are."""
    ids = np.concatenate([ids for _, ids, _ in sets.values()])
    every = {name: getattr(splits, name) for name in ("validation", "meta", "test") if name not in sets}
    return {k: v for k, v in every.items() if v is not None and not np.isin(v.ids, ids).any()}


def _table(
    sets: Sets,
    every: evidence.Evidence,
    judged: judging.Judgement,
    class_names: Sequence[str],
    truth: bool,
) -> pd.DataFrame:
    # Nothing is known of an example that was never drawn: it counts as neither right nor wrong.
    train = sets["train"][0]
    quality, best, count = judged.quality, judged.best, len(train)
    issues, threshold = scoring.flag(quality[:count], train.labels, best[:count], judged.estimate)
    held = (quality[count:] <= threshold) & (best[count:] != every.labels[count:])
    names = np.array(class_names)
    table = pd.DataFrame(
        {
            "id": np.concatenate([ids for _, ids, _ in sets.values()]),
            "set": np.repeat(list(sets), [len(part) for part, *_ in sets.values()]),
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
    return table


def _precision(table: pd.DataFrame) -> tuple[float | None, int]:
    train = table[(table.set == "train") & table.label_quality.notna()]
    wrong = int((~train.is_correct).sum())
    return (float((~train.is_correct[:wrong]).mean()) if wrong else None), wrong
