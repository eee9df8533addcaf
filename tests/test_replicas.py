"""Two replicas, in one process or two, give what one gives on the same global batch; XLA, too."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from replicated import METHODS, assert_close, plain_network, synchronised_network, take_steps, train
from runs import start_workers, wait_for

pytestmark = pytest.mark.xdist_group("replicas")  # one pair of worker processes for all


# The mean, a weight net, and a second classifier. The others are slow together.
FIRST = {"erm", "mwnet", "co_teaching"}
# Compiled by XLA, too, which takes longer than the steps: a method of each kind of state and draw.
COMPILED = FIRST | {"l2rw", "gdw", "mlc", "mlnt", "lccn", "elr", "sop", "random", "hard_mining", "fsr"}
CASES = [pytest.param(n, marks=[] if n in FIRST else pytest.mark.slow) for n in METHODS]


@pytest.fixture(scope="module")
def two_workers(request, tmp_path_factory):
    """Method -> what two worker processes came to, once they have."""
    own = [i for i in request.session.items if i.module is request.module and hasattr(i, "callspec")]
    selected = [item.callspec.params for item in own]
    names = [m for m in METHODS if any(params.get("method") == m for params in selected)]
    folder = tmp_path_factory.mktemp("workers")
    script = pathlib.Path(__file__).with_name("worker.py")
    processes = start_workers(*[[str(script), str(folder), *names]] * 2)

    def result(name):
        wait_for(folder / f"{name}.npz", processes[0])
        with np.load(folder / f"{name}.npz") as found:
            weights = [found[k] for k in sorted(found) if k.startswith("weight_")]
            results = {k.removeprefix("result_"): v for k, v in found.items() if k[:7] == "result_"}
            return (weights, found["record"]), results

    yield result
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("method", CASES)
def test_two_replicas_and_two_workers_equal_one(two_replicas, two_workers, method):
    here = tf.distribute.get_strategy()
    one = take_steps(plain_network, method, here, jit_compile=method in COMPILED)
    assert_close(take_steps(plain_network, method, two_replicas), one)
    assert_close(two_workers(method), one)


@pytest.mark.parametrize("method", ["mwnet", pytest.param("gdw", marks=pytest.mark.slow)])
def test_synchronised_batch_norm(two_replicas, method):
    one = take_steps(synchronised_network, method, tf.distribute.get_strategy())
    assert_close(take_steps(synchronised_network, method, two_replicas), one)


# 11: odd, and a last batch of another size.
@pytest.mark.parametrize("batch_size", [pytest.param(12, marks=pytest.mark.slow), 11])
def test_fit(two_replicas, batch_size):
    one = train(plain_network, "mwnet", batch_size)
    with two_replicas.scope():
        two = train(plain_network, "mwnet", batch_size)
    assert_close(two, one)
