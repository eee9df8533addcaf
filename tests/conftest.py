"""Two logical CPUs, so that two replicas can be tested; small data; where shared data lies."""

import gc
import os
import pathlib
import shutil
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
gc.disable()  # while TensorFlow and the tests are imported, which takes half the time without

import tf_mwnet  # noqa: F401, I001  before TensorFlow, whose oneDNN kernels it turns on

import keras
import numpy as np
import pytest
import tensorflow as tf

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # behind nohup; tests are about the other case
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session):
    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000, 20, 50)  # graphs are many objects, and long-lived


@pytest.fixture(autouse=True)
def seeded():
    """What a test leaves to chance is the same in each run of it."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def oracles():
    folder = SHARED / "oracles"
    if not folder.is_dir():
        pytest.skip("golden numbers (shared/oracles) are not here")
    return folder


@pytest.fixture(scope="session")
def tfds_dir():
    folder = SHARED / "tfds"
    if not folder.is_dir():
        pytest.skip("real CIFAR-10 and MNIST (shared/tfds) are not here")
    return str(folder)


@pytest.fixture(scope="session")
def two_replicas():
    # One for all tests: TensorFlow numbers collectives per strategy, from the same start each time.
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def blobs():
    """120 points in 6 dimensions, 4 classes told apart by their mean; 20 more as a meta set."""
    rng = np.random.default_rng(1)
    centres = 2 * np.eye(4, 6)
    y = np.arange(140) % 4
    x = (centres[y] + 0.5 * rng.normal(size=(140, 6))).astype(np.float32)
    return x[:120], y[:120], x[120:], y[120:]


@pytest.fixture
def pictures_not_rendered(monkeypatch):
    """Runs draw their pictures and do not render them, which would be half of a short run's time.

    For tests of what else a run does. That pictures are rendered, the tests of reports see.
    """
    from tf_mwnet.figures import plots

    one_pixel = tf.io.encode_png(np.zeros((1, 1, 4), np.uint8)).numpy()
    monkeypatch.setattr(plots, "png", lambda figure, dpi=110: one_pixel)


def made_once(tmp_path_factory, name, make):
    """The folder that ``make(folder)`` fills; made by the first worker that asks for it, for all."""
    from tf_mwnet.files import locked

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all workers
    folder, done = base / name / "made", base / name / "done"
    with locked(base / name, wait=True):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a short finished run of erm and mwnet on the digits; each worker has a copy."""
    from runs import SHORT

    from tf_mwnet.main import main

    def make(folder):
        assert main([*SHORT, "--compare=erm", f"--run_dir={folder}"]) == 0

    made = made_once(tmp_path_factory, "finished", make)
    return shutil.copytree(made, tmp_path_factory.mktemp("runs") / "digits")
