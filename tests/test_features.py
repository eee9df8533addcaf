"""Features of pretrained networks: every kind of backbone, embedding, training, export, audit."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tf_mwnet
from pipelines import settings as pipeline_settings
from tf_mwnet import data, features
from tf_mwnet.audit import cleaned
from tf_mwnet.audit.evidence import classify
from tf_mwnet.audit.examine import examine
from tf_mwnet.cli.flags import parse
from tf_mwnet.config import Experiment
from tf_mwnet.data import cache, images
from tf_mwnet.data.streams import Views, training_stream
from tf_mwnet.errors import UserError
from tf_mwnet.experiment import resolve
from tf_mwnet.features import __main__ as command
from tf_mwnet.features import embedding, storage
from tf_mwnet.features.scalings import SCALINGS, of_application, resized, view

rng = np.random.default_rng(0)


def body(size: int = 12) -> keras.Model:
    """A small convolutional network to 5 features, the same each time."""
    layers = [
        keras.layers.Conv2D(5, 3, kernel_initializer=keras.initializers.RandomNormal(seed=3)),
        keras.layers.GlobalAveragePooling2D(),
    ]
    return keras.Sequential([keras.Input((size, size, 3)), *layers], name="body")


def photos(count: int = 60, classes: int = 3, seed: int = 0) -> data.sources.Source:
    """Colour images whose brightness tells their class."""
    own = np.random.default_rng(seed)
    y = np.arange(count) % classes
    x = own.integers(0, 80, (count, 12, 12, 3)) + (60 * y)[:, None, None, None]
    x, test = x.astype(np.uint8), 2 * (count // 3)
    return data.from_arrays(x[:test], y[:test], x[test:], y[test:], name="photos")


# -------------------------------------------------------------------- backbones


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """The same network as files of every kind."""
    folder, model = tmp_path_factory.mktemp("backbones"), body()
    model.save(folder / "body.keras")
    model.export(folder / "saved", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    (folder / "body.tflite").write_bytes(converter.convert())
    (folder / "mine.py").write_text(
        "import test_features\ndef make():\n    return test_features.body()\n"
    )
    return {
        "keras": str(folder / "body.keras"),
        "saved_model": str(folder / "saved"),
        "tflite": str(folder / "body.tflite"),
        "folder": str(folder),
    }


@pytest.mark.parametrize("kind", ["keras", "saved_model", "tflite", "function", "model"])
def test_kinds_of_backbones(kind, files, monkeypatch):
    monkeypatch.syspath_prepend(files["folder"])
    given = {"function": "mine:make", "model": body()}.get(kind) or files[kind]
    backbone = features.load(given)
    images = rng.integers(0, 256, (4, 12, 12, 3), np.uint8)
    expected = body()(images.astype(np.float32) / 127.5 - 1)
    np.testing.assert_allclose(backbone(tf.constant(images)), expected, atol=1e-5)
    assert (backbone.dim, backbone.size, backbone.scaling) == (5, (12, 12), "signed")
    assert backbone.fingerprint == features.load(given).fingerprint
    assert backbone.fingerprint != features.load(given, scaling="unit").fingerprint


def test_size_scaling_and_grey(files):
    backbone = features.load(files["keras"], size=16, scaling="imagenet")
    grey = rng.integers(0, 256, (3, 8, 8, 1), np.uint8)
    rgb = np.repeat(grey, 3, axis=-1).astype(np.float32)
    large = tf.image.resize(rgb, (16, 16)).numpy()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    model = body()
    kernel, bias = model.layers[0].get_weights()
    expected = tf.nn.conv2d((large / 255 - mean).astype(np.float32) / std, kernel, 1, "VALID") + bias
    np.testing.assert_allclose(backbone(tf.constant(grey)), tf.reduce_mean(expected, [1, 2]), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"), [("pixels", 51.0), ("unit", 0.2), ("signed", 51 / 127.5 - 1)]
)
def test_scalings(name, value):
    np.testing.assert_allclose(SCALINGS[name](tf.fill([1, 2, 2, 3], 51.0)), value, rtol=1e-6)
    caffe = SCALINGS["caffe"](tf.constant([[[[10.0, 20.0, 30.0]]]]))
    np.testing.assert_allclose(caffe[0, 0, 0], [30 - 103.939, 20 - 116.779, 10 - 123.68], rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["MobileNetV2", "ResNet50", "ResNet50V2", "DenseNet121", "VGG16", "EfficientNetB0", "Xception"],
)
def test_scalings_of_applications(name):
    """Compared with the library's own preprocessing."""
    module = {
        "MobileNetV2": "mobilenet_v2", "ResNet50": "resnet50", "ResNet50V2": "resnet_v2",
        "DenseNet121": "densenet", "VGG16": "vgg16", "EfficientNetB0": "efficientnet",
        "Xception": "xception",
    }[name]  # fmt: skip
    x = rng.uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
    own = getattr(keras.applications, module).preprocess_input(x.copy())
    np.testing.assert_allclose(SCALINGS[of_application(name)](tf.constant(x)), own, atol=1e-4)


