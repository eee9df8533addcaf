"""The benchmark: its modes do what they say, and its files and errors."""

import csv

import numpy as np
import pytest
import tensorflow as tf
from small import model_of

from tf_mwnet.benchmark import __main__ as benchmark
from tf_mwnet.benchmark import measure, naive
from tf_mwnet.benchmark.modes import Setting
from tf_mwnet.types import Batch


def test_naive_step_is_the_exact_step(blobs):
    """The same classifier, weight net and moments after three steps of each."""
    x, y, xm, ym = blobs
    rows = tf.range(30, dtype=tf.int64)
    data = {
        "train": Batch(tf.constant(x[:30]), tf.constant(y[:30]), rows),
        "meta": Batch(tf.constant(xm), tf.constant(ym), rows[:20]),
    }
    exact, reference = model_of("mwnet", bn=True), model_of("mwnet", bn=True)
    for _ in range(3):
        exact.train_step(data)
        naive.train_step(reference, data)
    for part in ("classifier", "method", "optimizer", "meta_optimizer"):
        pairs = zip(getattr(exact, part).variables, getattr(reference, part).variables, strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=f"{part} {a.path}")


def test_quartiles():
    assert measure.quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)
    assert measure.quartiles([7.0]) == (7.0, 7.0, 7.0)


@pytest.mark.slow
def test_command(tmp_path, capsys):
    small = ["--network=mlp", "--batch=8", "--size=8", "--rounds=2", "--steps=10"]
    files = [f"--csv={tmp_path / 'times.csv'}", f"--png={tmp_path / 'times.png'}"]
    assert benchmark.main([*small, *files, "--modes=exact,naive,fast", "--classes=3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("mlp, batch 8, float32, ")
    assert "images a second" in out
    rows = list(csv.DictReader((tmp_path / "times.csv").open()))
    assert [r["mode"] for r in rows] == ["plain", "exact", "naive", "fast"]
    assert float(rows[0]["ratio_to_plain"]) == 1
    for row in rows:
        assert float(row["ratio_low"]) <= float(row["ratio_to_plain"]) <= float(row["ratio_high"])
        assert float(row["ms"]) > 0
        assert 100 < float(row["peak_mb"]) < 3000
    assert (tmp_path / "times.png").stat().st_size > 5000


def test_input_alone(capsys):
    small = ["--input_only", "--size=8", "--batch=4"]
    for cache in ("memory", "disk"):
        assert benchmark.main([*small, "--examples=2100", f"--cache={cache}"]) == 0
        out = capsys.readouterr().out
        assert "images a second, of 2,100, 0 MB in all; the process took at most" in out


@pytest.mark.slow
def test_steps_on_two_replicas(two_replicas):
    rows = measure.measure(Setting("mlp", batch=8, size=8), ["plain", "exact"], 2, 1, two_replicas)
    assert [row["mode"] for row in rows] == ["plain", "exact"]
    assert all(row["ms"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--modes=exakt", "unknown mode 'exakt' (did you mean 'exact'?)"),
        ("--network=resnet", "unknown network 'resnet'"),
        ("--precision=float16", "unknown precision 'float16'"),
        ("--rounds=0", "rounds is 0; allowed: at least 1"),
        ("--batch=many", "batch"),
        ("--steps=6", "steps is 6; allowed: a multiple of 10, after which mode 'fast' begins anew"),
        ("--cache=none", "unknown cache 'none'; allowed: memory, disk"),
        ("--strategy=many", "unknown strategy 'many'; allowed: none, mirrored, multiworker"),
    ],
)
def test_bad_input(capsys, flag, message):
    assert benchmark.main([flag]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
