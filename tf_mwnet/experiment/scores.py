"""Scores of training examples that tell clean from corrupted labels, and how well they do."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sklearn.metrics import roc_auc_score


def mean_of_known(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Mean over arrays ``[N]``, float64, of the values that are no NaN; NaN where none is known."""
    stacked = np.stack(list(arrays)).astype(np.float64)
    known = np.isfinite(stacked)
    total, count = np.where(known, stacked, 0).sum(axis=0), known.sum(axis=0)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def clean_auc(corrupted: np.ndarray, score: np.ndarray) -> float:
    """AUC of telling clean from corrupted labels by a score that is high for clean ones.

    Args:
        corrupted: bool ``[N]``.
        score: float ``[N]``; NaN for examples not seen yet, which are left out.

    Returns:
        0 to 1, 0.5 for chance; NaN where only one kind is there, or all scores are equal, as the
        weights of plain training are.
    """
    seen = np.isfinite(score)
    clean = ~corrupted[seen]
    if clean.all() or not clean.any() or np.ptp(score[seen]) < 1e-6:
        return float("nan")
    return float(roc_auc_score(clean, score[seen]))
