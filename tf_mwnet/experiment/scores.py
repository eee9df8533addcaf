"""Scores of training examples, and how well they separate clean from corrupted labels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sklearn.metrics import roc_auc_score


def mean_of_known(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Averages arrays ``[N]``, in float64, over the values that are not NaN; NaN where all are."""
    stacked = np.stack(list(arrays)).astype(np.float64)
    known = np.isfinite(stacked)
    total, count = np.where(known, stacked, 0).sum(axis=0), known.sum(axis=0)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def clean_auc(corrupted: np.ndarray, score: np.ndarray) -> float:
    """Computes the AUC of separating clean from corrupted labels by a score that is high if clean.

    Args:
        corrupted: bool ``[N]``.
        score: float ``[N]``; NaN for examples not seen yet, which are left out.

    Returns:
        0 to 1, 0.5 is chance; NaN if there is only one kind, or if all scores are equal, as the weights
        of plain training are.
    """
    seen = np.isfinite(score)
    clean = ~corrupted[seen]
    if clean.all() or not clean.any() or np.ptp(score[seen]) < 1e-6:
        return float("nan")
    return float(roc_auc_score(clean, score[seen]))
