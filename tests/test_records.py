"""Data sets as TFRecord files: written, read again, trained on; damaged and cut-off ones."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from runs import SHORT

from tf_mwnet import UserError, data
from tf_mwnet.cli.flags import parse
from tf_mwnet.data import records
from tf_mwnet.data.images import LazyImages
from tf_mwnet.experiment.resolve import load
from tf_mwnet.main import main


def source(kind="image", truth=False, size=30):
    rng = np.random.default_rng(0)
    shape, dtype = {"image": ((5, 4, 3), np.uint8), "grey": ((5, 4, 1), np.uint8),
                    "row": ((7,), np.float32), "deep": ((5, 4, 2), np.float32)}[kind]  # fmt: skip
    x = rng.integers(0, 255, (size + 6, *shape)).astype(dtype)
    y = np.arange(size + 6) % 3
    true = (y + (np.arange(size + 6) % 5 == 0)) % 3
    return data.from_arrays(
        x[:size], y[:size], x[size:], y[size:], true_y_train=true[:size] if truth else None,
        class_names=("a", "b", "c"), name="small",
    )  # fmt: skip


def assert_equal(first, second):
    assert (first.name, first.class_names) == (second.name, second.class_names)
    assert (first.truth_known, first.trusted) == (second.truth_known, second.trusted)
    for name in ("train", "test", "meta"):
        one, two = getattr(first, name), getattr(second, name)
        assert (one is None) == (two is None)
        if one is not None:
            for field in ("y", "true_y", "ids"):
                np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
            x = two.x.read(np.arange(len(two))) if isinstance(two.x, LazyImages) else two.x
            np.testing.assert_array_equal(one.x, x)
            assert one.x.dtype == x.dtype


@pytest.mark.parametrize("kind", ["image", "grey", "row", "deep"])
@pytest.mark.parametrize("truth", [False, True])
def test_written_and_read_again(tmp_path, kind, truth):
    before = source(kind, truth)
    folder = records.write(before, tmp_path / "records", shard=8)
    assert len(list((folder / "Split-train").iterdir())) == 4
    assert_equal(before, data.load("records", str(folder)))
    again = data.load("records", str(folder), cache="disk", cache_dir=str(tmp_path / "cache"))
    assert isinstance(again.train.x, LazyImages)
    assert_equal(before, again)


def test_any_reader_can_use_them(tmp_path):
    before = source("image", truth=True)
    folder = records.write(before, tmp_path / "records")
    path = folder / "Split-train" / "data_tfrecord-00000-of-00001.gz"
    content = next(iter(tf.data.TFRecordDataset(str(path), "GZIP"))).numpy()
    features = tf.train.Example.FromString(content).features.feature
    assert features["id"].bytes_list.value[0].decode() == before.train.ids[0]
    assert features["label"].int64_list.value[0] == before.train.y[0]
    assert features["true_label"].int64_list.value[0] == before.train.true_y[0]
    image = tf.io.decode_png(features["image"].bytes_list.value[0]).numpy()
    np.testing.assert_array_equal(image, before.train.x[0])


@pytest.mark.slow
def test_a_run_on_records_is_the_run_on_the_data(tmp_path):
    records.write(data.load("digits"), tmp_path / "records")
    same = ["--network=mlp", "--noise=flip2", *SHORT]
    assert main([*same, f"--run_dir={tmp_path / 'one'}"]) == 0
    line = [*same, "--dataset=records", f"--data_dir={tmp_path / 'records'}"]
    assert main([*line, f"--run_dir={tmp_path / 'two'}"]) == 0
    found = [json.loads((tmp_path / n / "result.json").read_text())["methods"] for n in ("one", "two")]
    assert found[0]["mwnet"]["last"] == found[1]["mwnet"]["last"]


def test_nothing_is_overwritten_or_left_half(tmp_path, monkeypatch):
    before = source()
    folder = records.write(before, tmp_path / "records")
    with pytest.raises(UserError, match="is there already"):
        records.write(before, folder)

    def fail(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(records, "_facts", fail)
    with pytest.raises(OSError, match="no space"):
        records.write(before, tmp_path / "other")
    assert [p.name for p in tmp_path.iterdir()] == ["records"]


def test_damaged_records(tmp_path):
    folder = records.write(source(), tmp_path / "records", shard=8)
    path = sorted((folder / "Split-train").iterdir())[1]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cannot be read|allowed: 30, as it was written"):
        data.load("records", str(folder))
    path.write_bytes(b"no records at all")
    with pytest.raises(UserError, match=r"records of .*Split-train' cannot be read"):
        data.load("records", str(folder))
    path.unlink()
    with pytest.raises(UserError, match=rf"record file '{path}' is not there"):
        data.load("records", str(folder))
    facts = json.loads((folder / "dataset.json").read_text())
    del facts["classes"]
    (folder / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="lacks 'classes'"):
        data.load("records", str(folder))
    (folder / "dataset.json").write_text("no")
    with pytest.raises(UserError, match="cannot be read"):
        data.load("records", str(folder))
    with pytest.raises(UserError, match="holds no records"):
        data.load("records", str(tmp_path))
    with pytest.raises(UserError, match="needs --data_dir"):
        data.load("records")
    with pytest.raises(UserError, match="cache is none with records"):
        data.load("records", str(folder), cache="none")


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("--noise=flip2", "--imbalance_factor=5"),
        ("--meta_labels=noisy",),
        ("--noise=background", "--background_class=3", "--train_size=700", "--scaling=unit",
         "--meta_labels=noisy", "--meta_balance=true"),
    ],
)  # fmt: skip
def test_a_biased_source_trains_as_the_biased_splits_do(tmp_path, flags):
    flags = [*SHORT, *flags, "--method=mwnet", "--early_stopping=40"]
    config, found, splits = load(parse([*flags, f"--run_dir={tmp_path / 'x'}"]))
    settings = data.BiasConfig(**{k: getattr(config, k) for k in data.BiasConfig.__dataclass_fields__})
    before = dataclasses.replace(settings, early_stopping=0)
    made = data.biased_source(found, data.make_splits(found, before), before)
    records.write(made, tmp_path / "biased")
    assert main([*flags, f"--run_dir={tmp_path / 'one'}"]) == 0
    again = ["--dataset=records", f"--data_dir={tmp_path / 'biased'}"]
    rest = [flag for flag in flags if not flag.startswith(("--noise", "--imbalance"))]
    assert main([*rest, *again, f"--run_dir={tmp_path / 'two'}"]) == 0
    for name in ("transition_matrix.csv", "mwnet/metrics.csv"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()
    configs = [json.loads((tmp_path / run / "config.json").read_text()) for run in ("one", "two")]
    assert {k for k in configs[0] if configs[0][k] != configs[1][k]} == {
        "dataset",
        "data_dir",
        "run_dir",
    }
    assert np.isfinite(splits.transition).all()


def test_biased_data_is_not_biased_again(tmp_path, capsys):
    made = dataclasses.replace(source(truth=True), bias={"noise": "flip", "noise_rate": 0.2})
    records.write(made, tmp_path / "biased")
    flags = ["--dataset=records", f"--data_dir={tmp_path / 'biased'}", "--noise=uniform"]
    assert main(flags) == 2
    assert "noise is 'uniform' with data that was biased before with 'flip'" in capsys.readouterr().err
