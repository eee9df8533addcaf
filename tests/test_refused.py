"""What was accepted in silence before, and what nothing has foreseen."""

import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_mwnet
from tf_mwnet import Experiment, UserError, data
from tf_mwnet.cli import command_flags, console
from tf_mwnet.main import main
from tf_mwnet.sweep import __main__ as sweep

PLAIN = ["--method=erm", "--network=mlp", "--epochs=1", "--steps_per_epoch=2", "--lr_drops=9"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr=inf"], "lr is inf; allowed: a finite number"),
        (["--l2=nan"], "l2 is nan; allowed: a finite number"),
        (
            ["--class_counts=5,5", "--imbalance_factor=10"],
            "class_counts is set with imbalance_factor 10",
        ),
        (["--label_key=a"], "label_key is 'a' with dataset 'digits'; allowed: with another"),
        (["--data_dir=x"], "data_dir is 'x' with dataset 'digits'"),
        (["--flagfile="], "flagfile is empty; allowed: --flagfile=<path>"),
    ],
)
def test_flags(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*PLAIN, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_dir_for_a_whole_sweep(tmp_path, capsys):
    assert sweep.main(["--methods=erm", "--seeds=0", f"--run_dir={tmp_path}"]) == 2
    assert "is for a single run; allowed: --out, the folder of all" in capsys.readouterr().err


def arrays(**more):
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3
    return {"x_train": rng.random((30, 4, 4, 1)), "y_train": y, "x_test": rng.random((9, 4, 4, 1)),
            "y_test": y[:9]} | more  # fmt: skip


def test_ranges_that_differ():
    given = arrays()
    with pytest.raises(UserError, match=r"test: values reach 25\d.*, those of the training set 0.99"):
        data.from_arrays(**given | {"x_test": 255 * given["x_test"]})
    with pytest.raises(UserError, match=r"test: values reach 0.99.* training set 25\d; allowed: one"):
        data.from_arrays(**given | {"x_train": (255 * given["x_train"]).astype(np.uint8)})


def test_a_meta_set_without_a_class():
    with pytest.raises(UserError, match="meta: no example of class 2; allowed: one or more of each"):
        data.from_arrays(**arrays(x_meta=arrays()["x_test"], y_meta=np.arange(9) % 2))


def test_settings_in_python(tmp_path):
    config = Experiment(run_dir=tmp_path, epochs=np.int64(3), lr=np.float32(0.5), lr_drops=(1,))
    assert (config.run_dir, config.epochs, config.lr) == (str(tmp_path), 3, 0.5)
    assert type(config.epochs) is int
    config.to_json()


def test_batches_of_none():
    import keras

    model = tf_mwnet.ReweightedModel(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), "erm")
    model.compile("sgd")
    for name in ("batch_size", "meta_batch_size"):
        with pytest.raises(UserError, match=f"{name} is 0; allowed: at least 1"):
            model.fit(np.zeros((4, 3)), np.arange(4) % 2, **{name: 0})


# -------------------------------------------------------------------- not foreseen


def fail_with(monkeypatch, error):
    from tf_mwnet.experiment import training

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(training, "train_method", fail)