def test_pooling_of_maps():
    maps = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3)])
    images = rng.integers(0, 256, (2, 6, 6, 3), np.uint8)
    raw = maps(images / np.float32(127.5) - 1).numpy()
    for pooling, expected in (
        ("auto", raw.mean((1, 2))), ("max", raw.max((1, 2))), ("first", raw[:, 0, 0]),
    ):  # fmt: skip
        found = features.load(maps, pooling=pooling)(tf.constant(images))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(UserError, match=r"gives \(1, 4, 4, 4\) for one image; allowed: a vector"):
        features.load(maps, pooling="none")


def test_random_views():
    image = tf.constant(rng.uniform(0, 255, (1, 20, 20, 3)), tf.float32)
    whole = view(image, tf.constant([[1.0, 0.0, 0.0, 0.9]]), (20, 20))
    np.testing.assert_allclose(whole, image, atol=1e-3)
    mirrored = view(image, tf.constant([[1.0, 0.0, 0.0, 0.1]]), (20, 20))
    np.testing.assert_allclose(mirrored, image[:, :, ::-1], atol=1e-3)
    assert resized(tf.zeros([2, 5, 5, 1], tf.uint8), (7, 7)).shape == (2, 7, 7, 3)


def test_random_views_of_large_images_are_smooth():
    """Noise of single pixels averages out in a view as it does in the whole image."""
    own = np.random.default_rng(0)
    noise = tf.constant(own.normal(0, 50, (8, 240, 160, 3)), tf.float32)
    whole, cut = resized(noise, (16, 20)), view(noise, own.random((8, 4), np.float32), (16, 20))
    assert cut.shape == whole.shape
    assert np.std(cut) < 2 * np.std(whole) < 15
    ramp = tf.broadcast_to(tf.linspace(0.0, 255.0, 240)[None, :, None, None], [1, 240, 160, 3])
    part = view(ramp, tf.constant([[0.0, 0.5, 0.5, 0.9]]), (15, 11))[0, :, 5, 0]
    np.testing.assert_allclose(part, 255 * np.linspace(0.15, 0.85, 15), atol=5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nonsense", "backbone is 'nonsense'; allowed: keras_hub:<preset>"),
        ("nowhere/a.keras", "backbone 'nowhere/a.keras' is not there; allowed"),
        (__file__, "is no network; allowed"),
        ("keras_app:MobileNetV9", "unknown network 'keras_app:MobileNetV9' (did you mean MobileNetV"),
        ("keras_app:MobileNetV2", "backbone_weights is '' for keras_app:MobileNetV2; allowed: a file"),
        ("nomodule:make", "cannot be imported (No module named 'nomodule')"),
        ("json:loads", "backbone 'json:loads' fails (TypeError: loads() missing 1 required"),
        ("json:JSONDecoder", "'json:JSONDecoder' returns a JSONDecoder; allowed: a keras.Model"),
        (lambda: keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)]), "takes (None, 7)"),
        (lambda: keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3)]),
         "takes images of any size; allowed: with --backbone_size"),
    ],
)  # fmt: skip
def test_backbones_that_are_none(given, message):
    with pytest.raises(UserError, match=re.escape(message)):
        features.load(given)


def test_damaged_files(tmp_path, files):
    (tmp_path / "a.keras").write_bytes(pathlib.Path(files["keras"]).read_bytes()[:500])
    (tmp_path / "a.tflite").write_bytes(b"no model")
    for name in ("a.keras", "a.tflite"):
        with pytest.raises(UserError, match=rf"{name}' cannot be loaded"):
            features.load(str(tmp_path / name))
    with pytest.raises(UserError, match=r"backbone_weights is set with .*allowed: with keras_app"):
        features.load(files["keras"], weights="x")
    with pytest.raises(UserError, match=r"backbone_size is 7 with .* of 12; allowed: its own size"):
        features.load(files["tflite"], size=7)


# -------------------------------------------------------------------- presets of Keras Hub


