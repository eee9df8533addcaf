"""Measures time, memory and input speed of training steps."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_mwnet.benchmark.modes import MODES, Setting, make_step
from tf_mwnet.data import cache as caches
from tf_mwnet.data.images import LazyImages
from tf_mwnet.data.streams import Augmentation, training_stream
from tf_mwnet.errors import UserError
from tf_mwnet.types import LabelledSet


def measure(
    setting: Setting,
    modes: Sequence[str],
    rounds: int,
    steps: int,
    strategy: tf.distribute.Strategy | None = None,
) -> list[dict[str, Any]]:
    """Times the steps of modes.

    Args:
        setting: the setting of all modes.
        modes: names in `MODES`; ratios are to the first.
        rounds: number of rounds; each times every mode.
        steps: steps of each mode in a round.
        strategy: see `make_step`.

    Returns:
        A row per mode: "mode"; "ratio_to_plain", the median over rounds, with its quartiles "ratio_low"
        and "ratio_high"; "ms", the median time of a step; "compile_s", the time to compile, in seconds.
    """
    ready, compiling = {}, {}
    for name in modes:
        start = time.perf_counter()
        ready[name] = make_step(setting, MODES[name], strategy)
        for _ in range(MODES[name].every):  # one whole period
            ready[name]()
        compiling[name] = time.perf_counter() - start
        for _ in range(MODES[name].every):
            ready[name]()
        logging.info("%s: ready after %.1f s", name, compiling[name])
    times: dict[str, list[float]] = {name: [] for name in modes}
    gc.collect()
    for turn in range(rounds):
        # Each round begins with another mode, so that no mode always follows the same one.
        for name in (*modes[turn % len(modes) :], *modes[: turn % len(modes)]):
            start = time.perf_counter()
            for _ in range(steps):
                ready[name]()
            times[name].append((time.perf_counter() - start) / steps)
        logging.info("round %d of %d", turn + 1, rounds)
    rows = []
    for name in modes:
        ratios = [a / b for a, b in zip(times[name], times[modes[0]], strict=True)]
        low, middle, high = quartiles(ratios)
        row = {"mode": name, "ratio_to_plain": middle, "ratio_low": low, "ratio_high": high}
        rows.append(row | {"ms": 1e3 * statistics.median(times[name]), "compile_s": compiling[name]})
    return rows


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns lower quartile, median and upper quartile; of a single value, that value three times."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def input_speed(setting: Setting, examples: int, cache: str, steps: int = 200) -> tuple[float, float]:
    """Measures the input stream alone: shuffled, cropped and flipped random images.

    Args:
        setting: sets the sizes of images and batches.
        examples: number of images.
        cache: "memory", or "disk" for a file in a temporary folder.
        steps: batches to time.

    Returns:
        Images a second, and the size of all images in MB.
    """
    rng = np.random.default_rng(0)
    shape = (max(examples, 2 * setting.batch), setting.size, setting.size, 3)
    parts = (
        rng.integers(0, 256, (min(1000, shape[0] - first), *shape[1:]), dtype=np.uint8)
        for first in range(0, shape[0], 1000)
    )
    with tempfile.TemporaryDirectory() as folder:
        if cache == "disk":
            path = pathlib.Path(folder) / "images.npy"
            caches.write_rows(path, parts, shape, "uint8", "images")
            x: np.ndarray | LazyImages = caches.read_rows(path)
        else:
            x = np.concatenate(list(parts))
        y, ids = rng.integers(setting.classes, size=shape[0]), np.arange(shape[0]).astype(str)
        stream = training_stream(
            LabelledSet(x, y, y, ids), None, setting.spec, setting.batch, 0, 0, Augmentation(4, True)
        )
        iterator = iter(stream())
        for _ in range(10):
            next(iterator)
        start = time.perf_counter()
        for _ in range(steps):
            next(iterator)
        return steps * setting.batch / (time.perf_counter() - start), math.prod(shape) / 1e6


def peak_memory(setting: Setting, mode: str) -> float:
    """Returns the peak memory in MB of a new process that takes three steps.

    It is GPU memory if there is a GPU, else resident memory.

    Args:
        setting: the setting.
        mode: a name in `MODES`.

    Raises:
        UserError: the process ends with an error.
    """
    line = [sys.executable, "-m", "tf_mwnet.benchmark", f"--memory_of={mode}"]
    line += [f"--{f.name}={getattr(setting, f.name)}" for f in dataclasses.fields(setting)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"mode '{mode}' can not be measured: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])["peak_mb"]


def own_peak(setting: Setting, mode: str) -> float:
    """Takes three steps in this process; returns its peak memory in MB, see `peak_memory`."""
    step = make_step(setting, MODES[mode])
    for _ in range(3):
        step()
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
    return resident_peak() / 1e6


def resident_peak() -> float:
    """Returns the peak resident memory of this process in bytes."""
    status = pathlib.Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * float(line.split()[1])
    import resource  # not on Linux, where it would include the parent's memory at the fork

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # in bytes on macOS
