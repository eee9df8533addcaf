"""Distribution strategies: one device, the devices of one machine, or several machines."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from tf_mwnet.errors import UserError, WorkerLost, check_range, choose

STRATEGIES = ("none", "mirrored", "multiworker")
CLUSTER = "TF_CONFIG"
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
)


def make(name: str, replicas: int = 0) -> tf.distribute.Strategy:
    """Makes a strategy.

    Args:
        name: "none", the strategy in whose scope the caller is, if any; "mirrored",
            `tf.distribute.MirroredStrategy`; "multiworker",
            `tf.distribute.MultiWorkerMirroredStrategy` from ``TF_CONFIG``, which waits for the other
            workers and must be made before anything else of TensorFlow is used.
        replicas: of "mirrored": GPUs, or logical CPU devices without GPUs; 0 for all GPUs, or one CPU.

    Raises:
        UserError: the name is unknown, there are too few GPUs, or ``TF_CONFIG`` does not describe a
            cluster.
    """
    choose("strategy", name, dict.fromkeys(STRATEGIES))
    check_range("replicas", replicas, 0)
    if replicas and name != "mirrored":
        raise UserError(f"replicas is {replicas} with strategy '{name}'; allowed: with mirrored")
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_devices(replicas))
    workers, number = _cluster()
    logging.info("worker %d of %d: waiting for the others", number + 1, workers)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _devices(replicas: int) -> list[str]:
    gpus = tf.config.list_physical_devices("GPU")
    if replicas > len(gpus) > 0:
        raise UserError(f"replicas is {replicas}; allowed: at most {len(gpus)}, the number of GPUs")
    if gpus:
        return [f"GPU:{i}" for i in range(replicas or len(gpus))]
    cpu, wanted = tf.config.list_physical_devices("CPU")[0], max(1, replicas)
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) < wanted:
        try:
            parts = [tf.config.LogicalDeviceConfiguration()] * wanted
            tf.config.set_logical_device_configuration(cpu, parts)
        except RuntimeError as error:
            raise UserError(
                f"replicas is {replicas}, and TensorFlow has been started with fewer logical CPU"
                " devices; allowed: before anything else of TensorFlow"
            ) from error
    return [f"CPU:{i}" for i in range(wanted)]


def _cluster() -> tuple[int, int]:
    """Returns the number of workers, and the number of this one, from 0."""
    text = os.environ.get(CLUSTER, "")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        names = [(kind, i) for kind in ("chief", "worker") for i in range(len(cluster.get(kind, [])))]
        for kind, _ in names:
            for address in cluster[kind]:
                if not re.fullmatch(r"\S+:\d+", address):
                    raise ValueError(f"'{address}' is no host:port")
        return len(names), names.index((task["type"], int(task["index"])))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{CLUSTER} is '{text}'; allowed with strategy multiworker: JSON as"
            ' {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from error


def several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether a strategy spans several processes."""
    resolver = strategy.cluster_resolver
    spec = None if resolver is None else resolver.cluster_spec()
    return spec is not None and sum(len(spec.job_tasks(job)) for job in spec.jobs) > 1


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether this process writes the files: one of several workers, or the only process."""
    if not several_workers(strategy):
        return True
    resolver = strategy.cluster_resolver
    if resolver.task_type == "chief":
        return True
    return "chief" not in resolver.cluster_spec().jobs and resolver.task_id == 0


@contextlib.contextmanager
def watched(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Converts TensorFlow's various errors after the loss of a worker to `WorkerLost`."""
    try:
        yield
    except tf.errors.OpError as error:
        if not several_workers(strategy) or not isinstance(error, LOST):
            raise
        raise WorkerLost(f"another worker ended or does not answer ({type(error).__name__})") from error


def agree(strategy: tf.distribute.Strategy, what: str, number: int) -> None:
    """Raises ``UserError`` if the workers do not have the same number."""
    numbers = everyone(strategy, number).tolist()
    if len(set(numbers)) > 1:
        raise UserError(
            f"the workers found different {what} in run_dir: {numbers}; allowed: the same, in one"
            " folder that all see"
        )


def everyone(strategy: tf.distribute.Strategy, number: int) -> np.ndarray:
    """Returns the number of each replica, int64 ``[R]``; all workers wait here for each other."""
    if not several_workers(strategy):
        return np.full(strategy.num_replicas_in_sync, number)

    @tf.function
    def gathered() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        number_of, size = context.replica_id_in_sync_group, context.num_replicas_in_sync
        own = tf.one_hot(number_of, size, dtype=tf.int64) * number
        return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

    return strategy.experimental_local_results(strategy.run(gathered))[0].numpy()