@pytest.fixture(scope="module")
def presets(tmp_path_factory) -> dict[str, str]:
    """Small networks with random weights, as folders of presets."""
    hub = pytest.importorskip("keras_hub")
    folder = tmp_path_factory.mktemp("presets")
    vit = hub.models.ViTBackbone(
        image_shape=(16, 16, 3), patch_size=8, num_layers=1, num_heads=2, hidden_dim=6, mlp_dim=8
    )
    vit.save_to_preset(str(folder / "vit"))
    converter = hub.layers.ImageConverter(image_size=(16, 16), scale=1 / 255)
    converter.save_to_preset(str(folder / "vit"))
    bert = hub.models.BertBackbone(
        vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=6, intermediate_dim=8
    )
    bert.save_to_preset(str(folder / "bert"))
    t5 = hub.models.T5Backbone(
        vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=6, intermediate_dim=8
    )
    t5.save_to_preset(str(folder / "t5"))
    return {"folder": str(folder)} | {name: str(folder / name) for name in ("vit", "bert", "t5")}


def test_a_preset_of_keras_hub(presets):
    import keras_hub

    backbone = features.load(f"keras_hub:{presets['vit']}")
    assert (backbone.size, backbone.dim, backbone.scaling) == ((16, 16), 6, "own")
    images = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    model = keras_hub.models.Backbone.from_preset(presets["vit"])
    tokens = model(images / np.float32(255), training=False)
    assert tokens.shape[1] == 5  # a class token and four patches
    np.testing.assert_allclose(backbone(tf.constant(images)), tokens[:, 0], atol=1e-5)
    assert backbone(tf.zeros([1, 30, 20, 1], tf.uint8)).shape == (1, 6)


def test_views_with_the_preprocessing_of_a_preset(presets):
    """Each is another part of the image, scaled as the preset does."""
    made = features.embed(photos(), features.load(f"keras_hub:{presets['vit']}", views=3), "")
    views = made.train.x
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (np.abs(views[:, a] - views[:, b]).max(axis=1) > 1e-4).all()
    backbone = features.load(f"keras_hub:{presets['vit']}", views=2)
    images = tf.constant(photos().train.x[:4])
    whole = tf.constant([[1.0, 0.0, 0.0, 0.9]] * 4)
    expected = view(images, whole, (16, 16)) / 255
    np.testing.assert_allclose(backbone.prepared(images, whole), expected, rtol=1e-5)
    assert backbone.about()["cut"] == "before its own preprocessing"


def test_fingerprints_do_not_depend_on_random_states(tmp_path):
    def model():
        layers = [
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2, "relu", False, "ones"),
        ]
        return keras.Sequential([keras.Input((4, 4, 3)), *layers])

    assert features.load(model()).fingerprint == features.load(model()).fingerprint


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (
            "{bert}",
            "has no preprocessor of a text classifier .*; allowed: a preset with one, as of BERT",
        ),
        ("{t5}", "is a T5Backbone, which takes neither images nor tokens; allowed: an image or a text"),
        ("{folder}", "cannot be loaded .*; allowed: one that save_to_preset has written"),
        ("dinov2_smal", r"unknown preset 'dinov2_smal' \(did you mean dinov2_small"),
    ],
)
def test_presets_that_are_none(preset, message, presets):
    with pytest.raises(UserError, match=message):
        features.load(f"keras_hub:{preset.format(**presets)}")


