"""The benchmark: its modes do what they say, and its files and errors."""

import csv
import importlib.util
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from small import model_of

from tf_mwnet.benchmark import __main__ as benchmark
from tf_mwnet.benchmark import measure, modes, naive
from tf_mwnet.benchmark.modes import Setting
from tf_mwnet.methods import METHODS
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
    assert "examples a second" in out
    assert "oneDNN on" in out or platform.machine() != "x86_64"
    rows = list(csv.DictReader((tmp_path / "times.csv").open()))
    assert [r["mode"] for r in rows] == ["plain", "exact", "naive", "fast"]
    assert float(rows[0]["ratio_to_plain"]) == 1
    for row in rows:
        assert float(row["ratio_low"]) <= float(row["ratio_to_plain"]) <= float(row["ratio_high"])
        assert float(row["ms"]) > 0
        assert 100 < float(row["peak_mb"]) < 3000
    assert (tmp_path / "times.png").stat().st_size > 5000


@pytest.mark.slow
def test_a_step_of_every_method(tmp_path):
    small = ["--network=linear", "--features=8", "--batch=8", "--rounds=1", "--steps=1", "--nomemory"]
    path = tmp_path / "times.csv"
    assert benchmark.main([*small, "--modes=methods", "--examples=100", f"--csv={path}"]) == 0
    names = [row["mode"] for row in csv.DictReader(path.open())]
    assert names == ["plain", *(name for name in METHODS if name != "erm")]


@pytest.mark.parametrize("name", ["forward", "co_teaching", "cmwnet_sl"])
def test_a_method_is_made_as_a_run_makes_it(name):
    setting = Setting(network="linear", features=8, batch=6, classes=3)
    method = modes._method(setting, name)
    if name == "forward":
        assert method.transition.shape == (3, 3)
        np.testing.assert_allclose(method.transition.sum(1), 1, atol=1e-6)
    elif name == "co_teaching":
        assert (method.forget_rate, method.peer.output_shape) == (0.4, (None, 3))
    else:
        assert method.num_examples == 60 - 3  # without the meta set


@pytest.mark.parametrize(
    ("name", "train", "meta"), [("plain", 20, 0), ("mwnet", 20, 20), ("hard_mining", 100, 0)]
)
def test_batches_are_as_large_as_in_a_run(name, train, meta):
    setting = modes.Setting(network="mlp", batch=20, features=6)
    batches = modes._batches(
        setting, modes.mode_of(name), modes._method(setting, modes.mode_of(name).method)
    )
    assert len(batches["train"].y) == train
    assert (len(batches["meta"].y) if "meta" in batches else 0) == meta


def test_input_alone(capsys):
    small = ["--input_only", "--size=8", "--batch=4"]
    for cache in ("memory", "disk"):
        assert benchmark.main([*small, "--examples=2100", f"--cache={cache}"]) == 0
        out = capsys.readouterr().out
        assert "examples a second, of 2,100, 0 MB in all; the process took at most" in out


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not here")
@pytest.mark.slow
def test_peer(monkeypatch):
    """The same network: as many parameters; its loss falls; MW-Net is timed beside our exact step."""
    monkeypatch.setitem(sys.modules, "triton", None)  # for GPUs; loaded after TensorFlow it crashes
    from tf_mwnet import networks
    from tf_mwnet.benchmark import peer

    setting = Setting(batch=4, size=8)
    steps = peer.steps(setting.batch, setting.size, setting.classes)
    values = [steps["peer_plain"]() for _ in range(12)]
    assert min(values[1:]) < 0.5 * values[0]
    assert np.isfinite([steps["peer_mwnet"]() for _ in range(3)]).all()
    net = steps["peer_plain"].__closure__
    count = next(c.cell_contents for c in net if hasattr(c.cell_contents, "named_parameters"))
    own = networks.build("resnet32", setting.spec)
    assert sum(p.numel() for p in count.parameters()) == sum(
        np.prod(v.shape) for v in own.trainable_variables
    )
    other = peer.Peer("resnet32", setting.batch, setting.size, setting.classes, 1)
    try:
        rows = measure.measure(setting, ["plain", "exact"], 2, 1, other=other)
    finally:
        other.close()
    assert [row["mode"] for row in rows] == ["plain", "exact", "peer_plain", "peer_mwnet"]
    assert [row["ratio_to_peer"] is None for row in rows] == [False, False, True, True]
    assert rows[3]["ratio_to_plain"] > rows[2]["ratio_to_plain"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN kernels are for x86")
@pytest.mark.slow
def test_onednn_is_on_unless_told_otherwise():
    def python(imports, **environment):
        asked = "from tf_mwnet.benchmark.measure import onednn_is_on; print(onednn_is_on())"
        kept = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
        done = subprocess.run(
            [sys.executable, "-c", f"import {imports}; {asked}"],
            capture_output=True,
            text=True,
            env=kept | environment,
        )
        return done.stdout, "tf_mwnet: TensorFlow was imported first and runs without" in done.stderr

    assert python("tf_mwnet, tensorflow") == ("True\n", False)
    assert python("tf_mwnet", TF_ENABLE_ONEDNN_OPTS="0") == ("False\n", False)
    on, told = python("tensorflow, tf_mwnet")
    assert told == (on == "False\n")  # on by default where the processor has AVX-512 VNNI


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
        ("--peer=jax", "unknown peer 'jax'; allowed: torch"),
        ("--peer=torch --network=mlp", "peer got the network 'mlp'; allowed: resnet32"),
        (
            "--peer=torch --jit_compile",
            "peer is set; allowed: with float32, on images and without jit_compile",
        ),
        ("--cache=none", "unknown cache 'none'; allowed: memory, disk"),
        ("--strategy=many", "unknown strategy 'many'; allowed: none, mirrored, multiworker"),
    ],
)
def test_bad_input(capsys, flag, message):
    assert benchmark.main(flag.split()) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_on_features(capsys):
    line = ["--network=linear", "--features=20", "--batch=8", "--rounds=1", "--steps=1", "--nomemory"]
    assert benchmark.main([*line, "--modes=exact", "--examples=100"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("linear on 20 features, batch 8")
    assert benchmark.main(["--network=resnet32", "--features=20"]) == 2
    assert "allowed: linear or mlp" in capsys.readouterr().err


def test_several_steps_at_once_are_as_many_single_ones():
    from tf_mwnet.benchmark import modes

    setting = modes.Setting(network="linear", features=5, batch=4, classes=3)
    taken = modes.make_step(setting, modes.MODES["exact"])
    weighted = [float(taken(True)["loss"]) for _ in range(2)]  # a mean over all steps so far
    assert setting.at_once == 32
    assert weighted[1] < weighted[0]


def test_methods_are_made_without_a_warning(caplog):
    modes._method(modes.Setting(network="mlp", batch=20, features=6), "mwnet")
    assert "also in the test set" not in caplog.text
