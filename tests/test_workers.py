"""The command on two worker processes, one of which is lost."""

import dataclasses
import json
import shutil
import signal

import pytest
import tensorflow as tf
from runs import rows, start_workers, wait_for

from tf_mwnet import Experiment, UserError, data, methods
from tf_mwnet.experiment import build
from tf_mwnet.main import main

SMALL = ["--network=mlp", "--batch_size=50", "--epochs=6", "--steps_per_epoch=5", "--lr_drops=3"]


def train(*folders, more=()):
    command = ["-m", "tf_mwnet.main", "--strategy=multiworker", *SMALL, *more]
    return start_workers(*([*command, f"--run_dir={folder}"] for folder in folders))


def ended(processes):
    outputs = [process.communicate(timeout=300) for process in processes]
    return [process.returncode for process in processes], outputs


def test_no_replica_goes_without_examples():
    config = Experiment(method="erm", batch_size=100, meta_size=10, meta_batch_size=10)
    splits = data.make_splits(data.load("digits"), data.BiasConfig(meta_size=10))
    build.check_sizes(config, splits, 10)
    with pytest.raises(UserError, match="meta_batch_size is 10 with 11 replicas; allowed: at least 11"):
        build.check_sizes(config, splits, 11)
    size = len(splits.train)
    odd = dataclasses.replace(config, batch_size=size - 1)
    of_both = dataclasses.replace(config, batch_size=size + 9)
    of_meta = dataclasses.replace(config, batch_size=9)
    for asked, passed in (
        (odd, size),
        (dataclasses.replace(of_both, method="glc"), size + 10),
        (dataclasses.replace(of_meta, method="meta_only"), 10),
        (dataclasses.replace(of_meta, then_fine_tune=5), 10),
    ):
        with pytest.raises(
            UserError,
            match=f"replicas is 2, more than the last batch of a pass of {passed} examples, 1; allowed",
        ):
            build.check_sizes(asked, splits, 2)
    build.check_sizes(dataclasses.replace(odd, method="resample"), splits, 2)  # whole batches only
    drawn = methods.FSR(size, per_class=1)
    build.check_draws(drawn, splits, 10)
    with pytest.raises(UserError, match="FSR draws a meta set of 10 examples with 11 replicas"):
        build.check_draws(drawn, splits, 11)


@pytest.mark.slow
def test_a_killed_worker_and_a_restart(tmp_path):
    """By the command, with validation set, fine-tuning, exports and pictures."""
    more = ["--early_stopping=100", "--then_fine_tune=20", "--auto_resume"]
    assert main([*SMALL, *more, f"--run_dir={tmp_path / 'one'}"]) == 0
    folder = tmp_path / "two"
    chief, other = train(folder, folder, more=more)
    wait_for(folder / "mwnet" / "checkpoints" / "checkpoint", chief)
    other.send_signal(signal.SIGKILL)
    codes, outputs = ended([chief, other])
    assert codes == [138, -signal.SIGKILL], outputs
    last = outputs[0][1].strip().splitlines()[-1]
    assert last.startswith("tf_mwnet: another worker ended or does not answer")
    assert last.endswith(f"start all workers again with --resume --run_dir={folder}")
    assert not (folder / "result.json").exists()
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(folder / "config.json", tmp_path / "elsewhere")
    codes, outputs = ended(train(folder, tmp_path / "elsewhere", more=more))
    assert codes == [2, 2], outputs
    for _, err in outputs:
        assert "the workers found different finished epochs in run_dir" in err.splitlines()[-1]
    codes, outputs = ended(train(folder, folder, more=more))
    assert codes == [0, 0], outputs
    assert "continuing after epoch" in outputs[0][1]
    assert outputs[1][0] == ""  # the chief alone prints the table
    for method in ("mwnet", "mwnet/fine_tuned"):
        one, two = (rows(tmp_path / run / method / "metrics.csv") for run in ("one", "two"))
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert set(a) == set(b)
            for column in a:
                assert float(a[column]) == pytest.approx(float(b[column]), rel=2e-3, nan_ok=True), column
    one, two = (json.loads((tmp_path / run / "result.json").read_text()) for run in ("one", "two"))
    assert set(one["methods"]) == set(two["methods"]) == {"mwnet", "mwnet+ES", "mwnet+ES+FT"}
    assert (one["replicas"], two["replicas"]) == (1, 2)
    net = folder / "mwnet" / "saved_models" / "weight_net" / "1"
    signature = tf.saved_model.load(net).signatures["serving_default"]
    assert signature(loss=tf.constant([[0.1], [1.0]]))["weight"].shape == (2, 1)
