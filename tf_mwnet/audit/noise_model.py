"""A model of the given labels: which class an example may have, and how often that is mislabelled.

Let v be the shares of the labels of an example's neighbours, and c those of the classes that were
predicted for them during a training. If the neighbours were all of class k, their labels would be drawn
from row k of the noise transition matrix T. The classes that the example may truly have are therefore

    p(k) = softmax_k(beta_1 sum_j v_j log T_kj + beta_2 log(c_k + 0.02) + bias_k)

and its label is given as y with probability sum_k p(k) T_ky. The few numbers beta and bias, and T, are
fitted to the given labels by maximum likelihood. Neither v nor c depends on y, so that it does not
matter whether the classifier has learned wrong labels by heart; beta is small where neighbours have
other classes, or are not independent. Where classes overlap, p is uncertain; what differs from the label
where p is certain goes to T. Unlike at anchor points, what a classifier confuses is not noise.

That neighbours identify T without any correct label is the idea of Zhu et al. ("Clusterability as an
alternative to anchor points", ICML 2021), who take the two nearest and moments, and no beta. T as a
layer that is learned: Goldberger and Ben-Reuven, ICLR 2017. By Bayes' rule the label is right with
probability p(y) T_yy / sum_k p(k) T_ky. The expected number of wrong labels is the sum of the rest;
docs/results.md has the measurements.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from threadpoolctl import threadpool_limits

FLOOR = 0.02  # of a share of votes
FITTED, EACH = 10_000, 5  # examples that a fit takes at most, and for each entry of T
PRIOR_BIAS, PRIOR_T = 1.0, 0.02
LOWEST = 8.0  # a logit of T is not below its negative
MIXED = 0.1  # equal shares in the transition matrix that a fit starts from
STEPS, WORK = 100, 1_500_000  # of the optimiser at most, and times examples; but at least
FEWEST_STEPS = 30
BLOCK = 1024


@dataclasses.dataclass(frozen=True)
class NoiseModel:
    """A fitted model for K classes.

    Attributes:
        beta: of labels and of predicted classes, ``[2]``.
        bias: of each class, ``[K]``.
        transition: T, ``[K, K]``, row = true class.
    """

    beta: np.ndarray
    bias: np.ndarray
    transition: np.ndarray

    def posterior(
        self, labels_near: np.ndarray, classes_near: np.ndarray | None, labels: np.ndarray
    ) -> np.ndarray:
        """Computes how likely each class is the true one, given all evidence and the label, ``[N, K]``.

        Args: see `fit`.
        """
        log_t = np.log(self.transition)
        logits = self.beta[0] * labels_near @ log_t.T + self.bias
        if classes_near is not None:
            logits += self.beta[1] * _logs(classes_near)
        return softmax(logits + log_t[:, labels].T, axis=1)


def _logs(shares: np.ndarray) -> np.ndarray:
    logs = np.log(shares.astype(np.float64) + FLOOR)
    return logs - logs.mean(axis=1, keepdims=True)


def rows_for(count: int) -> int:
    """Returns how many examples a fit takes for K classes: fewer fit T, K^2 numbers, too closely."""
    return max(FITTED, EACH * count**2)


def fit(
    labels_near: np.ndarray,
    classes_near: np.ndarray | None,
    labels: np.ndarray,
    transition: np.ndarray,
    start: NoiseModel | None = None,
    steps: int = 0,
) -> NoiseModel:
    """Fits the model, to at most `rows_for` random examples.

    Args:
        labels_near: v, shares of the neighbours' labels, ``[N, K]``.
        classes_near: c, shares of the classes predicted for the neighbours, ``[N, K]``, or None.
        labels: given labels, int ``[N]``.
        transition: a first guess of T, from anchor points; the fit finds the best T near it.
        start: a model to start from instead.
        steps: of the optimiser, at most; 0 for as many as are worth their time.
    """
    count = len(transition)
    rows = np.arange(len(labels))
    if len(rows) > rows_for(count):
        rows = np.random.default_rng(0).choice(rows, rows_for(count), replace=False)
    steps = steps or int(np.clip(WORK / len(rows), FEWEST_STEPS, STEPS))
    rows = rows[np.argsort(labels[rows], kind="stable")]
    # In float32 a step takes half the time; its error, 1e-6, is far below what the fit stops at.
    votes, y = labels_near[rows].astype(np.float32), labels[rows]
    logs = None if classes_near is None else _logs(classes_near[rows]).astype(np.float32)
    if start is None:
        guess = (1 - MIXED) * transition + MIXED / count
        start = NoiseModel(np.array([5.0, 0.5]), np.zeros(count), guess)
    begin = np.concatenate([start.beta, start.bias, np.log(start.transition).ravel()])
    highest = 0.0 if logs is None else 10.0
    bounds = [(0.0, 51.0), (0.0, highest)] + [(-5.0, 5.0)] * count + [(-LOWEST, 2.0)] * count**2
    begin = np.clip(begin, *np.transpose(bounds))
    # Products of blocks are too small to be shared by threads of their own.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(_cores()) as threads:
        found = minimize(
            _objective,
            begin,
            (votes, logs, y, threads),
            "L-BFGS-B",
            jac=True,
            bounds=bounds,
            options={"maxiter": steps},
        )
    beta, bias, logits = _parts(found.x, count)
    return NoiseModel(beta, bias, softmax(logits, axis=1))


def _cores() -> int:
    """Returns how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on all systems
        return os.cpu_count() or 1


