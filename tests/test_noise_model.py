"""The model of given labels: gradients, known noise, overlapping classes, and the table of an audit."""

import sys
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import check_grad

from tf_mwnet.audit import issue_summary, judging, neighbours, noise_model, scoring
from tf_mwnet.audit.evidence import Evidence
from tf_mwnet.types import LabelledSet


def drawn(rate, overlap, size=6000, classes=3, seed=0):
    """Votes of neighbours in overlapping classes, and labels with noise; true and given labels."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, size)
    matrix = (1 - rate) * np.eye(classes) + rate * np.roll(np.eye(classes), 1, axis=1)
    logits = rng.normal(0, 1, (size, classes)) + np.eye(classes)[true] * (6 / overlap)
    p = np.exp(logits)
    noisy = (p / p.sum(axis=1, keepdims=True)) @ matrix  # the neighbours' labels are noisy too
    votes = np.stack([rng.multinomial(51, row / row.sum()) for row in noisy]) / 51
    given = np.array([rng.choice(classes, p=matrix[k]) for k in true])
    return votes.astype(np.float32), true, given, matrix


@pytest.mark.parametrize("block", [16, 1024])  # the last one is not full
@pytest.mark.parametrize("predictions", [False, True])
def test_gradient(predictions, block, monkeypatch):
    monkeypatch.setattr(noise_model, "BLOCK", block)
    votes, _, given, _ = drawn(0.3, 2, size=50)
    votes, given = votes[np.argsort(given)].astype(np.float64), np.sort(given)
    logs = noise_model._logs(votes[:, ::-1]) if predictions else None
    values = np.random.default_rng(1).normal(0, 0.5, 2 + 3 + 9)

    with ThreadPoolExecutor(3) as threads:

        def value(v):
            return noise_model._objective(v, votes, logs, given, threads)[0]

        def gradient(v):
            return noise_model._objective(v, votes, logs, given, threads)[1]

        assert check_grad(value, gradient, values) < 1e-6
        exact = gradient(values)
        votes, logs = votes.astype(np.float32), None if logs is None else logs.astype(np.float32)
        np.testing.assert_allclose(gradient(values), exact, atol=1e-6)  # as a fit computes it


def test_a_fit_does_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(noise_model, "BLOCK", 64)
    votes, _, given, matrix = drawn(0.3, 2, size=500)
    fits = []
    for count in (1, 4):
        monkeypatch.setattr(noise_model, "_cores", lambda count=count: count)
        fits.append(noise_model.fit(votes, votes[:, ::-1], given, matrix))
    np.testing.assert_array_equal(fits[0].transition, fits[1].transition)
    np.testing.assert_array_equal(fits[0].beta, fits[1].beta)


@pytest.mark.parametrize(("rate", "overlap"), [(0.1, 1), (0.4, 1), (0.4, 3)])
@pytest.mark.parametrize("classes", [3, 10])
def test_noise_is_told_from_overlap(rate, overlap, classes):
    votes, true, given, matrix = drawn(rate, overlap, classes=classes)
    wrong = (given != true).sum()
    rows = np.arange(len(given))
    anchors = scoring.estimate(Evidence(given, votes[rows, given], votes, given, given))
    model = noise_model.fit(votes, None, given, anchors.transition)
    right = model.posterior(votes, None, given)[rows, given]
    assert (1 - right).sum() == pytest.approx(wrong, rel=0.12)
    np.testing.assert_allclose(model.transition, matrix, atol=0.1)
    # At anchor points classes that overlap count as noise.
    if overlap > 1 and classes > 3:
        assert abs((1 - right).sum() - wrong) < abs(anchors.num_issues - wrong)


@pytest.mark.slow
def test_many_classes_that_overlap():
    """A fit of the 3,600 numbers of T to too few examples would take the overlap for noise."""
    votes, true, given, _ = drawn(0.4, 2, size=18_000, classes=60)
    rows = np.arange(len(given))
    anchors = scoring.estimate(Evidence(given, votes[rows, given], votes, given, given))
    model = noise_model.fit(votes, None, given, anchors.transition)
    right = model.posterior(votes, None, given)[rows, given]
    assert (1 - right).sum() == pytest.approx((given != true).sum(), rel=0.12)


def test_posterior_by_hand():
    transition = np.array([[0.9, 0.1], [0.4, 0.6]])
    model = noise_model.NoiseModel(np.array([2.0, 1.0]), np.array([0.0, 0.5]), transition)
    votes, classes = np.array([[0.75, 0.25]]), np.array([[0.2, 0.8]])
    p = np.array(
        [(0.9**0.75 * 0.1**0.25) ** 2 * 0.22, (0.4**0.75 * 0.6**0.25) ** 2 * 0.82 * np.exp(0.5)]
    )
    likely = p * transition[:, 1]
    expected = likely / likely.sum()
    np.testing.assert_allclose(model.posterior(votes, classes, np.array([1]))[0], expected, rtol=1e-9)


def test_neighbours_by_hand():
    # Two directions, four examples each, and one alone.
    angles = np.concatenate([np.linspace(0, 0.03, 4), np.linspace(1, 1.03, 4), [3.0]])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.arange(1, 10)[:, None]
    found = neighbours.find(neighbours.directions(x), 3)
    assert sorted(found.rows[0]) == [1, 2, 3]
    assert sorted(found.rows[5]) == [4, 6, 7]
    np.testing.assert_allclose(found.distances[0, 0], 2 * np.sin(0.01 / 2), rtol=1e-3)
    y = np.array([0, 0, 1, 0, 1, 1, 1, 1, 0])
    np.testing.assert_allclose(found.label_votes(y, 2)[0], [2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(found.mean_of(np.eye(2)[y], 3)[0], [2 / 3, 1 / 3])


def test_agreement_takes_the_smallest_number_that_votes_for_the_label():
    rows = np.zeros((52, 51), int)
    rows[0] = np.arange(1, 52)
    near = neighbours.Neighbours(rows, np.ones(rows.shape, np.float32))
    labels = np.ones(52, int)
    labels[1:6] = 0  # the nearest five: 5 of 11 are against the six others
    assert near.agreement(labels, 2)[0] == pytest.approx(6 / 11)
    labels[0] = 0
    assert near.agreement(labels, 2)[0] == pytest.approx(5 / 51)  # no vote is for it


def test_copies_twins_and_outliers_in_a_group():
    rng = np.random.default_rng(0)
    centres = np.eye(64)[:4] * 8
    x = (centres[np.arange(400) % 4] + rng.normal(0, 1, (400, 64))).astype(np.float32)
    odd = (np.eye(64)[40] * 12 + rng.normal(0, 0.3, (6, 64))).astype(np.float32)
    copies, twins = x[:3], x[3:6] + rng.normal(0, 0.05, (3, 64)).astype(np.float32)
    every = np.concatenate([x, odd, copies, twins])
    near = neighbours.find(neighbours.directions(every))
    score, is_twin = neighbours.near_duplicates(near)
    assert is_twin[[0, 1, 2, 3, 4, 5, *range(406, 412)]].all()
    assert not is_twin[6:400].any()
    assert score[406] < 1e-3
    assert near.rows[406, 0] == 0
    _, far = neighbours.outliers(near)
    assert far[400:406].all()  # though each has five of its kind nearby
    assert far[:400].mean() < 0.03


def test_many_equal_examples():
    x = np.repeat(np.eye(4, dtype=np.float32), 60, axis=0)
    near = neighbours.find(neighbours.directions(x), 51)
    assert not (near.rows == np.arange(240)[:, None]).any()  # never itself
    assert neighbours.near_duplicates(near)[1].all()


def test_neighbours_that_an_approximate_search_does_not_find(monkeypatch):
    """It fills up with -1, at an infinite distance: no example, and not the last one."""
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    vectors = neighbours.directions(x)
    exact = neighbours.find(vectors, 5)

    class NNDescent:
        def __init__(self, given, n_neighbors, random_state):
            found = neighbours.NearestNeighbors(n_neighbors=n_neighbors).fit(given)
            distances, rows = found.kneighbors(given)
            rows[[0, 7], 3:], distances[[0, 7], 3:] = -1, np.inf
            self.neighbor_graph = rows, distances

    monkeypatch.setitem(sys.modules, "pynndescent", types.SimpleNamespace(NNDescent=NNDescent))
    util = types.SimpleNamespace(find_spec=lambda name: True)
    monkeypatch.setattr(neighbours, "importlib", types.SimpleNamespace(util=util))
    monkeypatch.setattr(neighbours, "EXACT", 50)
    found = neighbours.find(vectors, 5)
    np.testing.assert_array_equal(found.rows, exact.rows)
    np.testing.assert_allclose(found.distances, exact.distances, rtol=1e-6)


def labelled(x, y, name):
    ids = np.array([f"{name}/{i:04d}" for i in range(len(y))])
    return LabelledSet(x, y, y, ids, raw=x)


def test_issues_name_the_twin_in_another_set():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (300, 32)).astype(np.float32)
    y = rng.integers(0, 2, 300)
    train = labelled(x, y, "train")
    test = labelled(np.concatenate([x[:1] * 1.5, rng.normal(0, 1, (20, 32))]).astype(np.float32),
                    1 - y[:21], "test")  # fmt: skip
    sets = {"train": train, "test": test}
    votes = np.eye(2, dtype=np.float32)[y]
    found = Evidence(y, np.ones(300), votes, np.ones(300), np.ones(300))
    table = judging.issues(judging.judge(found, 300, sets), sets, ["a", "b"])
    row = table.iloc[0]
    assert (row.near_duplicate_of, row.near_duplicate_set) == ("test/0000", "test")
    assert row.near_duplicate_label == "ab"[1 - y[0]]
    assert row.is_near_duplicate_issue
    assert table.is_near_duplicate_issue.mean() < 0.05


def test_summary_per_class():
    table = pd.DataFrame(
        {
            "given_label": ["a", "a", "b"],
            "label_quality": [0.2, 0.8, 0.5],
            "is_label_issue": [True, False, False],
            "is_near_duplicate_issue": [True, True, False],
            "near_duplicate_label": ["b", "a", ""],
            "is_outlier_issue": [False, False, True],
        }
    )
    shares = np.array([[0.1, 0.9, 0], [0.7, 0.3, 0], [0.2, 0.8, 0]])
    estimate = scoring.Estimate(1, 0.3, np.eye(3))
    judged = judging.Judgement(table.label_quality.to_numpy(), shares.argmax(1), shares, estimate, None)
    out = issue_summary.of(table, judged, ["a", "b", "c"]).set_index("class")
    assert out.examples.tolist() == [2, 1, 0]
    assert out.label_issues.tolist() == [1, 0, 0]
    assert out.label_quality.tolist()[:2] == [0.5, 0.5]
    assert out.near_duplicates_with_other_label.tolist() == [1, 0, 0]
    assert out.outliers.tolist() == [0, 1, 0]
    assert out.suggested.tolist() == [1, 2, 0]
    assert out.overlaps_with["a"] == "b"
    assert out.overlap["a"] == pytest.approx((0.3 + 0.15) / 2)


def test_mean_of_log_odds():
    p = judging._mean(np.array([0.0, 1.0, 0.5, 0.9]), np.array([0.0, 1.0, 0.5, 0.1]))
    np.testing.assert_allclose(p, [0, 1, 0.5, 0.5], atol=1e-12)
    # One opinion that is nearly certain outweighs one that is not.
    assert judging._mean(np.array([0.001]), np.array([0.7])) < 0.35
    ordered = judging._mean(np.array([0.001, 0.002, 0.003]), np.zeros(3))
    assert (np.diff(ordered) > 0).all()  # no ties among the worst


@pytest.mark.parametrize(("size", "neighbours_of_each"), [(60, 6), (200, 20), (900, 51)])
def test_no_more_neighbours_than_half_a_class(size, neighbours_of_each):
    rng = np.random.default_rng(0)
    y = np.arange(size) % 5
    votes = np.eye(5, dtype=np.float32)[y]
    found = Evidence(y, np.full(size, 0.9), votes, np.ones(size), np.ones(size))
    x = (rng.normal(0, 1, (size, 16)) + 4 * np.eye(16)[y]).astype(np.float32)
    judged = judging.judge(found, size, {"train": labelled(x, y, "train")})
    assert judged.neighbours.rows.shape[1] == neighbours_of_each
    few = judging.judge(found.take(np.arange(30)), 30, {"train": labelled(x[:30], y[:30], "train")})
    assert few.neighbours is None
    assert np.isfinite(few.quality).all()
