"""Folders of images: in memory, and read when they are needed."""

import json

import numpy as np
import pytest
from PIL import Image

from tf_mwnet import UserError, data
from tf_mwnet.data import cache, images, streams
from tf_mwnet.main import main


def make_folder(root, splits=("train", "meta", "test"), mode="RGB"):
    rng = np.random.default_rng(0)
    for split in splits:
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(4):
                shape = (5, 7, 3) if mode == "RGB" else (5, 7)
                pixels = rng.integers(0, 255, shape).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_folder(tmp_path, mode, channels):
    make_folder(tmp_path, mode=mode)
    found = data.load("folder", str(tmp_path))
    assert found.class_names == ("cat", "dog")
    assert found.train.x.shape == (8, 5, 7, channels)
    assert found.train.ids[5] == "train/dog/1.png"
    np.testing.assert_array_equal(found.train.y, [0] * 4 + [1] * 4)
    pixels = np.asarray(Image.open(tmp_path / "train/dog/1.png")).reshape(5, 7, channels)
    np.testing.assert_array_equal(found.train.x[5], pixels)
    assert len(found.meta) == len(found.test) == 8


def test_bad_folders(tmp_path):
    with pytest.raises(UserError, match="not there"):
        data.load("folder", str(tmp_path / "none"))
    with pytest.raises(UserError, match="data_dir"):
        data.load("folder")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="no classes"):
        data.load("folder", str(tmp_path))
    (tmp_path / "train").rmdir()
    make_folder(tmp_path, splits=("train",))
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(UserError, match="class empty"):
        data.load("folder", str(tmp_path))
    (tmp_path / "train" / "empty").rmdir()
    (tmp_path / "test" / "cow").mkdir(parents=True)
    with pytest.raises(UserError, match="'cow'; allowed: cat, dog"):
        data.load("folder", str(tmp_path))
    (tmp_path / "test" / "cow").rmdir()
    (tmp_path / "test").rmdir()
    Image.new("RGB", (9, 9), (1, 2, 3)).save(tmp_path / "train" / "dog" / "large.png")
    with pytest.raises(UserError, match=r"large.png' is \(9, 9\), the first \(5, 7\)"):
        data.load("folder", str(tmp_path))
    (tmp_path / "train" / "dog" / "large.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"large.png' cannot be read"):
        data.load("folder", str(tmp_path))


def test_resize_and_center_crop(tmp_path):
    rng = np.random.default_rng(0)
    for split, shape in (("train", (20, 30)), ("test", (40, 22))):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 255, (*shape, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    found = data.load("folder", str(tmp_path), resize=10, center_crop=8)
    assert found.train.x.shape == found.test.x.shape == (4, 8, 8, 3)
    with Image.open(tmp_path / "train" / "b" / "1.png") as image:
        expected = np.asarray(image.resize((15, 10), Image.Resampling.BILINEAR))[1:9, 3:11]
    np.testing.assert_array_equal(found.train.x[3], expected)
    # Both sides: 20 x 30 and 40 x 22 become 10 x 10, whatever their shape, and lose their borders.
    found = data.load("folder", str(tmp_path), resize=10, center_crop=8, resize_sides="both")
    for part, split in ((found.train, "train"), (found.test, "test")):
        with Image.open(tmp_path / split / "b" / "1.png") as image:
            expected = np.asarray(image.resize((10, 10), Image.Resampling.BILINEAR))[1:9, 1:9]
        np.testing.assert_array_equal(part.x[3], expected)
    with pytest.raises(UserError, match="resize_sides is both without resize"):
        data.load("folder", str(tmp_path), resize_sides="both")
    found = data.load("folder", str(tmp_path), center_crop=20)
    whole = np.asarray(Image.open(tmp_path / "train" / "a" / "0.png"))
    np.testing.assert_array_equal(found.train.x[0], whole[:, 5:25])
    with pytest.raises(UserError, match=r"0.png' is \(20, 30\); allowed: at least center_crop 24"):
        data.load("folder", str(tmp_path), center_crop=24)
    with pytest.raises(UserError, match="resize is 9 with dataset 'digits'"):
        data.load("digits", resize=9)


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """A folder whose training set is too large for memory, as it is set here."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("meta", 5), ("test", 5)):
        for label, name in enumerate("ab"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = (100 * label + rng.integers(0, 99, (8, 9, 1))).astype(np.uint8)
                image = Image.fromarray(np.repeat(pixels, 3, axis=2))
                image.save(tmp_path / split / name / f"{i:02d}.png")
    monkeypatch.setattr(cache, "IN_MEMORY", 5000)
    return tmp_path


def test_large_sets_are_read_from_their_files(on_disk, monkeypatch):
    lazy = data.load("folder", str(on_disk))
    assert isinstance(lazy.train.x, images.LazyImages)
    assert isinstance(lazy.test.x, np.ndarray)
    monkeypatch.setattr(cache, "IN_MEMORY", 2**30)
    eager = data.load("folder", str(on_disk))
    np.testing.assert_array_equal(lazy.train.x.read(np.arange(60)), eager.train.x)
    some = np.arange(0, 60, 7)
    np.testing.assert_array_equal(lazy.train.take(some).x.read(np.arange(9)), eager.train.x[some])
    config = data.BiasConfig(noise="flip", noise_rate=0.2, meta_size=4, classes=("b", "a"))
    first, second = (data.make_splits(found, config) for found in (lazy, eager))
    assert first.spec.shape == second.spec.shape
    np.testing.assert_array_equal(first.spec.mean, second.spec.mean)
    batches = [
        next(iter(data.training_stream(s.train, s.meta, s.spec, 10, 4, 0)())) for s in (first, second)
    ]
    for a, b in zip(batches[0]["train"], batches[1]["train"], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(
        *(streams.evaluation_stream(s.train, s.spec, 25)() for s in (first, second)), strict=True
    ):
        np.testing.assert_array_equal(a[0], b[0])


def test_run_on_files(on_disk, tmp_path):
    run = tmp_path / "run"
    arguments = ["--dataset=folder", f"--data_dir={on_disk}", "--network=mlp", "--batch_size=20"]
    assert main([*arguments, "--epochs=3", "--lr=0.01", "--lr_drops=", f"--run_dir={run}"]) == 0
    config = json.loads((run / "config.json").read_text())
    assert (config["method"], config["meta_size"]) == ("mwnet", 10)


def test_broken_file_is_named_when_it_is_read(on_disk, tmp_path, capfd, monkeypatch):
    (on_disk / "train" / "b" / "29.png").write_bytes(b"no image")
    # Found in training, not when mean and deviation are taken.
    monkeypatch.setattr(images, "pixels", lambda x: x.read(np.arange(2)))
    arguments = ["--dataset=folder", f"--data_dir={on_disk}", "--network=mlp", "--epochs=1"]
    assert main([*arguments, f"--run_dir={tmp_path / 'run'}"]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("tf_mwnet: image")
    assert "29.png' cannot be read" in last


def test_a_cache_on_disk(on_disk, tmp_path):
    folder = tmp_path / "cache"

    def load(kind="disk"):
        return data.load("folder", str(on_disk), cache=kind, cache_dir=str(folder))

    first, eager = load(), load("memory")
    files = sorted(folder.iterdir())
    assert len(files) == 3  # train, meta, test
    assert isinstance(eager.train.x, np.ndarray)
    np.testing.assert_array_equal(first.train.x[::7].read(np.arange(9)), eager.train.x[::7])
    again = load()
    assert sorted(folder.iterdir()) == files
    np.testing.assert_array_equal(again.meta.x.read(np.arange(10)), eager.meta.x)
    both = again.train.x[:2].joined(again.train.x[40:])
    np.testing.assert_array_equal(both.read(np.array([0, 21])), eager.train.x[[0, 59]])
    with pytest.raises(UserError, match="from another file"):
        again.train.x.joined(again.meta.x)
    # An image that has changed, and a file that has been cut.
    Image.fromarray(np.full((8, 9, 3), 7, np.uint8)).save(on_disk / "test" / "a" / "00.png")
    assert (load().test.x.read(np.array([0])) == 7).all()
    assert len(list(folder.iterdir())) == 4
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cache file '.*npy' cannot be read .*; delete it"):
        load()
    with pytest.raises(UserError, match="cache is disk with dataset 'digits'; allowed: auto, memory"):
        data.load("digits", cache="disk")