def test_a_preset_without_a_network(presets, monkeypatch):
    import keras_hub

    def fail(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", fail)
    known = next(iter(keras_hub.models.ViTBackbone.presets))
    with pytest.raises(UserError, match=rf"'{known}' cannot be loaded \(no route to host\); allowed"):
        features.load(f"keras_hub:{known}")


# -------------------------------------------------------------------- embedding


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_embedding(views, dtype, tmp_path, files):
    source, backbone = photos(), features.load(files["keras"], views=views)
    made = features.embed(source, backbone, str(tmp_path / "f"), dtype)
    x = made.train.x if views == 1 else made.train.x[:, 0]
    assert made.train.x.dtype == dtype
    assert made.train.x.shape == ((40, 5) if views == 1 else (40, 3, 5))
    np.testing.assert_allclose(x, backbone(tf.constant(source.train.x)), atol=2e-3)
    np.testing.assert_array_equal(made.test.raw, source.test.x)
    if views > 1:
        assert np.abs(made.train.x[:, 1] - made.train.x[:, 2]).max() > 1e-3
    about = json.loads((tmp_path / "f" / "manifest.json").read_text())
    assert (about["fingerprint"], about["dim"], about["views"]) == (backbone.fingerprint, 5, views)
    assert "/" not in about["backbone"]


def test_embedding_goes_on_where_it_was_cut_off(tmp_path, files, monkeypatch):
    source, backbone = photos(300), features.load(files["keras"])
    whole = features.embed(source, backbone, "")
    monkeypatch.setattr(storage, "CHUNK", 32)
    calls: list[int] = []
    compute = embedding._Compute.__call__

    def cut_off(self, rows):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(int(rows[0]))
        return compute(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(embedding._Compute, "__call__", cut_off)
        with pytest.raises(KeyboardInterrupt):
            features.embed(source, backbone, str(tmp_path / "f"))
    assert calls == [0, 32, 64]
    calls.clear()

    def watched(self, rows):
        calls.append(int(rows[0]))
        return compute(self, rows)

    monkeypatch.setattr(embedding._Compute, "__call__", watched)
    made = features.embed(source, backbone, str(tmp_path / "f"))
    assert calls[0] == 96
    np.testing.assert_array_equal(made.train.x, whole.train.x)
    calls.clear()
    features.embed(source, backbone, str(tmp_path / "f"))
    assert not calls


def test_features_of_other_data_or_backbones(tmp_path, files):
    folder, backbone = str(tmp_path / "f"), features.load(files["keras"])
    features.embed(photos(), backbone, folder)
    with pytest.raises(UserError, match=r"have sets .*; allowed: the same, or another folder"):
        features.embed(photos(seed=1), backbone, folder)
    with pytest.raises(UserError, match="have scaling 'signed', not 'unit'"):
        features.embed(photos(), features.load(files["keras"], scaling="unit"), folder)
    with pytest.raises(UserError, match=r"are of backbone 'body' .*; allowed: the same backbone"):
        features.given(photos(), folder, features.load(files["keras"], size=16))
    with pytest.raises(UserError, match="has no features of 'photos train/00040'"):
        features.given(photos(90), folder)
    with pytest.raises(UserError, match=r"have no manifest.json; allowed: a folder that"):
        features.given(photos(), str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("x")
    with pytest.raises(UserError, match="holds other files; allowed: a new folder"):
        features.embed(photos(), backbone, str(tmp_path / "mine"))
    given = features.given(photos(), folder)
    np.testing.assert_array_equal(given.train.x, features.embed(photos(), backbone, folder).train.x)


def test_images_that_are_read_from_a_cache_file(tmp_path, files):
    source, backbone = photos(), features.load(files["keras"])
    sets = {}
    for name, part in source.sets.items():
        cache.write_rows(tmp_path / f"{name}.npy", [part.x], part.x.shape, "uint8", name)
        sets[name] = dataclasses.replace(part, x=cache.read_rows(tmp_path / f"{name}.npy"))
    lazy, folder = dataclasses.replace(source, **sets), str(tmp_path / "f")
    made = features.embed(lazy, backbone, folder)
    np.testing.assert_array_equal(made.train.x, features.embed(source, backbone, "").train.x)
    order = np.arange(len(source.train))[::-1]
    turned = dataclasses.replace(lazy.train, x=lazy.train.x[order])
    with pytest.raises(UserError, match="have sets"):
        features.embed(dataclasses.replace(lazy, train=turned), backbone, folder)
    cache.write_rows(tmp_path / "test.npy", [source.test.x + 1], source.test.x.shape, "uint8", "test")
    with pytest.raises(UserError, match="have sets"):
        features.embed(lazy, backbone, folder)


def test_features_that_are_no_numbers(files):
    model = body()
    model.layers[0].kernel.assign(np.full(model.layers[0].kernel.shape, np.nan))
    with pytest.raises(UserError, match="a feature of 'photos train/00000' is not finite"):
        features.embed(photos(), features.load(model), "")
    model.layers[0].kernel.assign(np.zeros(model.layers[0].kernel.shape))
    with pytest.raises(UserError, match="all 5 features are constant; allowed: ones that differ"):
        features.embed(photos(), features.load(model), "")
    vectors = data.from_arrays(rng.random((20, 7)), np.arange(20) % 2, name="table")
    with pytest.raises(UserError, match=r"inputs of shape \(7,\) with backbone 'body'; allowed: grey"):
        features.embed(vectors, features.load(files["keras"]), "")
    floats = data.from_arrays(rng.random((20, 8, 8, 3)), np.arange(20) % 2, name="floats")
    with pytest.raises(UserError, match="images of float32 with backbone 'body'; allowed: uint8"):
        features.embed(floats, features.load(files["keras"]), "")


@pytest.mark.parametrize("folder", ["", "f"])
def test_features_that_are_too_large_for_their_type(folder, tmp_path):
    """One of many examples; those that are looked at afterwards would not show it."""
    source, model = photos(9000), body()
    source.train.x[5] = 255
    model.layers[0].kernel.assign(np.full(model.layers[0].kernel.shape, 3000))
    backbone, folder = features.load(model), folder and str(tmp_path / folder)
    message = (
        "a feature of 'photos train/00005' is 81000 with feature_dtype=float16; allowed: -65504 to"
        " 65504, or --feature_dtype=float32"
    )
    with pytest.raises(UserError, match=message):
        features.embed(source, backbone, folder, "float16")
    assert features.embed(source, backbone, "").train.x.max() == 81000


# -------------------------------------------------------------------- training, export, audit


def settings(files, folder, **fields):
    fields = {
        "epochs": 3,
        "batch_size": 20,
        "meta_size": 9,
        "lr": 1.0,
        "run_dir": folder / "run",
    } | fields
    return Experiment(backbone=files, features=str(folder / "f"), **fields)


OTHERS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("saved_model", "tflite")]


@pytest.mark.parametrize("kind", ["keras", *OTHERS])
def test_a_run_on_features(kind, files, tmp_path):
    source = photos(90)
    config = settings(files[kind], tmp_path, method="mwnet", compare="erm", noise="flip", noise_rate=0.3)
    result = tf_mwnet.run(config, source)
    assert result.config.network == "linear"
    assert result.splits.spec.shape == (5,)
    for method in ("erm", "mwnet"):
        path = tmp_path / "run" / method / "saved_models" / "classifier" / "1"
        loaded = tf.saved_model.load(str(path))
        x, images = result.splits.test.x, result.splits.test.raw
        if kind == "tflite":  # cannot be part of a graph
            assert set(loaded.signatures) == {"serving_default"}
            answer = loaded.signatures["serving_default"](features=tf.constant(x))
        else:
            answer = loaded.signatures["from_features"](features=tf.constant(x))
            whole = loaded.signatures["serving_default"](image=tf.constant(images))
            np.testing.assert_allclose(whole["probabilities"], answer["probabilities"], atol=1e-5)
        accuracy = float((answer["probabilities"].numpy().argmax(1) == result.splits.test.y).mean())
        assert accuracy == pytest.approx(result.methods[method]["last"], abs=1e-6)
    again = Experiment(**{**config.__dict__, "resume": True, "epochs": 3})
    assert tf_mwnet.run(again, source).methods["mwnet"]["last"] == result.methods["mwnet"]["last"]


def test_the_scale_of_features():
    source = photos(90)
    made = features.embed(source, features.load(body()), "")
    splits = data.make_splits(made, data.BiasConfig())
    x = (splits.train.x - splits.spec.mean) / splits.spec.std
    np.testing.assert_allclose((x**2).sum(axis=1).mean(), 1, rtol=1e-4)


def test_an_audit_of_features(files, tmp_path):
    config = settings(files["keras"], tmp_path, method="gce", noise="flip", noise_rate=0.2, meta_size=0)
    audit = examine(tf_mwnet.run(config, photos(90)))
    assert len(audit.table) == 60
    cleaned.write(audit, tmp_path / "clean.npz", "relabel")
    with np.load(tmp_path / "clean.npz") as arrays:
        assert arrays["x_train"].shape == (60, 12, 12, 3)
        assert arrays["x_test"].dtype == np.uint8


def test_a_step_takes_one_view_of_each_example():
    x = np.arange(12, dtype=np.float32).reshape(4, 3, 1)
    views = Views()(tf.constant(x), tf.constant([0, 5])).numpy()[:, 0]
    assert ((views >= [0, 3, 6, 9]) & (views <= [2, 5, 8, 11])).all()
    source = features.embed(photos(90), features.load(body(), views=4), "")
    splits = data.make_splits(source, data.BiasConfig())
    stream = training_stream(splits.train, None, splits.spec, 60, 10, 0, Views())
    pairs = iter(stream())
    some = [np.asarray(next(pairs)["train"].x) for _ in range(2)]
    assert some[0].shape == (60, 5)
    one = np.sort(some[0][:, 0])
    assert not np.allclose(one, np.sort(some[1][:, 0]))


def test_pixels_of_another_range(files, caplog):
    features.embed(data.load("digits"), features.load(files["keras"]), "")
    assert "digits train: the largest pixel is 16; a backbone expects 0 to 255" in caplog.text


def test_the_command(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(embedding, "FOLDER", str(tmp_path / "cache"))
    line = ["--dataset=digits", f"--backbone={files['keras']}"]
    assert command.main(line) == 0
    out = capsys.readouterr().out
    (made,) = (tmp_path / "cache").iterdir()
    assert f"features    {made}" in out
    assert "1797 train" in out
    assert np.load(made / "train" / "features.npy", mmap_mode="r").shape == (1797, 5)
    assert command.main([*line, f"--features={tmp_path / 'mine'}", "--views=2"]) == 0
    assert storage.manifest(tmp_path / "mine")["views"] == 2
    assert command.main(["--dataset=digits"]) == 2
    assert "backbone is not set" in capsys.readouterr().err
    assert command.main([*line, "--epochs=3"]) == 2


def test_settings_for_features(files):
    line = ["--dataset=digits", f"--backbone={files['keras']}"]
    config = parse(line)
    assert {name: getattr(config, name) for name in features.SETTINGS} == features.SETTINGS
    config = parse([*line, "--lr=0.1", "--epochs=60"])
    assert (config.lr, config.epochs, config.meta_loss) == (0.1, 60, "scaled_gce")
    assert parse(["--dataset=digits"]).lr == 0.1
    assert Experiment(backbone="x", **features.SETTINGS).lr_drops == (10, 15)


def test_components_of_the_pipeline_find_files(files, monkeypatch):
    monkeypatch.chdir(files["folder"])  # they work in another folder
    config = parse(["--backbone=body.keras", "--weight_net=@mnist_uniform"])
    flags = pipeline_settings.flags_of(config, "trainer")
    assert f"--backbone={files['keras']}" in flags
    assert "--weight_net=@mnist_uniform" in flags
    config = parse(["--dataset=digits", "--backbone=body.keras", "--features=made_there"])
    made = f"--features={files['folder']}/made_there"
    assert made in pipeline_settings.flags_of(config, "trainer")
    hub = parse(["--backbone=keras_hub:dinov2_small"])
    assert "--backbone=keras_hub:dinov2_small" in pipeline_settings.flags_of(hub, "trainer")


def test_components_of_the_pipeline(files, tmp_path):
    """The trainer reads records of images, and the others classify images."""
    source = photos(90)
    data.records.write(source, tmp_path / "records")
    config = settings(files["keras"], tmp_path, method="erm", dataset="records", meta_size=0)
    config = dataclasses.replace(config, data_dir=str(tmp_path / "records"))
    result = tf_mwnet.run(config)
    path = tmp_path / "run" / "erm" / "saved_models" / "classifier" / "1"
    images = classify(path, source.test.x)
    np.testing.assert_allclose(images, classify(path, result.splits.test.x), atol=1e-5)
    assert (images.argmax(1) == source.test.y).mean() == pytest.approx(result.methods["erm"]["last"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"views": 2}, "views is 2 without backbone; allowed: with one"),
        ({"backbone_size": 64}, "backbone_size is 64 without backbone"),
        ({"backbone": "x", "backbone_scaling": "log"}, "unknown backbone_scaling 'log'"),
        ({"backbone": "x", "views": 0}, "views is 0; allowed: at least 1"),
        ({"feature_dtype": "int8"}, "unknown feature_dtype 'int8'"),
    ],
)
def test_bad_flags(fields, message):
    with pytest.raises(UserError, match=message):
        Experiment(**fields)


def test_more_classes_have_longer_features():
    from tf_mwnet.data.scaling import describe

    x = np.random.default_rng(0).normal(2, 3, (500, 40)).astype(np.float32)
    lengths = {}
    for count in (4, 10, 100):
        y = np.arange(500) % count
        source = data.from_arrays(x, y, class_names=range(count), features={"train": x})
        spec = describe(source, source.train)
        lengths[count] = float(np.mean((((x - spec.mean) / spec.std) ** 2).sum(axis=1)))
    assert lengths[4] == pytest.approx(1, rel=1e-4)
    assert lengths[10] == pytest.approx(1, rel=1e-4)
    assert lengths[100] == pytest.approx(10**0.5, rel=1e-4)


# -------------------------------------------------------------------- shared out


@pytest.mark.slow
def test_processes_share_one_folder(tmp_path, files):
    code = (
        "import sys, numpy as np\n"
        "from tf_mwnet import data, features\n"
        "from tf_mwnet.features import embedding, storage\n"
        "storage.CHUNK = 16\n"
        "rng = np.random.default_rng(0)\n"
        "x = rng.integers(0, 256, (600, 12, 12, 3), np.uint8)\n"
        "source = data.from_arrays(x, np.arange(600) % 3, name='photos')\n"
        "compute, rows = embedding._Compute.__call__, []\n"
        "def counted(self, some):\n"
        "    rows.append(len(some))\n"
        "    return compute(self, some)\n"
        "embedding._Compute.__call__ = counted\n"
        f"made = features.embed(source, features.load({files['keras']!r}), {str(tmp_path / 'f')!r})\n"
        "print(sum(rows), float(np.asarray(made.train.x, np.float64).sum()))\n"
    )
    line = [sys.executable, "-c", code]
    several = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outs = [process.communicate(timeout=120)[0].split() for process in several]
    assert [process.returncode for process in several] == [0, 0, 0]
    assert sum(int(count) for count, _ in outs) == 600
    assert len({total for _, total in outs}) == 1
    again = np.random.default_rng(0).integers(0, 256, (600, 12, 12, 3), np.uint8)
    whole = features.load(files["keras"])(tf.constant(again))
    np.testing.assert_allclose(np.load(tmp_path / "f" / "train" / "features.npy"), whole, atol=1e-5)
    assert sorted(p.name for p in (tmp_path / "f" / "train").iterdir()) == [
        ".lock", "features.npy", "ids.npy",
    ]  # fmt: skip


def test_what_a_killed_process_has_left_is_done_by_others(tmp_path, files, monkeypatch):
    monkeypatch.setattr(storage, "CHUNK", 8)
    source, backbone = photos(60), features.load(files["keras"])
    compute, rows = embedding._Compute.__call__, []

    def other(self, some):
        if not rows:  # a process that was at this chunk, and is no more, and one that did the next
            child = os.fork()
            if not child:
                file = os.open(tmp_path / "f" / "train" / storage.DONE, os.O_RDWR)
                fcntl.lockf(file, fcntl.LOCK_EX, 1, 2)
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(child, 0)
        rows.extend(some.tolist())
        return compute(self, some)

    monkeypatch.setattr(embedding._Compute, "__call__", other)
    made = features.embed(dataclasses.replace(source, test=None), backbone, str(tmp_path / "f"))
    assert rows == list(range(40))
    np.testing.assert_allclose(made.train.x, backbone(tf.constant(source.train.x)), atol=1e-5)


def test_replicas_share_each_batch(files, tmp_path):
    code = (
        "import numpy as np, tensorflow as tf\n"
        "from tf_mwnet import data, features, strategies\n"
        "strategy = strategies.make('mirrored', 2)\n"
        "with strategy.scope():\n"
        f"    backbone = features.load({files['keras']!r}, views=2)\n"
        "x = np.random.default_rng(0).integers(0, 256, (201, 12, 12, 3), np.uint8)\n"
        "source = data.from_arrays(x, np.arange(201) % 3, name='photos')\n"
        "made = features.embed(source, backbone, '', strategy=strategy)\n"
        "assert 'MirroredVariable' in type(backbone.network.module.weights[0].value).__name__\n"
        f"np.save({str(tmp_path / 'x.npy')!r}, made.train.x)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    x = np.random.default_rng(0).integers(0, 256, (201, 12, 12, 3), np.uint8)
    source = data.from_arrays(x, np.arange(201) % 3, name="photos")
    alone = features.embed(source, features.load(files["keras"], views=2), "")
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), alone.train.x, atol=1e-5)


