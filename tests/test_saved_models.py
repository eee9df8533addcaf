"""The weight nets that come with the project."""

import json
import pathlib

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf

from tf_mwnet import WeightFunction
from tf_mwnet.benchmark import zoo

ROOT = pathlib.Path(__file__).resolve().parents[1] / "saved_models"
SHIPPED = sorted(p.parent for p in ROOT.glob("*/*/saved_model.pb"))


def test_the_zoo_is_whole():
    named = {p.parent.name for p in SHIPPED}
    biases = ("flip2", "uniform", "longtail")
    assert {f"{name}_{bias}" for name in ("digits", "mnist", "cifar10") for bias in biases} <= named


def test_the_page_says_what_the_cards_say():
    text = (ROOT / "README.md").read_text()
    for line in zoo.markdown(ROOT).splitlines():
        assert line in text, line


@pytest.mark.parametrize("name", ["mnist_flip2", "cifar10_longtail"])
def test_a_function_that_another_training_can_follow(name):
    function = WeightFunction(ROOT / name)
    losses = tf.constant(np.linspace(0, 5, 51, dtype=np.float32))
    # Its table is linear between losses 0.1 apart, and ends with the function itself.
    np.testing.assert_allclose(function(losses, 1.0), function(losses), atol=1e-5)
    first, last = (np.asarray(function(losses, progress)) for progress in (0.0, 1.0))
    assert np.abs(first / first.max() - last / last.max()).max() > 0.2
    accuracy = function.card["transfer"]["test_accuracy"]
    assert len(accuracy) == 3
    assert all(kind["seeds"] == 3 for kinds in accuracy.values() for kind in kinds.values())
    picture = plt.imread(function.path / zoo.PICTURE)
    assert picture.std() > 0.05


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.parent.name)
def test_shipped_weight_net(path):
    function = WeightFunction(path)
    low, high = (function.card["loss_range_seen"][k] for k in ("min", "max"))
    weights = function(tf.constant(np.linspace(low, high, 50, dtype=np.float32))).numpy()
    assert ((weights >= 0) & (weights <= 1)).all()
    # It has learned to tell losses apart. Their size says nothing where they are divided by their sum.
    assert np.ptp(weights) > 0.1 * weights.max()
    card = json.loads((path / "model_card.json").read_text())
    for key in (
        "data_set",
        "bias",
        "seeds",
        "network",
        "schedule",
        "normalised",
        "test_accuracy",
        "versions",
    ):
        assert card[key] not in (None, {}, ""), key
