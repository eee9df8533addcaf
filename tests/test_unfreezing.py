"""Training of backbone and head together, after the head."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from contract import prepared
from test_features import body, photos

import tf_mwnet
from tf_mwnet import Experiment, features
from tf_mwnet.errors import UserError
from tf_mwnet.experiment import unfreezing
from tf_mwnet.features import embed, load
from tf_mwnet.files import load_arrays
from tf_mwnet.losses import cross_entropy
from tf_mwnet.methods import METHODS
from tf_mwnet.model import classifier_head
from tf_mwnet.runs import saved_run
from tf_mwnet.types import Examples

SMALL = features.SETTINGS | {"epochs": 3, "lr_drops": (), "batch_size": 10, "then_unfreeze": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unfrozen")
    body().save(folder / "body.keras")
    config = Experiment(
        method="mwnet", compare="erm", backbone=str(folder / "body.keras"), noise="uniform",
        noise_rate=0.3, meta_size=6, run_dir=str(folder / "run"), features=str(folder / "features"),
        **SMALL, unfreeze_lr=1e-3,
    )  # fmt: skip
    source = dataclasses.replace(photos(120), trusted=True)
    return tf_mwnet.run(config, source)


def test_the_backbone_moves_and_each_method_starts_from_the_first(trained):
    assert {"mwnet", "mwnet+UF", "erm", "erm+UF"} <= set(trained.methods)
    first = body().get_weights()
    for name in ("mwnet+UF", "erm+UF"):
        moved = trained.classifiers[name].get_layer("backbone").module.get_weights()
        assert not np.allclose(moved[0], first[0])
        np.testing.assert_allclose(moved[0], first[0], atol=0.3)  # at a low rate
    # What the features were computed with is as it was.
    own = trained.source.encoder.network.module.get_weights()
    np.testing.assert_array_equal(own[0], first[0])


def test_the_weights_are_those_of_the_heads_training(trained):
    folder = trained.run_dir / "mwnet"
    paths = sorted((folder / "examples").glob("epoch_*.npz"))
    records = np.stack([load_arrays(path)["weight"].astype(float) for path in paths])
    fixed = unfreezing.learned_weights(folder, len(trained.splits.train))
    np.testing.assert_allclose(fixed, np.nanmean(records, axis=0), rtol=1e-6)
    assert fixed.std() > 0
    used = load_arrays(folder / "unfrozen" / "examples" / "epoch_0002.npz")["weight"].astype(float)
    np.testing.assert_allclose(used, fixed, rtol=2e-3)


def test_one_step_by_hand(trained):
    """The gradient of the weighted mean loss, through the backbone too."""
    whole = unfreezing.raw(trained.splits)
    x, y = whole.train.x[:10].astype(np.float32), whole.train.y[:10]
    model = trained.classifiers["mwnet+UF"]
    weights = np.linspace(0.5, 2, 10).astype(np.float32)
    method = unfreezing.FixedWeights(weights)
    reweighted = tf_mwnet.ReweightedModel(model, method)
    reweighted.compile(keras.optimizers.SGD(0.01))
    before = [v.numpy() for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        each = keras.losses.sparse_categorical_crossentropy(y, model(x), from_logits=True)
        loss = tf.reduce_mean(weights * each)
    expected = tape.gradient(loss, [v.value for v in model.trainable_variables])
    reweighted.fit(x, y, batch_size=10, epochs=1, verbose=0, shuffle=False)
    for old, new, slope in zip(before, model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(new.numpy(), old - 0.01 * slope.numpy(), atol=1e-6)
    assert len(before) == 4  # of the convolution and of the head


def test_the_export_takes_images(trained):
    path = saved_run.exported(trained.run_dir, "mwnet", "unfrozen")
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    x = trained.splits.test.raw[:5]
    model = trained.classifiers["mwnet+UF"]
    served = serve(image=tf.constant(x))["probabilities"].numpy()
    assert served.shape == (5, 3)
    np.testing.assert_allclose(served.sum(axis=1), 1, rtol=1e-5)
    folder = trained.run_dir / "erm"
    facts = json.loads((trained.run_dir / saved_run.RESULT).read_text())["methods"]["erm+UF"]
    assert (folder / "unfrozen" / "metrics.csv").is_file()
    assert 0 <= facts["last"] <= 1
    assert classifier_head.inspect(model, True).num_classes == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": ""}, "then_unfreeze is 2 without a backbone"),
        ({"method": "meta_only"}, "with method 'meta_only'"),
        ({"method": "mlnt"}, "with method 'mlnt', whose objective is more than weighted losses"),
    ],
)
def test_what_can_not_be_unfrozen(tmp_path, change, message):
    config = Experiment(method="erm", meta_size=6, run_dir=str(tmp_path / "r"), **SMALL)
    source = dataclasses.replace(photos(120), trusted=True)
    if "backbone" not in change:
        source = embed(source, load(body()), folder="")
    with pytest.raises(UserError, match=message):
        tf_mwnet.run(dataclasses.replace(config, **change), source)


@pytest.mark.parametrize("name", METHODS)
def test_losses_and_batches_are_the_methods(name):
    """Losses that are not one number an example have no place for the weight of one."""
    own = prepared(name)
    method = unfreezing.FixedWeights(np.linspace(0.5, 2, 120), own)
    logits = tf.constant(np.random.default_rng(0).normal(size=(4, 4)), tf.float32)  # B is K
    labels, index = tf.constant([0, 1, 2, 0]), tf.constant([3, 0, 100, 119], tf.int64)
    expected = own.example_losses(logits, labels, index)
    if expected.shape.rank != 1:
        expected = cross_entropy(logits, labels)
    found = method.example_losses(logits, labels, index)
    assert found.shape == (4,)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert method.example_weights(Examples(found, logits, labels, index)).shape == (4,)
    assert method.sampling == own.sampling
