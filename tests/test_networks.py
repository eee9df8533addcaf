"""Networks: sizes, initial values, batch norm as the papers have it."""

import dataclasses

import keras
import numpy as np
import pytest

from tf_mwnet import UserError, methods, networks
from tf_mwnet.types import DataSpec


def spec(height=32, channels=3, classes=10):
    names = tuple(str(k) for k in range(classes))
    return DataSpec(
        "t",
        (height, height, channels),
        "uint8",
        names,
        np.full(channels, 120.0),
        np.full(channels, 60.0),
    )


def parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_resnet32_is_the_published_size():
    model = networks.build("resnet32", spec())
    # 3x3 convolutions: 3-16, 10 of 16-16, 16-32 and 9 of 32-32, 32-64 and 9 of 64-64; two values of
    # batch norm per filter; dense 64-10.
    convolutions = 9 * (3 * 16 + 10 * 16**2 + 16 * 32 + 9 * 32**2 + 32 * 64 + 9 * 64**2)
    norms = 2 * (16 * 11 + 32 * 10 + 64 * 10)
    assert parameters(model) == convolutions + norms + 64 * 10 + 10 == 464_154
    assert model.output_shape == (None, 10)


def test_wrn28_10_is_the_published_size():
    model = networks.build("wrn28_10", spec(), dropout=0.3)
    assert round(parameters(model) / 1e6, 1) == 36.5
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert [d.rate for d in dropouts] == [0.3] * 12
    assert len({d.seed for d in dropouts}) == 12
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len([c for c in convolutions if c.kernel_size == (3, 3)]) == 25  # 28 less dense, 1x1s apart


def test_resnet18_is_the_published_size():
    """11,689,512 parameters with 1,000 classes (He et al.; torchvision), of which 513 are per class."""
    model = networks.build("resnet18", spec(64))
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert trainable == 11_689_512 - 513 * 1000 + 513 * 10
    with pytest.raises(UserError, match="resnet18 got images of"):
        networks.build("resnet18", spec(16))


def test_resnet34_is_the_published_size():
    """21,797,672 parameters with 1,000 classes (torchvision); here 3x3 pixels and 10 classes."""
    model = networks.build("resnet34", spec())
    assert parameters(model) == 21_797_672 - 513 * 990 - (49 - 9) * 3 * 64
    assert model.output_shape == (None, 10)


