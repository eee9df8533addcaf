"""Features that the user has: in arrays and .npz files."""

import numpy as np
import pytest

import tf_mwnet
from tf_mwnet import data, features
from tf_mwnet.__main__ import main
from tf_mwnet.audit import __main__ as audit
from tf_mwnet.errors import UserError


def arrays(images=True, views=1, dim=12):
    rng = np.random.default_rng(0)
    out = {}
    for name, size in (("train", 400), ("test", 90)):
        y = rng.integers(0, 3, size)
        x = rng.normal(0, 1, (size, views, dim)).astype(np.float32) + 3 * np.eye(dim)[y][:, None]
        out[f"features_{name}"] = x[:, 0] if views == 1 else x
        out[f"y_{name}"] = y
        if images:
            out[f"x_{name}"] = rng.integers(0, 256, (size, 8, 8, 3), np.uint8)
    return out


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("views", [1, 3])
def test_from_a_file_to_cleaned_data(tmp_path, capsys, images, views):
    given = arrays(images, views)
    np.savez(tmp_path / "mine.npz", **given)
    source = data.load(str(tmp_path / "mine.npz"))
    np.testing.assert_array_equal(source.train.x, given["features_train"].astype(np.float32))
    if images:
        np.testing.assert_array_equal(source.train.raw, given["x_train"])
    line = [f"--dataset={tmp_path / 'mine.npz'}", "--noise=uniform", "--noise_rate=0.2", "--epochs=4",
            f"--run_dir={tmp_path / 'run'}", f"--write_cleaned={tmp_path / 'clean.npz'}"]  # fmt: skip
    assert audit.main(line) == 0
    assert "near duplicates" in capsys.readouterr().out
    result = tf_mwnet.experiment.runner.saved_run.saved_experiment(tmp_path / "run" / "config.json")
    assert (result.network, result.lr, result.meta_loss) == ("linear", 1.0, "scaled_gce")
    with np.load(tmp_path / "clean.npz") as clean:
        assert clean["features_train"].shape[1:] == given["features_train"].shape[1:]
        kept = len(clean["y_train"])
        assert 0.6 * 400 < kept < 0.95 * 400
        assert "x_test" in clean.files
        assert len(clean["features_test"]) == 90
    again = data.load(str(tmp_path / "clean.npz"))
    assert len(again.train) == kept


def test_in_python(tmp_path, caplog):
    caplog.set_level("INFO", "absl")
    given = arrays()
    source = data.from_arrays(
        given["x_train"], given["y_train"], given["x_test"], given["y_test"],
        features={"train": given["features_train"], "test": given["features_test"]},
    )  # fmt: skip
    fields = features.SETTINGS | {"batch_size": 10, "meta_size": 0, "run_dir": tmp_path / "run"}
    config = tf_mwnet.Experiment(method="gce", **fields)
    result = tf_mwnet.run(config, source)
    assert "gce: 800 of 800 steps" in caplog.text  # 32 at once, of 40 in an epoch
    assert result.classifiers["gce"].input_shape == (None, 12)
    assert result.methods["gce"]["last"] > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features_test": None}, "features_test is missing"),
        ({"features_train": np.ones((3, 12))}, "for 400 examples"),
        ({"features_train": np.ones((400, 0))}, r"\(400, 0\)"),
        ({"features_test": np.ones((90, 5))}, r"allowed: \(N, 12\)"),
        ({"features_train": np.full((400, 12), np.nan)}, "is not finite"),
        ({"features_train": np.ones((400, 12))}, "are all equal"),
        ({"features_train": np.full((400, 12), "a")}, "allowed: numbers"),
        ({"features_meta": np.ones((5, 12))}, "meta has only one of images and labels"),
    ],
)
def test_features_that_do_not_fit(tmp_path, change, message):
    given = {k: v for k, v in (arrays() | change).items() if v is not None}
    np.savez(tmp_path / "mine.npz", **given)
    with pytest.raises(UserError, match=message):
        data.load(str(tmp_path / "mine.npz"))


def test_the_message_on_the_command_line(tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", **arrays() | {"features_train": np.full((400, 12), np.inf)})
    assert main(["train", f"--dataset={tmp_path / 'mine.npz'}"]) == 2
    assert "is not finite" in capsys.readouterr().err
