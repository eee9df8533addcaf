"""Computes the quality of each label, and estimates how many are wrong.

Let p be the probability that the classifier gave to the label, and v_k how often it predicted class k,
both averaged over the epochs of a training (see `evidence.epoch_weight`). The agreement with the given
label is s = (p + v_given) / 2; the votes remain useful if the classifier memorises wrong labels in the
end. A label that the classifier contradicts may still be right if labels are rarely wrong in that
direction. By Bayes' rule the posterior of the given label i is

    b = s T_ii / (s T_ii + sum_{k != i} (1 - s) v_k / (1 - v_i) T_ki)

with T the noise transition matrix, row = true class. The quality of a label is the mean of s and b.
docs/results.md has the measurements, also of the alternatives that were tried.

Without neighbours (see `judging`), T and the number of wrong labels are estimated where the classifier
is most certain. Among the examples
predicted as class j, those with the most votes for j are taken to be of class j, and their given labels
are a sample of row j. These are anchor points (Patrini et al., CVPR 2017, section 4.2), who take one
point per class and its probabilities; here it is a fifth of the examples, and their labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import stats

from tf_mwnet.audit.evidence import Evidence

ANCHORS = 0.2  # share of the examples of a predicted class
FEWEST = 5
SMOOTHING = 0.3


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An estimate of the label noise of a training set.

    Attributes:
        num_issues: estimated number of wrong labels.
        noise_rate: their share, 0 to 1.
        transition: ``[K, K]``, row = true class, column = given label; rows sum to 1. The row of a
            class that was never predicted has 1 on the diagonal.
        interval: of ``num_issues``, 90 %, by a bootstrap over the examples. It tells how much another
            sample of data would change the estimate, not how far a weak classifier misleads it.
    """

    num_issues: int
    noise_rate: float
    transition: np.ndarray
    interval: tuple[int, int] = (0, 0)


def agreement(evidence: Evidence) -> np.ndarray:
    """Computes s, ``[N]``, 0 (contradicted) to 1 (confirmed); NaN if nothing is known."""
    rows = np.arange(len(evidence))
    return (evidence.probability + evidence.votes[rows, evidence.labels]) / 2


def class_shares(evidence: Evidence) -> np.ndarray:
    """Computes a share per class, ``[N, K]``: s for the given one, the rest by votes."""
    rows, s = np.arange(len(evidence)), agreement(evidence)
    others = evidence.votes.astype(float)
    others[rows, evidence.labels] = 0
    total = others.sum(axis=1, keepdims=True)
    even = np.full_like(others, 1 / max(others.shape[1] - 1, 1))
    shares = np.divide(others, total, out=even, where=total > 0) * (1 - s)[:, None]
    shares[rows, evidence.labels] = s
    return shares


def posterior(evidence: Evidence, transition: np.ndarray) -> np.ndarray:
    """Computes how likely each class is the true one, ``[N, K]``; NaN if nothing is known.

    Args:
        evidence: of N examples.
        transition: ``[K, K]``, row = true class; it is mixed with three tenths of equal shares, since
            the classifier's own errors look like noise in it.
    """
    count = len(transition)
    smooth = (1 - SMOOTHING) * transition + SMOOTHING / count
    likely = class_shares(evidence) * smooth[:, evidence.labels].T
    return likely / likely.sum(axis=1, keepdims=True)


def label_quality(evidence: Evidence, transition: np.ndarray) -> np.ndarray:
    """Computes (s + b) / 2, ``[N]``, 0 (wrong) to 1 (right); NaN if nothing is known.

    Args:
        evidence: of N examples.
        transition: see `posterior`.
    """
    right = posterior(evidence, transition)[np.arange(len(evidence)), evidence.labels]
    return (agreement(evidence) + right) / 2


def suggested(evidence: Evidence) -> np.ndarray:
    """Returns the most likely class by the classifier, int ``[N]``; the given one if unknown."""
    best = np.nan_to_num(class_shares(evidence)).argmax(axis=1)
    return np.where(evidence.known, best, evidence.labels)


def estimate(evidence: Evidence) -> Estimate:
    """Estimates the number of wrong labels and the transition matrix from the examples seen.

    A weak classifier is often wrong where it is certain, which makes the number too large. A classifier
    that has memorised the labels from the start hides wrong ones.
    """
    evidence = evidence.take(evidence.known)
    count = evidence.votes.shape[1]
    winner = evidence.votes.argmax(axis=1)
    transition, wrong = np.eye(count), 0.0
    for k in range(count):
        members = np.flatnonzero(winner == k)
        if not len(members):
            continue
        votes = evidence.votes[members, k]
        wanted = min(len(members), max(FEWEST, int(np.ceil(ANCHORS * len(members)))))
        # All ties with the last one, since the order of the examples may be that of their labels.
        least = np.sort(votes)[-wanted]
        given = np.bincount(evidence.labels[members[votes >= least]], minlength=count)
        transition[k] = given / given.sum()
        wrong += len(members) * (1 - transition[k, k])
    rate = wrong / max(len(evidence), 1)
    return Estimate(round(wrong), float(rate), transition)


def margin(share: Callable[[np.ndarray], float], size: int, drawn: int, resamples: int) -> float:
    """Computes how far an estimated share of examples may be off by chance, half of a 90 % interval.

    Args:
        share: from rows, int ``[n]``, to the estimate.
        size: N.
        drawn: n, rows of a resample, with replacement; the margin is scaled to N.
        resamples: how many; their deviation is taken, and quantiles of Student's t.
    """
    rng = np.random.default_rng(0)
    shares = [share(rng.integers(0, size, drawn)) for _ in range(resamples)]
    quantile = float(stats.t.ppf(0.95, resamples - 1))
    return quantile * float(np.std(shares, ddof=1)) * float(np.sqrt(drawn / size))


def flag(
    quality: np.ndarray, labels: np.ndarray, best: np.ndarray, estimate: Estimate
) -> tuple[np.ndarray, float]:
    """Flags labels as issues: the ``num_issues`` of lowest quality for which another class is suggested.

    Args:
        quality: of each label, 0 to 1, ``[N]``; NaN for labels that are not judged.
        labels: given labels, int ``[N]``.
        best: suggested labels, int ``[N]``.
        estimate: of the training set.

    Returns:
        bool ``[N]``, and the highest quality among the issues (-1 without any).
    """
    candidates = np.flatnonzero((best != labels) & np.isfinite(quality))
    order = candidates[np.argsort(quality[candidates], kind="stable")][: estimate.num_issues]
    issues = np.zeros(len(labels), bool)
    issues[order] = True
    return issues, float(quality[order].max()) if len(order) else -1.0
