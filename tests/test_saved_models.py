"""The weight nets that come with the project."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tf_mwnet import WeightFunction

ROOT = pathlib.Path(__file__).resolve().parents[1] / "saved_models"
SHIPPED = sorted(p.parent for p in ROOT.glob("*/*/saved_model.pb"))


def test_one_learned_on_cifar10_is_there():
    assert any("cifar10" in p.parent.name for p in SHIPPED)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.parent.name)
def test_shipped_weight_net(path):
    function = WeightFunction(path)
    low, high = (function.card["loss_range_seen"][k] for k in ("min", "max"))
    weights = function(tf.constant(np.linspace(low, high, 50, dtype=np.float32))).numpy()
    assert ((weights >= 0) & (weights <= 1)).all()
    assert np.ptp(weights) > 0.05  # it has learned to tell losses apart
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
