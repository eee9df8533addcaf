"""Sets of TensorFlow Datasets with several label columns, made here in TFDS's own layout."""

import os
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tf_mwnet import UserError, data
from tf_mwnet.data import cache, tfds_source
from tf_mwnet.data.splits import BiasConfig, make_splits

pytestmark = pytest.mark.xdist_group("tfds")  # one worker: what its fixture makes is shared

SIZE = 60


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A prepared set like cifar10_n: two human labels beside the true one; and coarse classes."""
    folder = tmp_path_factory.mktemp("tfds")
    rng = np.random.default_rng(0)
    label = tfds.features.ClassLabel(names=["a", "b", "c", "d"])
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(8, 8, 3)),
            "label": label,
            "worse_label": tfds.features.ClassLabel(names=["a", "b", "c", "d"]),
            "coarse_label": tfds.features.ClassLabel(names=["x", "y"]),
        }
    )

    def examples(size):
        for i in range(size):
            yield {
                "image": rng.integers(0, 255, (8, 8, 3)).astype(np.uint8),
                "label": i % 4,
                "worse_label": (i + (i % 3 == 0)) % 4,
                "coarse_label": i % 4 // 2,
            }

    tfds.dataset_builders.store_as_tfds_dataset(
        name="human_set",
        version="1.0.0",
        features=features,
        split_datasets={k: list(enumerate(examples(n))) for k, n in (("train", SIZE), ("test", 20))},
        data_dir=folder,
        disable_shuffling=True,
    )
    return str(folder)


def test_two_label_columns(tfds_folder):
    found = data.load("human_set", tfds_folder, label_key="worse_label", clean_label_key="label")
    rows = np.arange(SIZE)
    np.testing.assert_array_equal(found.train.true_y, rows % 4)
    np.testing.assert_array_equal(found.train.y, (rows + (rows % 3 == 0)) % 4)
    np.testing.assert_array_equal(found.test.y, found.test.true_y)
    assert found.truth_known
    splits = make_splits(found, BiasConfig(meta_size=8))
    assert splits.truth_known
    np.testing.assert_array_equal(splits.meta.y, splits.meta.true_y)
    assert 0.2 < splits.corrupted.mean() < 0.5


def test_one_label_column(tfds_folder):
    found = data.load("human_set", tfds_folder)
    assert not found.truth_known
    np.testing.assert_array_equal(found.train.y, np.arange(SIZE) % 4)


def test_coarse_classes_give_hierarchical_noise(tfds_folder):
    found = data.load("human_set:1.0.0", tfds_folder)
    np.testing.assert_array_equal(found.superclass, [0, 0, 1, 1])
    splits = make_splits(found, BiasConfig(noise="hierarchical", noise_rate=1.0))
    np.testing.assert_array_equal(splits.train.y, splits.train.true_y ^ 1)  # the other of the two


def test_bad_columns(tfds_folder):
    with pytest.raises(UserError, match=r"no column 'worst'; allowed: .*worse_label"):
        data.load("human_set", tfds_folder, label_key="worst")
    with pytest.raises(UserError, match="column 'image' of 'human_set' is no class label"):
        data.load("human_set", tfds_folder, label_key="image")


@pytest.mark.parametrize("name", ["human_set:9.9.9", "human_set/none", "mnist:0.0.1"])
def test_versions_and_configurations_that_are_not_there(tfds_folder, name):
    with pytest.raises(UserError, match=name):
        data.load(name, tfds_folder)


def test_a_cache_on_disk(tfds_folder, tmp_path):
    arguments = {"label_key": "worse_label", "clean_label_key": "label", "cache_dir": str(tmp_path)}
    memory = data.load("human_set", tfds_folder, **arguments)
    for _ in range(2):  # written, and found
        disk = data.load("human_set", tfds_folder, cache="disk", **arguments)
        assert len(list(tmp_path.glob("*.npy"))) == len(list(tmp_path.glob("*.npz"))) == 2
        for split in ("train", "test"):
            a, b = getattr(memory, split), getattr(disk, split)
            np.testing.assert_array_equal(b.x.read(np.arange(len(b))), a.x)
            np.testing.assert_array_equal(b.y, a.y)
            np.testing.assert_array_equal(b.ids, a.ids)
    other = data.load("human_set", tfds_folder, cache="disk", cache_dir=str(tmp_path))
    np.testing.assert_array_equal(other.train.y, memory.train.true_y)  # another column, the same images
    assert len(list(tmp_path.glob("*.npy"))) == 2
    with pytest.raises(UserError, match="cache is none with data set 'human_set'; allowed: auto, mem"):
        data.load("human_set", tfds_folder, cache="none")
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cache file '.*\.npz' cannot be read; delete it"):
        data.load("human_set", tfds_folder, cache="disk", **arguments)


def test_columns_of_a_cache_are_as_they_were(tmp_path):
    texts = np.array([b"a", b"a\0", "\u00e9".encode(), b""], object)
    columns = {"file": texts, "values": np.arange(4), "none": np.array([], object)}
    for _ in range(2):  # written, and found
        found = cache.columns(tmp_path / "new" / "c.npz", lambda: columns)
        assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in columns.items()}
        assert all(isinstance(text, bytes) for text in found["file"])
    (tmp_path / "file").touch()
    found = cache.columns(tmp_path / "file" / "c.npz", lambda: columns)  # cannot be written
    assert found is columns


def test_labels_of_a_set_that_is_prepared_anew(tfds_folder, tmp_path):
    copy = shutil.copytree(tfds_folder, tmp_path / "tfds")
    arguments = {"cache": "disk", "cache_dir": str(tmp_path / "cache")}
    data.load("human_set", str(copy), **arguments)
    before = len(list((tmp_path / "cache").iterdir()))
    (info,) = copy.rglob("dataset_info.json")
    os.utime(info, (1, 1))
    data.load("human_set", str(copy), **arguments)
    assert len(list((tmp_path / "cache").iterdir())) == 2 * before


def test_a_download_without_a_network_fails_in_seconds():
    from tensorflow_datasets.core.download import downloader

    from tf_mwnet.data import tfds_source

    before = downloader.MAX_RETRIES
    with tfds_source._few_retries():
        # Waits of 0.2 seconds, each twice as long as the one before.
        assert sum(0.2 * 2**i for i in range(downloader.MAX_RETRIES)) < 10
    assert before == downloader.MAX_RETRIES


def test_a_download_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "other.tmp.1").write_text("another process's")
    before = set(tmp_path.rglob("*"))

    def download():
        with tfds_source._tidy(tmp_path, "set"):
            (tmp_path / "set" / "1.0.0").mkdir(parents=True)
            (tmp_path / "downloads" / "extracted").mkdir()
            (tmp_path / "downloads" / "a.tmp.2").mkdir()
            (tmp_path / "downloads" / "a.tmp.2" / "a").write_text("a part")
            (tmp_path / "downloads" / "whole.tar").write_text("can be used again")
            raise KeyError

    with pytest.raises(KeyError):
        download()
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "downloads" / "whole.tar"}