@pytest.mark.parametrize("kind", ["keras", "saved_model"])
def test_mixed_precision(kind, files):
    plain = features.load(files[kind])
    low = features.load(files[kind], precision="mixed_bfloat16")
    images = rng.integers(0, 256, (6, 12, 12, 3), np.uint8)
    one, other = plain(tf.constant(images)).numpy(), low(tf.constant(images)).numpy()
    assert other.dtype == np.float32
    np.testing.assert_allclose(one, other, atol=0.05 * np.abs(one).max())
    if kind == "keras":
        assert np.abs(one - other).max() > 0
        assert low.fingerprint != plain.fingerprint
        assert low.about()["precision"] == "mixed_bfloat16"
        own = body()
        features.load(own, precision="mixed_bfloat16")
        assert own.layers[0].dtype_policy.name == "float32"


@pytest.mark.slow
def test_a_run_on_replicas(files, tmp_path):
    line = [
        sys.executable, "-m", "tf_mwnet.main", "--dataset=digits", f"--backbone={files['keras']}",
        f"--features={tmp_path / 'f'}", "--strategy=mirrored", "--replicas=2", "--epochs=2",
        "--then_unfreeze=1", f"--run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    whole = features.embed(data.load("digits"), features.load(files["keras"]), "")
    kept = np.load(tmp_path / "f" / "train" / "features.npy")
    np.testing.assert_allclose(kept, whole.train.x, atol=1e-5)
    served = tf.saved_model.load(str(tmp_path / "run" / "mwnet" / "saved_models" / "classifier" / "1"))
    images = whole.train.raw[:5]
    answer = served.signatures["serving_default"](image=tf.constant(images))["probabilities"]
    again = served.signatures["from_features"](features=tf.constant(whole.train.x[:5]))
    np.testing.assert_allclose(answer, again["probabilities"], atol=1e-5)


@pytest.fixture
def folder(tmp_path, files, monkeypatch):
    """A folder of images, the settings to take its features, and the rows of images that are decoded."""
    root, source, rows = tmp_path / "photos", photos(60), []
    for name, part in source.sets.items():
        for i, (x, y) in enumerate(zip(part.x, part.y, strict=True)):
            path = root / name / f"c{y}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x).save(path)
    read = images.LazyImages.read

    def counted(self, some):
        rows.extend(some if isinstance(self.read_one, images.Reading) else ())
        return read(self, some)

    monkeypatch.setattr(images.LazyImages, "read", counted)
    monkeypatch.setattr(embedding, "FOLDER", str(tmp_path / "features"))
    config = Experiment(dataset="folder", data_dir=str(root), backbone=files["keras"], resize=12,
                        resize_sides="both", cache_dir=str(tmp_path / "cache"), meta_size=0)  # fmt: skip
    return root, config, rows


def values(x):
    return images.rows_of(x, np.arange(len(x)))


def test_images_of_known_features_are_not_decoded(folder, tmp_path, monkeypatch):
    root, config, rows = folder
    monkeypatch.chdir(tmp_path)
    made = resolve.read(config)[1]
    assert len(rows) == 60
    shutil.copytree(root, tmp_path / "copy" / "photos", copy_function=shutil.copyfile)
    for data_dir, decoded in ((str(root), 0), ("photos", 0), ("copy/photos", 60), ("copy/photos", 0)):
        rows.clear()
        again = resolve.read(dataclasses.replace(config, data_dir=data_dir))[1]
        assert len(rows) == decoded
        np.testing.assert_array_equal(values(again.train.x), values(made.train.x))
        np.testing.assert_array_equal(values(again.train.raw), values(made.train.raw))
    assert len(list((tmp_path / "features").iterdir())) == 1  # a copy has the same pixels
    (own,) = (tmp_path / "features").iterdir()
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(b"damaged")
    for decoded in (60, 0):
        rows.clear()
        resolve.read(dataclasses.replace(config, backbone="", features=str(own)))
        assert len(rows) == decoded
    meta = root / "meta" / "c0"
    for k in range(3):  # a new set: then all are in memory
        (root / "meta" / f"c{k}").mkdir(parents=True)
        shutil.copy(root / "train" / f"c{k}" / f"{k}.png", root / "meta" / f"c{k}")
    assert meta.is_dir()
    source = resolve.read(config)[1]
    assert {type(part.raw) for part in source.sets.values()} == {np.ndarray}


def test_what_is_checked_of_images_that_are_not_decoded(folder, caplog):
    root, config, rows = folder
    shutil.copy(root / "test" / "c1" / "0.png", root / "train" / "c1" / "again.png")
    shutil.copy(root / "train" / "c2" / "5.png", root / "train" / "c0" / "again.png")
    for _ in range(2):
        caplog.clear()
        *_, splits = resolve.load(config)
        assert len(splits.train) == 42
        assert "1 training examples are also in the test set, as 'train/c1/again.png'" in caplog.text
        assert "2 training examples are there again with another label" in caplog.text
        *_, splits = resolve.load(dataclasses.replace(config, drop_duplicates=True))
        assert len(splits.train) == 39
    Image.new("RGB", (12, 12)).save(root / "train" / "c1" / "1.png")
    kept = dataclasses.replace(config, blank_images="keep")
    for _ in range(2):
        caplog.clear()
        resolve.read(kept)
        assert "train: image is constant, 'train/c1/1.png'" in caplog.text
    rows.clear()
    with pytest.raises(UserError, match=r"train: image is constant, 'train/c1/1\.png'; allowed"):
        resolve.read(config)
    assert not rows
    for i in (0, 3):
        (root / "train" / "c0" / f"{i}.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(UserError, match=r"2 .*0\.png.*3\.png"):
        resolve.read(kept)


def test_runs_in_one_process_get_the_images_that_each_needs(folder):
    _, config, _ = folder
    resolve.read(config)
    last = resolve.LastData()
    for then_unfreeze, kind in ((0, images.LazyImages), (1, np.ndarray), (0, images.LazyImages)):
        of = dataclasses.replace(config, then_unfreeze=then_unfreeze)
        assert type(last.of(of).train.raw) is kind
