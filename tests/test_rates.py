"""Learning rates over the steps, against values worked out by hand."""

import dataclasses

import keras
import numpy as np
import pytest

from tf_mwnet import Experiment
from tf_mwnet.experiment import rates

CONFIG = Experiment(epochs=4, steps_per_epoch=10, lr=0.4, lr_drops=(2, 3))


def at(rate, steps):
    return [float(rate(np.int64(step))) for step in steps]


def changed(**fields):
    return dataclasses.replace(CONFIG, **fields)


def test_step():
    rate = rates.of_classifier(CONFIG)
    assert at(rate, (0, 19, 20, 29, 30, 39)) == pytest.approx([0.4, 0.4, 0.04, 0.04, 0.004, 0.004])
    assert rates.of_classifier(changed(lr_drops=(4,))) == 0.4  # after the last epoch


def test_cosine():
    rate = rates.of_classifier(changed(schedule="cosine"))
    assert at(rate, (0, 20, 40)) == pytest.approx([0.4, 0.2, 0], abs=1e-7)
    assert at(rate, (10,)) == pytest.approx([0.2 * (1 + np.sqrt(0.5))])
    assert at(rate, (5,)) < at(rate, (4,))


def test_cosine_with_one_value_an_epoch():
    """GDW's code: lr (1 + cos(pi e / E)) / 2, set before each epoch e of E."""
    rate = rates.of_classifier(changed(schedule="cosine_epochs"))
    half = np.sqrt(0.5)
    expected = [0.4, 0.4, 0.2 * (1 + half), 0.2 * (1 + half), 0.2, 0.2 * (1 - half), 0.2 * (1 - half)]
    assert at(rate, (0, 9, 10, 19, 20, 30, 39)) == pytest.approx(expected, abs=1e-7)


def test_of_the_weight_net():
    assert rates.of_weights(CONFIG, 1e-3) == 1e-3
    as_lr = rates.of_weights(changed(meta_schedule="as_lr"), 1e-3)
    assert at(as_lr, (0, 20, 30)) == pytest.approx([1e-3, 1e-4, 1e-5])
    inverse = rates.of_weights(changed(meta_schedule="inverse"), 1e-3)
    assert at(inverse, (0, 10, 15, 30)) == pytest.approx([1e-3, 5e-4, 4e-4, 2.5e-4])


def test_of_the_weight_net_in_every_third_step():
    """Its optimizer counts its own steps: 0, 1 in the warm-up, then 2, 5, 8 ... of training."""
    config = changed(meta_every=3, meta_warmup=2)
    assert at(rates.of_weights(config, 1e-3), (0, 1, 2, 3)) == pytest.approx([1e-3, 1e-3, 3e-3, 3e-3])
    config = dataclasses.replace(config, meta_schedule="as_lr")
    # Its steps 7 and 8 are those of 17 and 20 in training, which is the first after the drop.
    rate = rates.of_weights(config, 1e-3)
    assert at(rate, (0, 1, 2, 7, 8, 12)) == pytest.approx([1e-3, 1e-3, 3e-3, 3e-3, 3e-4, 3e-5])
    config = dataclasses.replace(config, meta_schedule="inverse")
    assert at(rates.of_weights(config, 1e-3), (0, 1, 2, 4)) == pytest.approx(
        [1e-3, 1e-3 / 1.1, 3e-3 / 1.2, 3e-3 / 1.8]
    )


@pytest.mark.parametrize("fields", [{"schedule": "cosine_epochs"}, {"schedule": "step"}])
def test_schedules_are_saved_with_an_optimizer(fields):
    config = changed(**fields, meta_schedule="as_lr", meta_every=3, meta_warmup=2)
    constant = dataclasses.replace(config, meta_schedule="constant")
    of_weights = (rates.of_weights(c, 1e-3, averaged=True) for c in (config, constant))
    for rate in (rates.of_classifier(config), rates.of_weights(config, 1e-3), *of_weights):
        optimizer = keras.optimizers.SGD(rate)
        again = keras.optimizers.SGD.from_config(optimizer.get_config())
        assert at(again._learning_rate, range(40)) == at(rate, range(40))


def test_of_the_weight_net_that_starts_later():
    """Its optimizer's step 0 is the fifth of training; then 5, and every third."""
    config = changed(meta_every=3, meta_start=4, meta_warmup=2, meta_schedule="as_lr")
    rate = rates.of_weights(config, 1e-3)
    # Its steps 6, 7 and 10 are those of 18, 21 and 30 in training; drops are at 20 and 30.
    assert at(rate, (0, 1, 2, 6, 7, 10)) == pytest.approx([1e-3, 1e-3, 3e-3, 3e-3, 3e-4, 3e-5])
    alone = rates.of_weights(dataclasses.replace(config, meta_every=1, meta_warmup=0), 1e-3)
    assert at(alone, (15, 16, 26)) == pytest.approx([1e-3, 1e-4, 1e-5])
    assert rates.of_weights(changed(meta_start=4), 1e-3) == 1e-3


def test_plain_epochs_take_no_part():
    """The optimizer is not called in 30 plain steps: 16 steps of the warm-up are left, or none."""
    config = changed(meta_every=4, meta_start=20, meta_warmup=26, epochs=10)
    later = rates.learning_later(config, 30)
    assert (later.meta_start, later.meta_warmup) == (30, 16)
    assert rates.learning_later(config, 0) == config
    later = rates.learning_later(config, 60)
    assert (later.meta_start, later.meta_warmup) == (60, 0)
    assert at(rates.of_weights(later, 1e-3, averaged=True), (0, 9)) == pytest.approx(
        [4e-3 * 0.95, 4e-3 * 0.05]
    )


def test_the_factor_of_averaged_meta_gradients():
    """From the root of k to k, falling to 0: Adam's steps add up to 0.35. k without averages or Adam."""
    config = changed(meta_every=25, meta_warmup=5, epochs=10, steps_per_epoch=78)  # 31 steps learn
    assert rates.factor(config, 1e-3, averaged=False) == (25, 0)
    assert rates.factor(dataclasses.replace(config, meta_optimizer="sgd"), 1e-3, averaged=True) == (
        25,
        0,
    )
    assert rates.factor(dataclasses.replace(config, meta_every=1), 1e-3, averaged=True) == (1, 0)
    assert rates.factor(config, 1e-3, averaged=True) == (pytest.approx(0.7 / 0.031), 31)
    assert rates.factor(config, 1e-4, averaged=True) == (25, 31)
    assert rates.factor(dataclasses.replace(config, epochs=1000), 1e-3, averaged=True) == (5, 3120)
    rate = rates.of_weights(config, 1e-3, averaged=True)
    assert at(rate, (0, 4)) == pytest.approx([1e-3, 1e-3])
    assert at(rate, (5, 20, 35)) == pytest.approx(
        [0.7 / 31 * share / 62 for share in (61, 31, 1)], rel=1e-4
    )
    assert sum(at(rate, range(5, 36))) == pytest.approx(0.35, rel=1e-4)
    assert at(rate, (36, 50)) == pytest.approx([0.7 / 31 / 62] * 2, rel=1e-3)  # a training that goes on
    rate = rates.of_weights(dataclasses.replace(config, meta_schedule="as_lr"), 1e-3, averaged=True)
    # Its steps 11, 12 and 15 are those of 155, 180 and 255 in training; drops are at 156 and 234.
    expected = [0.7 / 31 * s / 62 / d for s, d in ((49, 1), (47, 10), (41, 100))]
    assert at(rate, (11, 12, 15)) == pytest.approx(expected, rel=1e-4)
