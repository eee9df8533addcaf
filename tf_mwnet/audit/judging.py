"""Judges labels by two kinds of evidence: a training's predictions, and the nearest neighbours.

The neighbours' labels, and what the classifier predicted for the neighbours during its training, do not
depend on the label of the example itself, also where the classifier has learned wrong labels by heart.
From them `noise_model` estimates the transition matrix and the number of wrong labels. The quality of a
label is then the mean, in log-odds, of (s + b) / 2 of `scoring` and of the model's probability that it
is right.

Neighbours are looked for in the features, if the run is on those of a backbone, or in a table's
columns; else in the pixels of small images, if their neighbours vote as the classifier predicts (digits
do, photographs do not); else in the classifier's last hidden layer, which is weaker evidence, as it has
seen the labels. docs/results.md has the measurements.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from tf_mwnet.audit import neighbours as nn
from tf_mwnet.audit import noise_model, scoring
from tf_mwnet.audit.evidence import Evidence
from tf_mwnet.types import Images, LabelledSet

PREDICTED = 25  # neighbours whose predictions are averaged, at most half of all
FEWEST = 5  # neighbours; with fewer the training alone is asked
RESAMPLES, FEWEST_RESAMPLES, REFIT_STEPS = 20, 5, 15  # of the bootstrap, which takes half of the rows
PIXELS = 64 * 64  # the pixels of larger images are not compared
TOO_LARGE = "large images are compared on features alone, see --backbone"
CERTAIN = 0.02  # the least probability of an opinion
ALIKE = 0.5  # share of examples whose neighbours vote as predicted; below it pixels are not used


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What is thought of N labels.

    Attributes:
        quality: 0 (wrong) to 1 (right), NaN if nothing is known, ``[N]``.
        best: suggested labels, int ``[N]``.
        shares: how likely each class is the true one, ``[N, K]``.
        estimate: of the training set.
        neighbours: of the examples, or None where none were used.
        nearest: the nearest one alone, also of examples that are not judged; None in a hidden layer,
            which does not tell copies from examples of one class.
        without: why there is no nearest one; "" if there is.
    """

    quality: np.ndarray
    best: np.ndarray
    shares: np.ndarray
    estimate: scoring.Estimate
    neighbours: nn.Neighbours | None = None
    nearest: nn.Neighbours | None = None
    without: str = ""


