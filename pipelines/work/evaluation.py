"""Whether a trained classifier is good enough: against plain training, and class by class."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
from typing import Any

import numpy as np

from tf_mwnet.audit.evidence import classify
from tf_mwnet.errors import check_range
from tf_mwnet.figures import matrices
from tf_mwnet.run_folder import exported, finished
from tf_mwnet.types import LabelledSet

NORMAL = statistics.NormalDist()


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A classifier on a test set of N examples, K classes. Shares are 0 to 1.

    Attributes:
        accuracy: share of right predictions.
        interval: Wilson's confidence interval of ``accuracy``.
        baseline_accuracy: that of the baseline.
        difference: ``accuracy`` less the baseline's.
        difference_interval: normal interval of the difference of paired shares.
        recall: of each class, ``[K]``.
        confusion: ``[K, K]``, row = true class, column = prediction.
        noise_auc: see `scores.clean_auc`, by the weights of the last epoch; None where it is not known.
        reasons: why it is not good enough; empty if it is.
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
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        arrays = {k: v.tolist() for k, v in fields.items() if isinstance(v, np.ndarray)}
        return fields | arrays | {"blessed": self.blessed}


def wilson(right: int, size: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson, 1927), each 0 to 1."""
    z = NORMAL.inv_cdf(0.5 + confidence / 2)
    share = right / size
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return float(centre - half), float(centre + half)


def paired_interval(right: np.ndarray, other: np.ndarray, confidence: float) -> tuple[float, float]:
    """Normal interval of the difference of two shares over the same examples, bool ``[N]`` each."""
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
    """Compares predictions with a baseline's on the same examples.

    Blessed is what is better than the baseline by more than ``margin`` and has at least ``min_recall``
    in each class that the test set has.

    Args:
        predicted: classes, int ``[N]``.
        baseline: the baseline's, int ``[N]``.
        labels: true ones, int ``[N]``.
        num_classes: K.
        margin, min_recall, confidence: 0 to 1.
        noise_auc: is passed on.
    """
    for name, value in (("margin", margin), ("min_recall", min_recall), ("confidence", confidence)):
        check_range(name, value, 0, 1)
    right, other = predicted == labels, baseline == labels
    matrix = matrices.confusion(labels, predicted, num_classes)
    sizes = matrix.sum(axis=1)
    recall = np.where(sizes > 0, np.diag(matrix) / np.maximum(sizes, 1), np.nan)
    difference = float(right.mean() - other.mean())
    reasons = []
    if not difference > margin:
        reasons.append(
            f"accuracy is {100 * right.mean():.1f} %, the baseline's {100 * other.mean():.1f} %; more"
            f" than {100 * margin:g} points above it are asked for"
        )
    worst = int(np.nanargmin(recall))
    if recall[worst] < min_recall:
        reasons.append(
            f"recall of class {worst} is {100 * recall[worst]:.1f} %; at least"
            f" {100 * min_recall:g} % are asked for"
        )
    return Evaluation(
        float(right.mean()),
        wilson(int(right.sum()), len(labels), confidence),
        float(other.mean()),
        difference,
        paired_interval(right, other, confidence),
        recall,
        matrix,
        noise_auc,
        tuple(reasons),
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
    """Judges a run's exported classifier by a baseline's on a test set, see `judge`.

    Args:
        run, baseline: folders of finished runs of one method each.
        test: held-out examples, true labels.
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