def _parts(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    beta, bias, logits = np.split(values, [2, 2 + count])
    return beta, bias, logits.reshape(count, count)


def _objective(
    values: np.ndarray,
    votes: np.ndarray,
    logs: np.ndarray | None,
    y: np.ndarray,
    threads: ThreadPoolExecutor,
) -> tuple[float, np.ndarray]:
    """Computes the negative log-likelihood with priors, per example, and its gradient.

    It is computed in the dtype of the votes.

    Args:
        values: beta, bias and the logits of T, see `_parts`.
        votes: v, ``[N, K]``.
        logs: of c, see `_logs`, ``[N, K]`` of the same dtype, or None.
        y: given labels, int ``[N]``, sorted.
        threads: share the examples.
    """
    number, count = votes.shape
    beta, bias, logits = _parts(values, count)
    log_t = log_softmax(logits, axis=1)
    t = np.exp(log_t)
    small = [values.astype(votes.dtype) for values in (beta, bias, log_t, t)]
    loss = PRIOR_BIAS * (bias**2).sum() - PRIOR_T * log_t.sum()
    for_beta, for_bias = np.zeros(2), 2 * PRIOR_BIAS * bias
    slope = np.full_like(t, -PRIOR_T)  # with respect to log T

    def sums(start: int) -> tuple[Any, ...]:
        rows = slice(start, start + BLOCK)
        return _of_block(small, votes[rows], None if logs is None else logs[rows], y[rows])

    # Blocks that stay in the processor's cache take half the time. Their order is that of the
    # examples, so that the sums do not depend on the number of threads.
    for log_likelihood, of_beta, of_bias, by_votes, given, by_label in threads.map(
        sums, range(0, number, BLOCK)
    ):
        loss -= log_likelihood
        for_beta += of_beta
        for_bias += of_bias
        slope += beta[0] * by_votes
        slope[:, given] -= by_label
    for_log_t = slope - t * slope.sum(axis=1, keepdims=True)
    gradient = np.concatenate([for_beta, for_bias, for_log_t.ravel()])
    return float(loss / number), gradient / number


def _of_block(
    model: Sequence[np.ndarray],
    votes: np.ndarray,
    logs: np.ndarray | None,
    y: np.ndarray,
) -> tuple[Any, ...]:
    """Computes the sums of some examples.

    With q the posterior of the true class, the gradient with respect to the logits of p is p - q.

    Args:
        model: beta, bias, log T and T.
        votes, logs, y: see `_objective`.

    Returns:
        The log-likelihood; sums of ``p - q`` times what beta multiplies, ``[2]``, for the bias,
        ``[K]``, and times the votes, ``[K, K]``; the labels that occur, ``[k]``; and for each the sums
        of q, ``[K, k]``.
    """
    beta, bias, log_t, t = model
    near = votes @ log_t.T
    scores = beta[0] * near + bias
    if logs is not None:
        scores += beta[1] * logs
    scores -= scores.max(axis=1, keepdims=True)
    p = np.exp(scores, out=scores)
    p /= p.sum(axis=1, keepdims=True)
    q = p * t.T[y]
    total = q.sum(axis=1, keepdims=True)  # above 0, as T is
    q /= total
    rest = p - q
    of_beta = np.vdot(near, rest), 0.0 if logs is None else np.vdot(logs, rest)
    given, firsts = np.unique(y, return_index=True)
    by_label = np.add.reduceat(q, firsts).T
    log_likelihood = np.log(total).sum(dtype=np.float64)
    return log_likelihood, of_beta, rest.sum(axis=0), rest.T @ votes, given, by_label
