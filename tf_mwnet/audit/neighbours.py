"""Nearest neighbours of the examples: the votes of their labels, near duplicates, and outliers.

Neighbours are those of the closest direction, after a reduction to `DIMENSIONS` principal components.
The constants were chosen by measurements, see docs/results.md.
"""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
from absl import logging
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from tf_mwnet.data.images import rows_of
from tf_mwnet.types import Images

COUNT = 51  # neighbours of an example
SMALLEST = 11  # of them that are asked for agreement, at least
DIMENSIONS = 128
EXACT = 150_000  # above so many examples the neighbours are approximate; below, all pairs are faster
CHUNK = 5000
NEAR = 0.5  # of the median distance to the nearest one: below it, an example is a near duplicate
FAR = 2.5  # robust deviations above the median distance to the last one: above it, an outlier


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The k nearest others of each of N examples, nearest first.

    Attributes:
        rows: int ``[N, k]``.
        distances: between unit vectors, 0 (same direction) to 2, float32 ``[N, k]``.
    """

    rows: np.ndarray
    distances: np.ndarray

    def label_votes(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Computes the share of each class among the neighbours' labels, float32 ``[N, K]``."""
        votes = np.zeros((len(self.rows), num_classes), np.float32)
        every = np.arange(len(votes))
        for column in self.rows.T:
            votes[every, labels[column]] += 1
        return votes / self.rows.shape[1]

    def mean_of(self, shares: np.ndarray, count: int) -> np.ndarray:
        """Averages what is known of the ``count`` nearest, ``[N, K]``."""
        total = np.zeros_like(shares)
        columns = self.rows.T[:count]
        for column in columns:
            total += shares[column]
        return total / len(columns)

    def agreement(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Computes the share of neighbours with the label of an example, ``[N]``, 0 to 1.

        It takes the smallest odd number of neighbours from 11 to 51 whose vote is for the label, or
        all if there is none: few in a small group of examples, more where labels are noisy. So many
        does WANN take (Di Salvo et al., TMLR 2025), whose reliability is the inverse of the number.
        """
        every, votes = np.arange(len(self.rows)), np.zeros((len(self.rows), num_classes), np.int32)
        out, todo = np.zeros(len(votes)), np.ones(len(votes), bool)
        for size, column in enumerate(self.rows.T, 1):
            votes[every, labels[column]] += 1
            if size < SMALLEST or size % 2 == 0:
                continue
            own = votes[every, labels]
            found = todo & (own == votes.max(axis=1))
            out[found] = own[found] / size
            todo &= ~found
        out[todo] = votes[todo, labels[todo]] / self.rows.shape[1]
        return out


def directions(x: np.ndarray | Images, scaled: bool = False) -> np.ndarray:
    """Makes vectors ``[N, d]`` whose Euclidean distances are those of the directions of inputs.

    Args:
        x: inputs ``[N, ...]``, or features ``[N, V, D]`` of V views, of which the first is taken.
        scaled: whether to standardise each number first, as for columns of different units.
    """
    parts = np.array_split(np.arange(len(x)), max(1, len(x) // CHUNK))
    out = np.concatenate([_flat(rows_of(x, rows)) for rows in parts])
    if scaled:
        deviation = out.std(axis=0)
        out = (out - out.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    length = np.linalg.norm(out, axis=1, keepdims=True)
    out /= np.where(length > 0, length, 1)
    if min(out.shape) > DIMENSIONS:
        out = PCA(DIMENSIONS, svd_solver="covariance_eigh").fit_transform(out)
    return np.ascontiguousarray(out)


def _flat(x: np.ndarray) -> np.ndarray:
    first = x[:, 0] if x.ndim == 3 else x
    return first.reshape(len(x), -1).astype(np.float32)


def find(vectors: np.ndarray, count: int = COUNT) -> Neighbours:
    """Finds the nearest others of each of N vectors ``[N, d]``, at most N - 1.

    Above `EXACT` examples they are approximate if pynndescent is installed (extra ``audit``), but for
    those of an example that it finds too few of, as it may among many copies.
    """
    count = min(count, len(vectors) - 1)
    if len(vectors) > EXACT and importlib.util.find_spec("pynndescent"):
        from pynndescent import NNDescent

        rows, distances = NNDescent(vectors, n_neighbors=count + 1, random_state=0).neighbor_graph
        if (few := (rows < 0).any(axis=1)).any():  # -1 stands for none, and would be the last example
            distances[few], rows[few] = _exact(vectors, vectors[few], count + 1)
    else:
        if len(vectors) > EXACT:
            logging.info(
                "comparing all pairs of %d examples; pip install 'tf-mwnet[audit]' is faster",
                len(vectors),
            )
        distances, rows = _exact(vectors, vectors, count + 1)
    return _others(rows, distances, count)


def _exact(among: np.ndarray, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns distances and rows of the nearest of all, ``[n, count]`` each."""
    return NearestNeighbors(n_neighbors=count).fit(among).kneighbors(vectors)


def with_nearest(found: Neighbours, vectors: np.ndarray, others: np.ndarray) -> Neighbours:
    """Returns the nearest one alone, ``[N, 1]``, also of M others; their rows are N, N + 1, ..."""
    distances, rows = _exact(others, vectors, 1)
    closer = distances < found.distances[:, :1]
    return Neighbours(
        np.where(closer, rows + len(vectors), found.rows[:, :1]),
        np.where(closer, distances, found.distances[:, :1]).astype(np.float32),
    )


def _others(rows: np.ndarray, distances: np.ndarray, count: int) -> Neighbours:
    """Leaves each example itself out; of equal examples it need not be the first."""
    every = np.arange(len(rows))[:, None]
    own = rows == every
    missing = ~own.any(axis=1)
    own[missing, -1] = True
    shape = (len(rows), count)
    return Neighbours(rows[~own].reshape(shape), distances[~own].reshape(shape).astype(np.float32))


def near_duplicates(found: Neighbours) -> tuple[np.ndarray, np.ndarray]:
    """Finds examples whose nearest other is nearly the same.

    Returns:
        Distance to the nearest other in units of its median, at most 1, ``[N]``; and whether it is below
        `NEAR`, bool ``[N]``.
    """
    first = found.distances[:, 0]
    apart = first[first > 1e-6]  # copies would make the median of a set that has many of them zero
    nearness = first / (np.median(apart) if len(apart) else 1)
    return np.minimum(nearness, 1), nearness < NEAR


def outliers(found: Neighbours) -> tuple[np.ndarray, np.ndarray]:
    """Finds examples that are far from others, also in small groups of their own.

    Returns:
        Median distance to the last neighbour in units of the example's, at most 1, ``[N]``; and
        whether its distance is above the median by `FAR` robust deviations, bool ``[N]`` (the last
        neighbour as in Sun et al., ICML 2022).
    """
    last = found.distances[:, -1]
    middle = np.median(last)
    deviation = max(1.4826 * np.median(np.abs(last - middle)), 1e-6)
    score = np.minimum(middle / np.maximum(last, np.finfo(np.float32).tiny), 1)
    return score, last > middle + FAR * deviation
