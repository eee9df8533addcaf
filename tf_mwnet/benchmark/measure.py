"""Measures time, memory and input speed of training steps."""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_mwnet.benchmark import peer
from tf_mwnet.benchmark.modes import Setting, make_step, mode_of
from tf_mwnet.data import cache as caches
from tf_mwnet.data.images import LazyImages
from tf_mwnet.data.progress import progress
from tf_mwnet.data.streams import Augmentation, training_stream
from tf_mwnet.errors import UserError
from tf_mwnet.types import LabelledSet

# The kinds of a mode's steps: the share of each, and a function that takes one.
Kinds = list[tuple[float, Callable[[], Any]]]


def measure(
    setting: Setting,
    modes: Sequence[str],
    rounds: int,
    steps: int,
    strategy: tf.distribute.Strategy | None = None,
    other: peer.Peer | None = None,
) -> list[dict[str, Any]]:
    """Times the steps of modes.

    Args:
        setting: the setting of all modes.
        modes: names, see `modes.mode_of`; ratios are to the first.
        rounds: number of rounds; each times every mode.
        steps: steps of each mode in a round; twice as many of a mode that learns in a part of them.
        strategy: see `make_step`.
        other: also time its modes.

    Returns:
        A row per mode: "mode"; "ratio_to_plain", the median over rounds, with its quartiles "ratio_low"
        and "ratio_high"; "ratio_to_peer", that to the same algorithm in the peer, None without one;
        "ms", the median time of a step; "compile_s", the time to compile, in seconds.
    """
    ready: dict[str, Kinds] = {}
    compiling = {}
    with progress(len(modes), "compiling") as advance:
        for name in modes:
            start, share = time.perf_counter(), mode_of(name).learning
            step = make_step(setting, mode_of(name), strategy)
            ready[name] = [(share, functools.partial(step, True))]
            if share < 1:
                ready[name].append((1 - share, functools.partial(step, False)))
            for _, kind in ready[name]:
                kind()
            compiling[name] = time.perf_counter() - start
            advance()
    if other is not None:
        for name in peer.MODES:
            ready[name] = [(1.0, functools.partial(other.step, name))]
    times = _rounds(ready, rounds, steps)
    rows = []
    for name in ready:
        ratios = [a / b for a, b in zip(times[name], times[modes[0]], strict=True)]
        low, middle, high = quartiles(ratios)
        row = {"mode": name, "ratio_to_plain": middle, "ratio_low": low, "ratio_high": high}
        row["ratio_to_peer"] = None
        same = next((p for p, own in peer.MODES.items() if own == name and p in times), None)
        if same:
            pairs = zip(times[name], times[same], strict=True)
            row["ratio_to_peer"] = statistics.median(a / b for a, b in pairs)
        row["ms"] = 1e3 * statistics.median(times[name]) / setting.at_once
        rows.append(row | {"compile_s": compiling.get(name, 0.0)})
    return rows


def _rounds(ready: Mapping[str, Kinds], rounds: int, steps: int) -> dict[str, list[float]]:
    """Takes steps in turn; returns the mean seconds of a step in each round, by mode."""
    for kinds in ready.values():  # once more, warm
        _mean(kinds, steps)
    times: dict[str, list[float]] = {name: [] for name in ready}
    names = list(ready)
    gc.collect()
    with progress(rounds * len(names), "timing") as advance:
        for turn in range(rounds):
            # Each round begins with another mode, so that no mode always follows the same one.
            first = turn % len(names)
            for name in (*names[first:], *names[:first]):
                times[name].append(_mean(ready[name], steps))
                advance()
    return times


def _mean(kinds: Kinds, steps: int) -> float:
    """Times so many steps of each kind; returns the mean seconds of a step, by the kinds' shares."""
    mean = 0.0
    for share, step in kinds:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        mean += share * (time.perf_counter() - start) / steps
    return mean


def threads() -> int:
    """Returns the number of threads of TensorFlow's kernels."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return tf.config.threading.get_intra_op_parallelism_threads() or own


def onednn_is_on() -> bool:
    """Tells whether TensorFlow runs its oneDNN kernels; false where it does not tell."""
    try:
        from tensorflow.python.util import _pywrap_util_port as port
    except ImportError:
        return False
    return bool(port.IsMklEnabled())


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns lower quartile, median and upper quartile; of a single value, that value three times."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def input_speed(setting: Setting, examples: int, cache: str, steps: int = 200) -> tuple[float, float]:
    """Measures the input stream alone: shuffled, cropped and flipped random images, or features.

    Args:
        setting: sets the sizes of images and batches.
        examples: number of images.
        cache: "memory", or "disk" for a file in a temporary folder.
        steps: batches to time.

    Returns:
        Examples a second, and the size of all of them in MB.
    """
    rng = np.random.default_rng(0)
    shape = (max(examples, 2 * setting.batch), *setting.shape)
    dtype, augmentation = ("float32", None) if setting.features else ("uint8", Augmentation(4, True))
    parts = (
        rng.integers(0, 256, (min(1000, shape[0] - first), *shape[1:])).astype(dtype)
        for first in range(0, shape[0], 1000)
    )
    with tempfile.TemporaryDirectory() as folder:
        if cache == "disk":
            path = pathlib.Path(folder) / "images.npy"
            caches.write_rows(path, parts, shape, dtype, "examples")
            x: np.ndarray | LazyImages = caches.read_rows(path)
        else:
            x = np.concatenate(list(parts))
        y, ids = rng.integers(setting.classes, size=shape[0]), np.arange(shape[0]).astype(str)
        stream = training_stream(
            LabelledSet(x, y, y, ids), None, setting.spec, setting.batch, 0, 0, augmentation
        )
        iterator = iter(stream())
        for _ in range(10):
            next(iterator)
        start = time.perf_counter()
        for _ in range(steps):
            next(iterator)
        speed = steps * setting.batch / (time.perf_counter() - start)
        return speed, math.prod(shape) * np.dtype(dtype).itemsize / 1e6


def peak_memory(setting: Setting, mode: str) -> float:
    """Returns the peak memory in MB of a new process that takes two steps.

    It is GPU memory if there is a GPU, else resident memory.

    Args:
        setting: the setting.
        mode: its name.

    Raises:
        UserError: the process ends with an error.
    """
    line = [sys.executable, "-m", "tf_mwnet.benchmark", f"--memory_of={mode}"]
    line += [f"--{f.name}={getattr(setting, f.name)}" for f in dataclasses.fields(setting)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"mode '{mode}' cannot be measured: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])["peak_mb"]


def own_peak(setting: Setting, mode: str) -> float:
    """Takes two steps in this process; returns its peak memory in MB, see `peak_memory`."""
    step = make_step(setting, mode_of(mode))
    for _ in range(2):
        step(True)
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
    return resident_peak() / 1e6


def resident_peak(process: int | str = "self") -> float:
    """Returns the peak resident memory of a process in bytes; of another than this one on Linux only."""
    status = pathlib.Path(f"/proc/{process}/status")
    if status.is_file():
        line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
        return 1024 * float(line.split()[1])
    import resource  # not on Linux, where it would include the parent's memory at the fork

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # in bytes on macOS