def test_preact_resnet18_by_hand():
    model = networks.build("preact_resnet18", spec(classes=100))
    convolutions = [9 * (3 * 64 + 4 * 64**2)]
    convolutions += [9 * (n // 2 * n + 3 * n**2) + n // 2 * n for n in (128, 256, 512)]
    norms = [2 * (64 + 4 * 64)] + [2 * (n // 2 + 3 * n) for n in (128, 256, 512)]
    assert parameters(model) == sum(convolutions) + sum(norms) + 513 * 100
    # A block whose convolutions are 0 is a rectified batch norm, which leaves a positive input as it is.
    x = np.random.default_rng(0).random((2, 32, 32, 3)).astype("float32")
    for layer in model.layers:
        inner = isinstance(layer, keras.layers.Conv2D) and layer.kernel.shape[2] != 3
        if inner and layer.kernel_size == (3, 3):
            layer.kernel.assign(np.zeros(layer.kernel.shape))
    first = keras.Model(model.input, model.layers[3].output)(x).numpy()
    adds = [layer for layer in model.layers if isinstance(layer, keras.layers.Add)]
    second = keras.Model(model.input, adds[1].output)(x).numpy()
    np.testing.assert_allclose(second, first / 1.00001, rtol=1e-4)


def test_lenet_of_l2rw():
    two = dataclasses.replace(spec(28, 1), class_names=("4", "9"))
    model = networks.build("lenet_sigmoid", two)
    convolutions = [v.shape for v in model.trainable_variables if len(v.shape) == 4]
    assert convolutions == [(5, 5, 1, 16), (5, 5, 16, 32), (5, 5, 32, 64)]
    dense = [v.shape for v in model.trainable_variables if len(v.shape) == 2]
    assert dense == [(4 * 4 * 64, 100), (100, 1)]
    # A normal distribution of deviation 0.1 that is cut off at two of them has 0.08796:
    # sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)) = 0.8796.
    for kernel in (v.numpy() for v in model.trainable_variables if len(v.shape) > 1):
        assert np.abs(kernel).max() <= 0.2
        assert kernel.std() == pytest.approx(0.08796, rel=0.2 if kernel.size < 1000 else 0.03)
    for bias in (v.numpy() for v in model.trainable_variables if len(v.shape) == 1):
        np.testing.assert_array_equal(bias, 0)
    kernels = [v.numpy().ravel()[:100] for v in model.trainable_variables if len(v.shape) > 1]
    assert np.abs(np.corrcoef(kernels) - np.eye(5)).max() < 0.4  # each has a seed of its own
    logits = model(np.random.default_rng(0).normal(size=(3, 28, 28, 1))).numpy()
    np.testing.assert_array_equal(logits[:, 0], 0)
    with pytest.raises(UserError, match="lenet_sigmoid got 10 classes"):
        networks.build("lenet_sigmoid", spec(28, 1))


@pytest.mark.parametrize("name", ["small_cnn", "wide_cnn", "resnet32", "wrn28_10"])
def test_batch_norm_is_the_papers(name):
    small = {"resnet32": {"blocks": 1, "width": 4}, "wrn28_10": {"blocks": 1, "widen": 1}}
    model = networks.build(name, spec(8), **small.get(name, {}))
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    assert {(n.momentum, n.epsilon) for n in norms} == {(0.9, 1e-5)}


@pytest.mark.parametrize(
    ("name", "size"),
    [("small_cnn", 8), ("small_cnn", 32), ("wide_cnn", 9), ("lenet", 28), ("mlp", 9), ("resnet32", 16)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_depend_on_the_seed_alone(name, size, channels):
    x = np.random.default_rng(0).normal(size=(4, size, size, channels)).astype(np.float32)
    one, same, other = (
        networks.build(name, spec(size, channels, 7), seed=s)(x).numpy() for s in (1, 1, 2)
    )
    assert one.shape == (4, 7)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    assert np.abs(one).max() > 0
    assert (one < 0).any()  # logits, no probabilities


def test_wide_cnn():
    """On images averaged over 2x2 pixels, whose pattern it therefore does not see."""
    model = networks.build("wide_cnn", spec(32, 3, 10))
    sizes = [layer.output.shape[1] for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert sizes == [16, 8, 4, 4]
    convolutions = 9 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 128)
    assert model.count_params() == convolutions + 4 * (32 + 64 + 128 + 128) + 128 * 10 + 10
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).repeat(2, 1).repeat(2, 2)
    pattern = np.tile([[1.0, -1.0], [-1.0, 1.0]], (16, 16))[None, :, :, None]
    np.testing.assert_allclose(model(x + pattern), model(x), atol=1e-4)


def test_he_initialisation():
    model = networks.build("resnet32", spec())
    kernel = next(v for v in model.trainable_variables if v.shape == (3, 3, 64, 64)).numpy()
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.03)
    kernels = [v.numpy() for v in model.trainable_variables if v.shape == (3, 3, 64, 64)]
    assert np.abs(np.corrcoef([k.ravel() for k in kernels]) - np.eye(len(kernels))).max() < 0.03


def test_shortcut_has_no_parameters():
    layer = networks.residual.PaddedShortcut(6, 2)
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    found = layer(x).numpy()
    assert found.shape == (2, 3, 2, 6)
    np.testing.assert_array_equal(found[..., 1:4], x[:, ::2, ::2])
    np.testing.assert_array_equal(found[..., [0, 4, 5]], 0)
    assert layer.compute_output_shape(x.shape) == found.shape
    assert not layer.variables


def test_networks_can_be_saved(tmp_path):
    model = networks.build("resnet32", spec(8), blocks=1, width=4)
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "model.keras")(x), model(x), rtol=1e-5)


def test_default_networks():
    assert networks.default_network(spec(8, 1)) == "small_cnn"
    assert networks.default_network(spec(28, 1)) == "lenet"
    assert networks.default_network(spec(32, 3)) == "resnet32"


@pytest.mark.slow
def test_resnet50_with_and_without_weights(tmp_path, monkeypatch):
    from tf_mwnet.networks import pretrained

    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    random = networks.build("resnet50", spec(32, 3, 5), weights="none")
    assert random(x).shape == (2, 5)
    assert round(parameters(random) / 1e6, 1) == 23.5
    body = next(layer for layer in random.layers if layer.name == "resnet50")
    norms = [layer for layer in body.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {n.momentum for n in norms} == {0.9}
    # Keras's home is a folder of weights files; here with one that this test has written.
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained, "WEIGHTS", "own.weights.h5")
    (tmp_path / "models").mkdir()
    body.save_weights(tmp_path / "models" / "own.weights.h5")
    loaded = networks.build("resnet50", spec(32, 3, 5), seed=3)
    kernel = next(layer for layer in loaded.layers if layer.name == "resnet50").layers[2].kernel
    np.testing.assert_array_equal(kernel, body.layers[2].kernel)
    # Normalised by mean 120 and deviation 60, turned back and centred as ImageNet's weights want it.
    turned = next(layer for layer in loaded.layers if "image_net" in layer.name)(x).numpy()
    np.testing.assert_allclose(
        turned, (60 * x + 120)[..., ::-1] - pretrained.IMAGENET_BGR, rtol=1e-4, atol=1e-3
    )
    with pytest.raises(UserError, match="not there"):
        networks.build("resnet50", spec(), weights=str(tmp_path / "none.h5"))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnet99", (32, 3), r"unknown network 'resnet99' \(did you mean 'resnet"),
        ("lenet", (8, 1), "at least 12x12"),
        ("resnet50", (32, 1), "RGB"),
    ],
)
def test_bad_networks(name, shape, message):
    with pytest.raises(UserError, match=message):
        networks.build(name, spec(*shape))


def test_weight_net_starts_as_in_the_authors_code():
    net = networks.weight_net((100,), seed=0)
    v1, c1, v2, c2 = (v.numpy() for v in net.trainable_variables)
    assert [v.shape for v in (v1, c1, v2, c2)] == [(1, 100), (100,), (100, 1), (1,)]
    for values, limit in ((v1, 1), (c1, 1), (v2, 0.1), (c2, 0.1)):
        assert np.abs(values).max() <= limit
    assert v1.std() == pytest.approx(1 / np.sqrt(3), rel=0.15)
    assert v2.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.15)
    loss = np.linspace(0, 10, 50, dtype=np.float32)[:, None]
    by_hand = 1 / (1 + np.exp(-(np.maximum(loss @ v1 + c1, 0) @ v2 + c2)))
    np.testing.assert_allclose(net(loss), by_hand, rtol=1e-5)
    assert len(np.unique(np.sign(np.round(-c1 / v1[0], 3)))) == 2  # kinks on both sides of 0


@pytest.mark.parametrize("hidden", [(), (50,), (10, 10, 10)])
def test_weight_net_shapes(hidden):
    net = networks.weight_net(hidden)
    assert [layer.units for layer in net.layers] == [*hidden, 1]
    value = net(np.array([[0.0], [5.0]], np.float32)).numpy()
    assert ((value > 0) & (value < 1)).all()
    with pytest.raises(UserError, match="positive"):
        networks.weight_net((10, 0))


def test_methods_by_name_dict_and_object():
    assert isinstance(methods.get("mwnet"), methods.MWNet)
    method = methods.get({"name": "mwnet", "hidden": (3,), "normalise": False})
    assert (method.hidden, method.normalise) == ((3,), False)
    assert methods.get(method) is method
    copy = methods.get(keras.saving.serialize_keras_object(method))
    assert (copy.hidden, copy.normalise) == ((3,), False)
    with pytest.raises(UserError, match="a name, a dict"):
        methods.get(3)