def test_a_fault_of_ours_is_one_line(tmp_path, monkeypatch, capsys):
    fail_with(monkeypatch, KeyError("nothing has\nforeseen this"))
    folder = tmp_path / "run"
    assert main([*PLAIN, f"--run_dir={folder}"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert f"a fault of tf_mwnet, please report it with '{folder}/error.log' (KeyError: " in line
    assert "in fail" in (folder / "error.log").read_text()
    monkeypatch.setenv("TF_MWNET_DEBUG", "1")
    assert main(["--resume", f"--run_dir={folder}"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_that_tensorflow_finds(tmp_path, monkeypatch, capsys):
    fail_with(monkeypatch, tf.errors.ResourceExhaustedError(None, None, "No space left on device"))
    assert main([*PLAIN, f"--run_dir={tmp_path / 'run'}"]) == 2
    assert "No space left on device; allowed: a place with space" in capsys.readouterr().err


def test_a_fault_without_a_run(monkeypatch, capsys):
    values = command_flags.new_flags()
    assert console.command("x", values, lambda v: 1 / 0, []) == 70
    name = capsys.readouterr().err.split("'")[1]
    assert "ZeroDivisionError" in pathlib.Path(name).read_text()
    pathlib.Path(name).unlink()


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_fault(tmp_path, capsys):
    """In processes; a folder is where the first run would write its metrics."""
    out = tmp_path / "out"
    line = ["--methods=erm,mwnet", "--seeds=0", f"--out={out}", "--epochs=1", "--steps_per_epoch=2"]
    assert sweep.main([line[0].replace(",mwnet", ""), *line[1:]]) == 0
    (out / "default-erm-0" / "result.json").unlink()
    metrics = out / "default-erm-0" / "erm" / "metrics.csv"
    shutil.rmtree(metrics.parent)
    metrics.mkdir(parents=True)
    assert sweep.main(line) == 1
    printed = capsys.readouterr().out
    assert "default-erm-0 failed: " in printed
    assert "mwnet" in printed.split("default-erm-0 failed")[0]
    assert (out / "default-mwnet-0" / "result.json").is_file()
    metrics.rmdir()
    assert sweep.main(line) == 0


def test_a_process_of_a_sweep_records_a_fault(tmp_path, monkeypatch):
    from tf_mwnet.sweep import jobs

    fail_with(monkeypatch, RuntimeError("odd"))
    job = jobs.Job(tmp_path / "a", "s", "erm", "erm", tuple(PLAIN))
    assert jobs.work(job)[1] == "failed: RuntimeError: odd"
    assert "RuntimeError: odd" in (tmp_path / "a" / "error.log").read_text()
    monkeypatch.undo()
    assert jobs.work(job)[1] == ""  # the same command tries it again


def test_a_finished_method_without_its_metrics(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main([*PLAIN, f"--run_dir={folder}"]) == 0
    (folder / "result.json").unlink()
    (folder / "erm" / "metrics.csv").unlink()
    assert main(["--resume", f"--run_dir={folder}"]) == 2
    assert (
        "erm/metrics.csv' is not there or empty; allowed: as the run wrote it" in capsys.readouterr().err
    )


class Own(keras.Model):
    """A class that Keras cannot make anew: its constructor takes no keyword arguments."""

    def __init__(self):
        super().__init__()
        self.last = keras.layers.Dense(3)

    def call(self, x, training=False):
        return self.last(x)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ema": 0.9}, "classifier 'own' cannot be copied"),
        ({"then_fine_tune": 2}, "classifier 'own' cannot be copied"),
        ({"early_stopping": 5}, "classifier 'own' cannot be copied"),
        ({"method": "lccn"}, "classifier 'own' cannot be copied"),
        ({"post_hoc_logit_adjustment": 1.0}, "classifier 'own', whose inputs are not known"),
    ],
)
def test_a_classifier_that_can_not_be_copied(fields, message, tmp_path):
    def make(spec):
        own = Own()
        own(np.zeros((2, 4), np.float32))
        return own

    rng = np.random.default_rng(0)
    sizes = (("train", 60), ("test", 9), ("meta", 9))
    given = {f"x_{name}": rng.normal(size=(n, 4)).astype(np.float32) for name, n in sizes}
    source = data.from_arrays(**given, **{f"y_{name}": np.arange(n) % 3 for name, n in sizes})
    config = Experiment(**({"method": "erm", "epochs": 1, "lr_drops": ()} | fields),
                        run_dir=str(tmp_path / "run"))  # fmt: skip
    with pytest.raises(UserError, match=message) as caught:
        tf_mwnet.run(config, source, make)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
