"""Adds bias to data on purpose: label noise from an explicit transition matrix, and imbalance."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable

import numpy as np
from absl import logging

from tf_mwnet.errors import UserError, check_range, choose, quoted

# Makes a transition matrix: (rate, K, generator, superclass or None) -> [K, K], row = true class.
Maker = Callable[[float, int, np.random.Generator, "np.ndarray | None"], np.ndarray]
FILES = "a .csv or .npy file"


def uniform(
    rate: float, num_classes: int, rng: np.random.Generator, superclass: np.ndarray | None = None
) -> np.ndarray:
    """Returns ``(1 - p) I + p / K``: the new label is drawn from all classes, the true one included.

    "40 %" on 10 classes therefore changes 36 % of the labels (Zhang et al., ICLR 2017; MW-Net 4.2).
    """
    return (1 - rate) * np.eye(num_classes) + rate / num_classes


def _flip_to(rate: float, num_classes: int, rng: np.random.Generator, others: int) -> np.ndarray:
    matrix = (1 - rate) * np.eye(num_classes)
    for row in range(num_classes):
        choices = np.delete(np.arange(num_classes), row)
        targets = rng.choice(choices, min(others, len(choices)), replace=False)
        matrix[row, targets] += rate / len(targets)
    return matrix


def flip(
    rate: float, num_classes: int, rng: np.random.Generator, superclass: np.ndarray | None = None
) -> np.ndarray:
    """Flips each class to one other class, drawn at random, with probability p."""
    return _flip_to(rate, num_classes, rng, 1)


def flip2(
    rate: float, num_classes: int, rng: np.random.Generator, superclass: np.ndarray | None = None
) -> np.ndarray:
    """Flips each class to two other classes, with probability p/2 each (MW-Net 4.2 calls it "flip")."""
    return _flip_to(rate, num_classes, rng, 2)


def background(
    rate: float,
    num_classes: int,
    rng: np.random.Generator,
    superclass: np.ndarray | None = None,
    target: int | None = None,
) -> np.ndarray:
    """Flips every class to one background class, ``target``, with probability p (L2RW, background flip).

    Without a target, one is drawn at random.
    """
    matrix = (1 - rate) * np.eye(num_classes)
    drawn = rng.integers(num_classes)
    matrix[:, drawn if target is None else target] += rate
    return matrix


def hierarchical(
    rate: float, num_classes: int, rng: np.random.Generator, superclass: np.ndarray | None
) -> np.ndarray:
    """Flips each class to the n others of its coarse class, with probability p/n each.

    The true class is left out, as in the code of GLC and of MW-Net; a class that is alone in its coarse
    class keeps its label.

    Examples:
        >>> hierarchical(0.4, 3, np.random.default_rng(0), np.array([0, 0, 1])).tolist()
        [[0.6, 0.4, 0.0], [0.4, 0.6, 0.0], [0.0, 0.0, 1.0]]

    Raises:
        UserError: the data set has no coarse classes.
    """
    if superclass is None:
        raise UserError(
            "noise 'hierarchical' needs coarse classes and the data set has none; allowed here: "
            + quoted(n for n in NOISES if n != "hierarchical")
        )
    identity = np.eye(num_classes)
    others = (superclass[:, None] == superclass[None, :]) - identity
    count = others.sum(axis=1, keepdims=True)
    return np.where(count > 0, (1 - rate) * identity + rate * others / np.maximum(count, 1), identity)


NOISES: dict[str, Maker] = {
    "uniform": uniform,
    "flip": flip,
    "flip2": flip2,
    "background": background,
    "hierarchical": hierarchical,
}


def check_noise(noise: str) -> None:
    """Raises ``UserError`` if a noise is unknown, or the file of its matrix is not there."""
    if noise.endswith((".csv", ".npy")):
        if not pathlib.Path(noise).is_file():
            raise UserError(f"noise matrix '{noise}' is not there; allowed: {FILES}")
    elif noise == FILES:  # the message's own words
        raise UserError(f"noise is '{noise}'; allowed: the path of such a file")
    else:
        choose("noise", noise, dict.fromkeys(("auto", "none", *NOISES, FILES)))


def transition_matrix(
    noise: str,
    rate: float,
    num_classes: int,
    rng: np.random.Generator,
    superclass: np.ndarray | None = None,
    background_class: int | None = None,
) -> np.ndarray | None:
    """Returns the noise transition matrix ``T[i, j] = P(given label j | true label i)``.

    Logs a warning if some class keeps its label less often than it gets one particular other label.

    Examples:
        >>> transition_matrix("uniform", 0.3, 3, np.random.default_rng(0)).round(1).tolist()
        [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]

    Args:
        noise: "none", a name in `NOISES`, or a ``.csv`` or ``.npy`` file with the matrix.
        rate: p, 0 to 1; unused with a file.
        num_classes: K.
        rng: draws the target classes of "flip", "flip2" and "background".
        superclass: int ``[K]``, the coarse class of each class, for "hierarchical".
        background_class: the class of "background"; None to draw one.

    Returns:
        float64 ``[K, K]`` with rows that sum to 1, or None for "none".

    Raises:
        UserError: the noise is unknown, the rate is outside 0 to 1, the file does not hold such a
            matrix, or a background class is set for another noise.
    """
    if background_class is not None and noise != "background":
        raise UserError(
            f"background_class is set with noise '{noise}'; allowed: with noise 'background'"
        )
    if noise == "none":
        return None
    check_noise(noise)
    if noise.endswith((".csv", ".npy")):
        matrix = _read_matrix(pathlib.Path(noise), num_classes)
    else:
        make = NOISES[noise]
        check_range("noise_rate", rate, 0, 1)
        if background_class is not None:
            make = functools.partial(background, target=background_class)
        matrix = make(rate, num_classes, rng, superclass)
    lost = [k for k in range(num_classes) if matrix[k, k] < np.max(np.delete(matrix[k], k))]
    if lost:
        logging.warning(
            "noise '%s': the true label is not the commonest one for %d of %d classes; only a"
            " trusted meta set can tell which label is right",
            noise,
            len(lost),
            num_classes,
        )
    return matrix


def _read_matrix(path: pathlib.Path, num_classes: int) -> np.ndarray:
    try:
        if path.suffix == ".npy":
            matrix = np.load(path, allow_pickle=False)
        else:
            matrix = np.loadtxt(path, delimiter=",", ndmin=2)
        matrix = np.asarray(matrix, np.float64)
    except ValueError as error:
        raise UserError(f"noise matrix '{path}' cannot be read: {error}; allowed: {FILES}") from error
    if matrix.shape != (num_classes, num_classes):
        raise UserError(
            f"noise matrix '{path}' is {matrix.shape}; allowed: ({num_classes}, {num_classes})"
        )
    if not (np.all(matrix >= 0) and np.allclose(matrix.sum(axis=1), 1, atol=1e-6)):
        bad = [i for i, r in enumerate(matrix) if not (np.all(r >= 0) and abs(r.sum() - 1) <= 1e-6)]
        raise UserError(
            f"noise matrix '{path}': row {bad[0]} sums to {matrix[bad[0]].sum():g}; allowed: entries"
            " not negative, rows that sum to 1"
        )
    return matrix


def corrupt(labels: np.ndarray, matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws a given label for each true label, independently.

    Args:
        labels: true labels, int ``[N]``.
        matrix: ``[K, K]``, see `transition_matrix`.
        rng: source of the draws.

    Returns:
        Given labels, int64 ``[N]``.
    """
    edges = np.cumsum(matrix, axis=1)[labels, :-1]
    return np.sum(rng.random(len(labels))[:, None] >= edges, axis=1).astype(np.int64)