def judge(
    found: Evidence,
    train_size: int,
    sets: Mapping[str, LabelledSet] | None,
    hidden: Callable[[np.ndarray | Images], np.ndarray | None] = lambda x: None,
) -> Judgement:
    """Judges the labels of N examples.

    Args:
        found: evidence of the training examples, and then of others that are to be judged.
        train_size: number of training examples.
        sets: name -> examples: first the N ones, then others in which duplicates are looked for too;
            None if they are not there.
        hidden: from images to the outputs ``[N, D]`` of the classifier's last hidden layer, or None if
            it has none.
    """
    # In a small class even the nearest examples would be of others.
    count = min(nn.COUNT, len(found) // (2 * found.votes.shape[1]))
    if sets is None or count < FEWEST:
        without = "too few examples" if sets is not None else "the data is not there"
        return dataclasses.replace(_alone(found, train_size), without=without)
    on_features = next(iter(sets.values())).raw is not None
    every = joined([dataclasses.replace(part, raw=None) for part in sets.values()])
    vectors = _vectors(every, on_features)
    near = None if vectors is None else nn.find(vectors[: len(found)], count)
    if near is None or not (on_features or _alike(found, near)):
        without = TOO_LARGE if near is None else "neighbours do not agree with the labels"
        outputs = hidden(every.x[np.arange(len(found))]) if every.x.ndim == 4 else None
        if outputs is None:
            return dataclasses.replace(_alone(found, train_size), without=without)
        near = nn.find(nn.directions(outputs), count)
        judged = _with_neighbours(found, train_size, near)
        return dataclasses.replace(judged, neighbours=near, without=without)
    assert vectors is not None
    judged, others = _with_neighbours(found, train_size, near), vectors[len(found) :]
    nearest = nn.with_nearest(near, vectors[: len(found)], others) if len(others) else near
    return dataclasses.replace(judged, neighbours=near, nearest=nearest)


def _alone(found: Evidence, train_size: int) -> Judgement:
    train = found.take(np.arange(train_size))
    seen = train.take(train.known)

    def share(rows: np.ndarray) -> float:
        return scoring.estimate(seen.take(rows)).noise_rate

    estimate = _with_interval(scoring.estimate(seen), share, len(seen), len(seen))
    shares = scoring.posterior(found, estimate.transition)
    quality = scoring.label_quality(found, estimate.transition)
    return Judgement(quality, scoring.suggested(found), shares, estimate)


def _with_neighbours(found: Evidence, train_size: int, near: nn.Neighbours) -> Judgement:
    labels_near, classes_near = _sources(found, near)
    train = found.take(np.arange(train_size))
    model, estimate = _fit(labels_near[:train_size], train)
    # The classes predicted for neighbours tell examples apart; the count is better without them.
    both = noise_model.fit(
        labels_near[:train_size], classes_near[:train_size], train.labels, model.transition
    )
    shares = both.posterior(labels_near, classes_near, found.labels)
    right = shares[np.arange(len(found)), found.labels]
    by_training = scoring.posterior(found, estimate.transition)
    quality = _mean(scoring.label_quality(found, estimate.transition), right)
    seen = found.known
    shares = np.where(seen[:, None], (shares + by_training) / 2, shares)
    quality = np.where(seen, quality, right)
    # A label that is more likely wrong than right is suggested another class, the likeliest of these.
    others = shares.copy()
    others[np.arange(len(found)), found.labels] = 0
    best = np.where(quality < 0.5, others.argmax(axis=1), shares.argmax(axis=1))
    return Judgement(quality, best, shares, estimate)


def _mean(*probabilities: np.ndarray) -> np.ndarray:
    """Averages log-odds of probabilities ``[N]``, none of which is taken to be certain."""
    room = 1 - 2 * CERTAIN
    odds = [logit(CERTAIN + room * p) for p in probabilities]
    return (expit(np.mean(odds, axis=0)) - CERTAIN) / room


def _alike(found: Evidence, near: nn.Neighbours) -> bool:
    """Tells whether the neighbours' labels tell something of the classes."""
    votes, known = near.label_votes(found.labels, found.votes.shape[1]), found.known
    alike = (votes.argmax(axis=1) == found.votes.argmax(axis=1))[known]
    return bool(len(alike)) and float(alike.mean()) >= ALIKE


def _vectors(every: LabelledSet, on_features: bool) -> np.ndarray | None:
    """Returns the directions of features, tables or small images; None for larger images."""
    images = every.x.ndim == 4
    if images and np.prod(every.x.shape[1:3]) > PIXELS:
        return None
    # The columns of a table have different units.
    return nn.directions(every.x, scaled=not images and not on_features)


def joined(parts: Sequence[LabelledSet]) -> LabelledSet:
    """Appends several sets to the first."""
    return functools.reduce(LabelledSet.joined, parts)


def _sources(found: Evidence, near: nn.Neighbours) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shares of labels and of predicted classes among the neighbours, ``[N, K]`` each."""
    count = found.votes.shape[1]
    seen = np.where(found.known[:, None], found.votes, np.float32(1 / count))
    return near.label_votes(found.labels, count), near.mean_of(
        seen, min(PREDICTED, -(-near.rows.shape[1] // 2))
    )


def _fit(votes: np.ndarray, train: Evidence) -> tuple[noise_model.NoiseModel, scoring.Estimate]:
    y, size = train.labels, len(train)
    guess = scoring.estimate(dataclasses.replace(train, votes=votes, probability=np.ones(size)))
    model = noise_model.fit(votes, None, y, guess.transition)
    rate = _rate(model, votes, y)

    def share(rows: np.ndarray) -> float:
        again = noise_model.fit(votes[rows], None, y[rows], guess.transition, model, REFIT_STEPS)
        return _rate(again, votes[rows], y[rows])

    estimate = scoring.Estimate(round(rate * size), rate, model.transition)
    drawn = min(size, noise_model.rows_for(len(model.transition)) // 2)
    return model, _with_interval(estimate, share, drawn, size)


def _rate(model: noise_model.NoiseModel, votes: np.ndarray, labels: np.ndarray) -> float:
    right = model.posterior(votes, None, labels)[np.arange(len(labels)), labels]
    return float(1 - right.mean())


def _with_interval(
    estimate: scoring.Estimate, share: Callable[[np.ndarray], float], drawn: int, size: int
) -> scoring.Estimate:
    """Adds the interval, from resamples of ``drawn`` of ``size`` examples."""
    if drawn < 2:
        return estimate
    resamples = max(FEWEST_RESAMPLES, min(RESAMPLES, RESAMPLES * noise_model.FITTED // (2 * drawn)))
    margin = scoring.margin(share, size, drawn, resamples)
    low, high = (np.clip(estimate.noise_rate + sign * margin, 0, 1) for sign in (-1, 1))
    return dataclasses.replace(estimate, interval=(round(low * size), round(high * size)))


def issues(
    judged: Judgement, sets: Mapping[str, LabelledSet], class_names: Sequence[str]
) -> pd.DataFrame:
    """Lists near duplicates and outliers.

    Args:
        judged: with neighbours of N examples.
        sets: see `judge`.
        class_names: K names.

    Returns:
        N rows: ``neighbour_agreement``, see `Neighbours.agreement`. Not from a hidden layer:
        ``near_duplicate_of``, the id of the nearest example if that is a near duplicate, its
        ``near_duplicate_set`` and ``near_duplicate_label``, else ""; ``near_duplicate_score`` and
        ``is_near_duplicate_issue``; ``outlier_score`` and ``is_outlier_issue``.
    """
    near, nearest = judged.neighbours, judged.nearest
    assert near is not None
    y = np.concatenate([part.y for part in sets.values()])
    table = pd.DataFrame({"neighbour_agreement": near.agreement(y[: len(near.rows)], len(class_names))})
    if nearest is None:
        return table
    names = np.repeat(list(sets), [len(part) for part in sets.values()])
    ids = np.concatenate([part.ids for part in sets.values()])
    score, twin = nn.near_duplicates(nearest)
    for name, values in (("of", ids), ("set", names), ("label", np.array(class_names)[y])):
        other = values[nearest.rows[:, 0]].astype(str)
        table[f"near_duplicate_{name}"] = np.where(twin, other, "")
    table["near_duplicate_score"], table["is_near_duplicate_issue"] = score, twin
    table["outlier_score"], table["is_outlier_issue"] = nn.outliers(near)
    return table
