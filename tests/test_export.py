"""SavedModels: signatures, use without this package, transfer."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mwnet import ReweightedModel, UserError, WeightFunction, methods, networks
from tf_mwnet.export import saved_models
from tf_mwnet.networks.course import Course
from tf_mwnet.types import DataSpec

CARD = {"normalised": False}
SPEC = DataSpec(
    "t", (6, 6, 1), "uint8", ("a", "b", "c"), np.array([100.0], np.float32), np.array([50.0], np.float32)
)


@pytest.fixture
def weight_net():
    return networks.weight_net((10,), seed=4)


def test_weight_net_round_trip(weight_net, tmp_path):
    path = saved_models.export_weight_net(weight_net, tmp_path / "net" / "3", CARD)
    loss = np.linspace(0, 8, 20, dtype=np.float32)
    expected = weight_net(loss[:, None]).numpy()[:, 0]
    for place in (path, tmp_path / "net"):
        function = WeightFunction(place)
        np.testing.assert_allclose(function(tf.constant(loss)), expected, rtol=1e-6)
        assert function.normalised is False
    assert json.loads((path / "model_card.json").read_text()) == CARD
    assert [p.name for p in (tmp_path / "net").iterdir()] == ["3"]  # nothing left beside it


def test_plain_tensorflow_is_enough(weight_net, tmp_path):
    path = saved_models.export_weight_net(weight_net, tmp_path / "net" / "1", CARD)
    expected = float(weight_net(np.array([[1.5]], np.float32))[0, 0])
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "tf_mwnet":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import tensorflow as tf
serve = tf.saved_model.load({str(path)!r}).signatures["serving_default"]
(name, spec), = serve.structured_input_signature[1].items()
assert (name, spec.dtype, spec.shape.as_list()) == ("loss", tf.float32, [None, 1])
print(float(serve(loss=tf.constant([[1.5]]))["weight"][0, 0]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(expected, rel=1e-5)


def test_highest_version_is_taken(weight_net, tmp_path):
    for version in ("2", "10"):
        saved_models.export_weight_net(weight_net, tmp_path / version, CARD)
    assert WeightFunction(tmp_path).path.name == "10"


def test_nothing_is_overwritten(weight_net, tmp_path):
    saved_models.export_weight_net(weight_net, tmp_path / "1", CARD)
    with pytest.raises(UserError, match="there already"):
        saved_models.export_weight_net(weight_net, tmp_path / "1", CARD)
    with pytest.raises(UserError, match="version"):
        saved_models.export_weight_net(weight_net, tmp_path / "latest", CARD)


def test_classifier_takes_raw_pixels(tmp_path):
    model = networks.small_cnn(SPEC, seed=0)
    images = np.random.default_rng(0).integers(0, 255, size=(5, 6, 6, 1)).astype(np.uint8)
    path = saved_models.export_classifier(model, SPEC, tmp_path / "1", {})
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = serve(image=tf.constant(images))["probabilities"].numpy()
    logits = model((images.astype(np.float32) - 100) / 50, training=False)
    np.testing.assert_allclose(found, tf.nn.softmax(logits), rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_bad_weight_nets(tmp_path, weight_net):
    with pytest.raises(UserError, match="not there"):
        WeightFunction(tmp_path / "none")
    model = networks.small_cnn(SPEC)
    path = saved_models.export_classifier(model, SPEC, tmp_path / "classifier" / "1", {})
    with pytest.raises(UserError, match=r"signature: image uint8.*probabilities.*allowed"):
        WeightFunction(path)
    path = saved_models.export_weight_net(weight_net, tmp_path / "broken" / "1", CARD)
    (path / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be loaded"):
        WeightFunction(path)


@pytest.mark.parametrize("groups", [(), (3,)], ids=["one", "groups"])
def test_course_of_a_weight_net(groups, tmp_path):
    rng = np.random.default_rng(0)
    losses, table = np.linspace(0, 2, 5, dtype=np.float32), rng.random((4, 5, *groups), np.float32)
    net = networks.weight_net((10,), seed=4, outputs=groups[0] if groups else 1)
    path = saved_models.export_weight_net(net, tmp_path / "1", CARD, Course(losses, table))
    function = WeightFunction(path)
    for epoch in range(4):
        found = function(tf.constant(losses), (epoch + 1) / 4)
        np.testing.assert_allclose(found, table[epoch], atol=1e-6)
    np.testing.assert_allclose(function(tf.constant(losses), 0.0), table[0], atol=1e-6)
    half = function(tf.constant([0.25, 99.0]), 2.5 / 4)
    mean = (table[1] + table[2]) / 2
    np.testing.assert_allclose(half, [(mean[0] + mean[1]) / 2, mean[-1]], atol=1e-6)
    strange = function(tf.constant([np.nan, np.inf, 0.0]), 1.0).numpy()
    assert np.isnan(strange[0]).all()
    np.testing.assert_allclose(strange[1:], [table[3, -1], table[3, 0]], atol=1e-6)
    at_the_end = function(tf.constant(losses))
    np.testing.assert_allclose(at_the_end, np.squeeze(net(losses[:, None])), atol=1e-6)


def test_a_course_that_is_none():
    for losses, weights, message in (
        ([0.0, 1.0], np.zeros((3, 4)), "allowed: \\[E, P\\]"),
        ([0.0, 1.0, 3.0], np.zeros((2, 3)), "equally far apart"),
        ([1.0, 2.0], np.zeros((2, 2)), "from 0"),
    ):
        with pytest.raises(UserError, match=message):
            Course(np.array(losses), weights)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_frozen_weights_train_another_classifier(weight_net, tmp_path, blobs, jit_compile):
    """The same function, inside MWNet with a step size of zero for it, gives the same training."""
    x, y, xm, ym = blobs
    path = saved_models.export_weight_net(weight_net, tmp_path / "1", {"normalised": True})
    results = []
    for method in (methods.FrozenWeights(str(path)), methods.MWNet(weight_net=weight_net)):
        net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, kernel_initializer="ones")])
        model = ReweightedModel(net, method)
        model.compile("sgd", keras.optimizers.SGD(0.0), jit_compile=jit_compile)
        meta = (xm, ym) if method.learns else None
        model.fit(x, y, meta_data=meta, epochs=3, batch_size=30, verbose=0)
        results.append(net.get_weights())
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert methods.FrozenWeights(str(path)).normalise is True
    assert methods.FrozenWeights(str(path), normalise=False).normalise is False
    copy = methods.get(keras.saving.serialize_keras_object(methods.FrozenWeights(str(path))))
    np.testing.assert_allclose(
        copy.weight_function(tf.constant([1.0])), weight_net(np.ones((1, 1)))[0], rtol=1e-6
    )