def realised_matrix(true: np.ndarray, given: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts how often each true class got each label, as shares of the class.

    Args:
        true: true labels, int ``[N]``.
        given: given labels, int ``[N]``.
        num_classes: K.

    Returns:
        float64 ``[K, K]``, row = true class. The row of a class without examples is zero.
    """
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (true, given), 1)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def long_tail_counts(largest: int, factor: float, num_classes: int) -> np.ndarray:
    """Returns the class sizes ``n_i = n mu^i`` of a long tail, with ``mu = factor^(-1 / (K - 1))``.

    Class 0 has n examples and the last class n / factor (Cui et al., CVPR 2019; MW-Net section 4.1).
    Sizes are rounded down, as in the authors' code.

    Args:
        largest: n, the examples of class 0.
        factor: imbalance factor, the largest class over the smallest, at least 1.
        num_classes: K.

    Returns:
        int64 ``[K]``.

    Raises:
        UserError: the factor is below 1, or leaves a class without examples.
    """
    check_range("imbalance_factor", factor, 1)
    exponent = np.arange(num_classes) / max(num_classes - 1, 1)
    # The tiny factor undoes rounding: 5000 * 0.01 ** 1 is 50, not 49.99...
    counts = np.floor(largest * factor**-exponent * (1 + 1e-12)).astype(np.int64)
    if counts[-1] < 1:
        raise UserError(
            f"imbalance_factor is {factor:g}; allowed: at most {largest}, the examples of the"
            " largest class, so that no class is empty"
        )
    return counts


def keep_counts(labels: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws ``counts[k]`` rows of each class k at random.

    Args:
        labels: int ``[N]``.
        counts: int ``[K]``.
        rng: source of the draws.

    Returns:
        The rows, sorted, int64 ``[sum(counts)]``.

    Raises:
        UserError: a count is below 1, or above the examples that the class has.
    """
    available = np.bincount(labels, minlength=len(counts))
    for k, (want, have) in enumerate(zip(counts, available, strict=True)):
        if not 1 <= want <= have:
            raise UserError(f"class {k} is to keep {want} examples; allowed: 1 to {have}")
    kept = [rng.choice(np.flatnonzero(labels == k), n, replace=False) for k, n in enumerate(counts)]
    return np.sort(np.concatenate(kept))


def balanced_rows(
    labels: np.ndarray,
    size: int,
    num_classes: int,
    rng: np.random.Generator,
    what: str,
    or_else: str = "",
) -> np.ndarray:
    """Draws ``size`` rows with equally many of each class, or one more of some.

    Args:
        labels: int ``[N]``.
        size: rows to draw, at least one of each class.
        num_classes: K.
        rng: source of the draws.
        what: name of ``size`` in messages.
        or_else: what else is allowed, in messages.

    Raises:
        UserError: ``size`` is too small, or so large that a class would be used up.
    """
    if size < num_classes:
        raise UserError(f"{what} is {size}; allowed: at least {num_classes}, one of each class")
    counts = np.full(num_classes, size // num_classes)
    counts[rng.permutation(num_classes)[: size % num_classes]] += 1
    have = np.bincount(labels, minlength=num_classes)
    if np.any(counts >= have):
        k = int(np.argmin(have - counts))
        raise UserError(
            f"{what} is {size}, {counts[k]} of class {k}, which has {have[k]} examples; allowed: at"
            f" most {(have.min() - 1) * num_classes}{or_else}"
        )
    return keep_counts(labels, counts, rng)
