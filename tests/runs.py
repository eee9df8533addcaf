"""Runs through the command line's own functions, and what they leave."""

import csv
import pathlib
import subprocess
import sys

import numpy as np
import tensorflow as tf

SHORT = ["--epochs=3", "--steps_per_epoch=4", "--lr_drops=2"]
ROOT = pathlib.Path(__file__).resolve().parents[1]


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


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


def command(*arguments, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-m", "tf_mwnet.main", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs,
    )  # fmt: skip
