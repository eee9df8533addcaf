"""Runs through the command line's own functions, and what they leave."""

import contextlib
import csv
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf

SHORT = ["--epochs=3", "--steps_per_epoch=4", "--lr_drops=2"]
ROOT = pathlib.Path(__file__).resolve().parents[1]


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@contextlib.contextmanager
def cut_after(epochs):
    """Interrupts trainings after some epochs, which are saved, as SIGTERM does."""
    from tf_mwnet import errors
    from tf_mwnet.experiment import callbacks

    class Stop(callbacks.StopOnSignal):
        def on_epoch_end(self, epoch, logs=None):
            if epoch + 1 == epochs:
                raise errors.Interrupted(signal.SIGTERM, "cut")

    before, callbacks.StopOnSignal = callbacks.StopOnSignal, Stop
    try:
        yield
    finally:
        callbacks.StopOnSignal = before


def final_variables(run_dir, method="mwnet"):
    """Every array of the newest checkpoint."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(run_dir / method / "checkpoints"))
    names = [n for n in reader.get_variable_to_shape_map() if n.endswith("VARIABLE_VALUE")]
    return {n: reader.get_tensor(n) for n in names}


def assert_same(first, second):
    assert set(first) == set(second)
    assert len(first) > 20
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def command(*arguments, module="tf_mwnet.main", **kwargs):
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs,
    )  # fmt: skip


def wait_for(path, process):
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def start_workers(*commands):
    """Starts commands as the workers of one cluster."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in commands]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    found = []
    for index, command in enumerate(commands):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(config), "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["PYTHONPATH"] = str(ROOT)
        found.append(
            subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    return found
