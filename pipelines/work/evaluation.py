"""Decides whether a trained classifier is good enough: better than a baseline, and in every class."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

from tf_mwnet.audit.evidence import classify
from tf_mwnet.errors import check_range
from tf_mwnet.figures import matrices
from tf_mwnet.runs.saved_run import exported, finished
from tf_mwnet.types import LabelledSet

NORMAL = statistics.NormalDist()


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The evaluation of a classifier on a test set of N examples and K classes, made by `judge`.

    Attributes:
        accuracy: share of correct predictions, 0 to 1.
        interval: Wilson's confidence interval of ``accuracy``.
        baseline_accuracy: accuracy of the baseline, 0 to 1.
        difference: ``accuracy - baseline_accuracy``.
        difference_interval: normal confidence interval of the difference of paired shares.
        recall: recall of each class, ``[K]``, NaN for a class without test examples.
        confusion: counts ``[K, K]``, row = true class, column = predicted class.
        noise_auc: AUC of telling clean from corrupted labels by the weights of the last epoch; None if
            it is not known.
        reasons: why the classifier is not good enough; empty if it is.
    """

    accuracy: float
    interval: tuple[float, float]
    baseline_accuracy: float
    difference: float
    difference_interval: tuple[float, float]
    recall: np.ndarray
    confusion: np.ndarray
    noise_auc: float | None
    reasons: tuple[str, ...]

    @property
    def blessed(self) -> bool:
        """Whether the classifier is good enough to be pushed."""
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields and "blessed", as values that can be written as JSON."""
        fields = dataclasses.asdict(self)
        arrays = {k: v.tolist() for k, v in fields.items() if isinstance(v, np.ndarray)}
        return fields | arrays | {"blessed": self.blessed}


def wilson(right: int, size: int, confidence: float) -> tuple[float, float]:
    """Returns Wilson's score interval of a share (Wilson, 1927).

    Examples:
        >>> low, high = wilson(right=90, size=100, confidence=0.95)
        >>> round(low, 3), round(high, 3)
        (0.826, 0.945)

    Args:
        right: number of correct predictions.
        size: number of predictions.
        confidence: level of the interval, 0 to 1.

    Returns:
        Lower and upper end, 0 to 1.
    """
    z = NORMAL.inv_cdf(0.5 + confidence / 2)
    share = right / size
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return float(centre - half), float(centre + half)


def paired_interval(right: np.ndarray, other: np.ndarray, confidence: float) -> tuple[float, float]:
    """Returns the normal interval of the difference of two shares over the same examples.

    Args:
        right, other: which predictions are correct, bool ``[N]``.
        confidence: level of the interval, 0 to 1.
    """
    gain = right.astype(float) - other.astype(float)
    half = NORMAL.inv_cdf(0.5 + confidence / 2) * gain.std(ddof=1) / np.sqrt(len(gain))
    return float(gain.mean() - half), float(gain.mean() + half)


def judge(
    predicted: np.ndarray,
    baseline: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    margin: float = 0.0,
    min_recall: float = 0.0,
    confidence: float = 0.95,
    noise_auc: float | None = None,
) -> Evaluation:
    """Compares predictions with those of a baseline on the same examples.

    The classifier is blessed if its accuracy exceeds the baseline's by more than ``margin``, and its
    recall is at least ``min_recall`` in each class of the test set.

    Examples:
        >>> labels = np.array([0, 0, 1, 1])
        >>> result = judge(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), labels, num_classes=2)
        >>> result.blessed, result.difference
        (True, 0.25)

    Args:
        predicted: predicted classes, int ``[N]``.
        baseline: the baseline's predictions, int ``[N]``.
        labels: true labels, int ``[N]``.
        num_classes: K.
        margin, min_recall: see above, 0 to 1.
        confidence: level of the intervals, 0 to 1.
        noise_auc: see `Evaluation`.

    Raises:
        UserError: a value is not in its range.
    """
    for name, value in (("margin", margin), ("min_recall", min_recall), ("confidence", confidence)):
        check_range(name, value, 0, 1)
    right, other = predicted == labels, baseline == labels
    matrix = matrices.confusion(labels, predicted, num_classes)
    sizes = matrix.sum(axis=1)
    recall = np.where(sizes > 0, np.diag(matrix) / np.maximum(sizes, 1), np.nan)
    accuracy, baseline_accuracy = float(right.mean()), float(other.mean())
    return Evaluation(
        accuracy,
        wilson(int(right.sum()), len(labels), confidence),
        baseline_accuracy,
        accuracy - baseline_accuracy,
        paired_interval(right, other, confidence),
        recall,
        matrix,
        noise_auc,
        tuple(_reasons(accuracy, baseline_accuracy, recall, margin, min_recall)),
    )


def _reasons(
    accuracy: float, baseline: float, recall: np.ndarray, margin: float, min_recall: float
) -> Iterator[str]:
    if not accuracy - baseline > margin:
        yield (
            f"accuracy is {100 * accuracy:.1f} %, the baseline's {100 * baseline:.1f} %; more than"
            f" {100 * margin:g} points above it are asked for"
        )
    worst = int(np.nanargmin(recall))
    if recall[worst] < min_recall:
        yield (
            f"recall of class {worst} is {100 * recall[worst]:.1f} %; at least"
            f" {100 * min_recall:g} % are asked for"
        )


def evaluate(
    run: pathlib.Path,
    baseline: pathlib.Path,
    test: LabelledSet,
    num_classes: int,
    margin: float = 0.0,
    min_recall: float = 0.0,
    confidence: float = 0.95,
) -> Evaluation:
    """Judges the exported classifier of a run against that of a baseline, see `judge`.

    Args:
        run, baseline: folders of finished runs of one method each.
        test: held-out examples with true labels.
        num_classes: K.
        margin, min_recall, confidence: see `judge`.

    Raises:
        UserError: a run is not finished, or an export is damaged.
    """

    def predict(folder: pathlib.Path) -> np.ndarray:
        method = finished(folder)[0].method
        return classify(exported(folder, method, "classifier"), test.x).argmax(axis=1)

    predicted, other = predict(run), predict(baseline)
    config, summaries = finished(run)
    auc = summaries[config.method].get("auc_weight")
    return judge(predicted, other, test.true_y, num_classes, margin, min_recall, confidence, auc)
