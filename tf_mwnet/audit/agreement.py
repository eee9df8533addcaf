"""How often predictions are right, from how often they agree with labels that nobody has checked."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np
from scipy import stats

from tf_mwnet.figures import run_data
from tf_mwnet.files import load_arrays


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How a classifier agrees with test labels that nobody has checked.

    Attributes:
        share: of the test examples for which it predicts the given label, 0 to 1.
        examples: their number.
        accuracy: an estimate of the share of right predictions, and its interval, see `accuracy`.
    """

    share: float
    examples: int
    accuracy: tuple[float, float, float] | None


def of_run(
    folder: pathlib.Path, method: str, arrays: Mapping[str, np.ndarray], transition: np.ndarray
) -> Agreement | None:
    """Measures the agreement of a run's last epoch; None where its predictions were not kept.

    Args:
        folder: of the run.
        method: of the run.
        arrays: of its ``split.npz``.
        transition: estimated, ``[K, K]``.
    """
    path = folder / method / run_data.PREDICTIONS
    if not path.is_file():
        return None
    predicted, labels = load_arrays(path)["predicted"], arrays["test_y"]
    share = float((predicted == labels).mean())
    return Agreement(share, len(labels), accuracy(predicted, labels, transition))


def accuracy(
    predicted: np.ndarray, labels: np.ndarray, transition: np.ndarray
) -> tuple[float, float, float] | None:
    """Estimates the accuracy of predictions from noisy labels and an estimated transition matrix.

    A prediction k is right with probability a, and else each other class is equally likely the true one.
    Given the true class, the label does not depend on the prediction. With T the transition matrix the
    expected agreement of an example is a T_kk + (1 - a) m_k, m_k the mean of T_jk over j != k, so that

        a = (agreement - mean m_k) / (mean T_kk - mean m_k)

    over the examples. It holds for examples that the classifier was not trained on, and only as far as T
    is right.

    Args:
        predicted, labels: predicted and given classes, int ``[n]``.
        transition: T, ``[K, K]``, row = true class.

    Returns:
        a, and a 90 % interval by that of the agreement (Wilson's), all cut to 0 to 1; None where T is so
        noisy that agreement tells nothing of the truth.
    """
    count = len(transition)
    by_chance = (transition.sum(axis=0) - np.diag(transition)) / max(count - 1, 1)
    low, high = by_chance[predicted].mean(), np.diag(transition)[predicted].mean()
    if not len(predicted) or high - low < 0.05:
        return None
    agreed = int((predicted == labels).sum())
    interval = stats.binomtest(agreed, len(labels)).proportion_ci(0.9, "wilson")
    shares = (agreed / len(labels), interval.low, interval.high)
    found = [float(np.clip((share - low) / (high - low), 0, 1)) for share in shares]
    return found[0], found[1], found[2]
