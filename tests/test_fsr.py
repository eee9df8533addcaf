"""FSR against a NumPy port of its authors' step (ieg/models/fsr.py)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from small import network
from test_cmwnet_sl import along, backward, forward

from tf_mwnet import Experiment, ReweightedModel, UserError, main, methods, optimizers

K, B, M, LR = 4, 8, 6, 2**-4


class Authors:
    """Look-ahead with momentum, margins, and weights; without L2 and label smoothing."""

    def __init__(self, classifier, clip):
        self.w = [v.numpy() for v in classifier.trainable_variables]
        self.velocity = [np.zeros_like(w) for w in self.w]
        self.clip = clip

    def step(self, x, y, meta_x, meta_y):
        target, logits = np.eye(K)[y], forward(self.w, x)[2]
        slope = softmax(logits, axis=1) - target
        gradient = backward(self.w, x, slope / B)
        ahead = [w - LR * (0.9 * v + g) for w, v, g in zip(self.w, self.velocity, gradient, strict=True)]
        out = softmax(forward(ahead, meta_x)[2], axis=1) - np.eye(K)[meta_y]
        of_meta = backward(ahead, meta_x, out / M)
        grad_target = -LR * (slope * along(self.w, x, of_meta)).sum(1)
        raw = 1 / B - grad_target
        weight = np.maximum(raw - 1 / B, 0) if self.clip else raw - raw.min() + 1 / B
        weight = weight / weight.sum()
        before, after = (
            -log_softmax(z, axis=1)[np.arange(B), y] for z in (logits, forward(ahead, x)[2])
        )
        for i, g in enumerate(backward(self.w, x, slope * weight[:, None])):
            self.velocity[i] = 0.9 * self.velocity[i] + g
            self.w[i] = self.w[i] - LR * self.velocity[i]
        return weight, before - after


@pytest.mark.parametrize("clip", [True, False])
def test_steps_are_its_authors(clip, float64, rng):
    method, classifier = methods.FSR(24, per_class=2, clip=clip, decay=0.5), network()
    model = ReweightedModel(classifier, method)
    model.compile(optimizers.SGD(LR, momentum=0.9))
    authors = Authors(classifier, clip)
    x, y = rng.normal(size=(24, 6)), rng.integers(0, K, 24)
    meta_x, meta_y = rng.normal(size=(M, 6)), rng.integers(0, K, M)
    order = {"batch_size": B, "shuffle": False, "epochs": 2, "verbose": 0}
    model.fit(x, y, meta_data=(meta_x, meta_y), meta_batch_size=M, **order)
    margins, weights = np.zeros(24), np.zeros(24)
    for number in range(6):
        rows = np.arange(B) + number % 3 * B
        weights[rows], margin = authors.step(x[rows], y[rows], meta_x, meta_y)
        margins[rows] = 0.5 * margins[rows] + 0.5 * margin
    for own, theirs in zip(classifier.trainable_variables, authors.w, strict=True):
        np.testing.assert_allclose(own.numpy(), theirs, rtol=0, atol=1e-10)
    np.testing.assert_allclose(method.margins.numpy()[:-1], margins, atol=1e-10)
    np.testing.assert_allclose(model.record.numpy()[:-1, 1], B * weights, rtol=1e-5, atol=1e-6)
    for label in range(K):  # the examples that a step helps most
        own = np.flatnonzero(y == label)
        best = own[np.argsort(-margins[own])[:2]]
        assert set(best) == {r for r in method.draw_meta(y) if y[r] == label}


def test_equal_weights_before_the_start():
    method = methods.FSR(24, start=0.8)
    found = []
    for epoch in range(10):
        method.begin_epoch(epoch, 10)
        found.append(float(method.begun.numpy()))
    assert found == [0.0] * 8 + [1.0] * 2


def test_optimizers_without_its_momentum_are_refused(tmp_path, capfd):
    model = ReweightedModel(network(), methods.FSR(24))
    for optimizer in ("adam", optimizers.SGD(0.1)):
        with pytest.raises(UserError, match=r"looks ahead by its momentum; allowed: tf_mwnet"):
            model.compile(optimizer)
    ReweightedModel(network(), methods.FSR(24, momentum=0)).compile("adam")
    folder = tmp_path / "run"
    assert main.main(["--method=fsr", "--optimizer=adam", f"--run_dir={folder}"]) == 2
    assert "looks ahead" in capfd.readouterr().err
    assert not folder.exists()
    assert Experiment(method="fsr --noclip").options_of("fsr") == {"clip": False}
