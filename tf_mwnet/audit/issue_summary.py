"""Summarises an audit per class: how many labels of it look wrong, and which class it overlaps with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tf_mwnet.audit.judging import Judgement


def of(table: pd.DataFrame, judged: Judgement, class_names: Sequence[str]) -> pd.DataFrame:
    """Counts the issues of each class.

    Args:
        table: of N examples in their own order, see `tf_mwnet.audit`.
        judged: the judgement of the N labels.
        class_names: K names.

    Returns:
        K rows, of the examples with that given label: ``class``; ``examples``; ``label_issues``;
        ``label_quality``, their mean; ``near_duplicates``, ``near_duplicates_with_other_label`` and
        ``outliers``, where neighbours were looked for; ``suggested``, how many examples of any label
        most likely have this class; ``overlaps_with``, the class that is most easily taken for it, and
        ``overlap``, the mean probability of one where the other is the most likely class.
    """
    given = table.given_label
    groups = table.groupby(pd.Categorical(given, list(class_names)), observed=False)
    out = pd.DataFrame({"class": list(class_names), "examples": groups.size().to_numpy()})
    out["label_issues"] = groups.is_label_issue.sum().to_numpy()
    out["label_quality"] = groups.label_quality.mean().to_numpy()
    if "is_outlier_issue" in table:
        differs = table.is_near_duplicate_issue & (table.near_duplicate_label != given)
        out["near_duplicates"] = groups.is_near_duplicate_issue.sum().to_numpy()
        by = pd.Categorical(given, list(class_names))
        out["near_duplicates_with_other_label"] = differs.groupby(by, observed=False).sum().to_numpy()
        out["outliers"] = groups.is_outlier_issue.sum().to_numpy()
    overlap = overlaps(judged.shares, judged.best)
    other = overlap.argmax(axis=1)
    out["suggested"] = np.bincount(judged.best, minlength=len(class_names))
    out["overlaps_with"] = np.array(class_names)[other]
    out["overlap"] = overlap[np.arange(len(other)), other]
    return out


def overlaps(shares: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Computes how much pairs of classes overlap, symmetric ``[K, K]``, 0 on the diagonal.

    Args:
        shares: how likely each class is, ``[N, K]``; NaN where nothing is known.
        best: the most likely class, int ``[N]``.
    """
    known = np.isfinite(shares).all(axis=1)
    shares, best = shares[known], best[known]
    count = shares.shape[1]
    total = np.zeros((count, count))
    np.add.at(total, best, shares)
    mean = total / np.maximum(np.bincount(best, minlength=count), 1)[:, None]
    both = (mean + mean.T) / 2
    np.fill_diagonal(both, 0)
    return both
