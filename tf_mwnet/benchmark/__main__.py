"""``python -m tf_mwnet.benchmark``: the time of one training step, as a ratio to plain training.

Each round times all modes, one after the other, so that other work on the machine affects all of them;
ratios are taken within a round. Compilation is timed separately. Memory is measured in a separate
process for each mode. With ``--peer=torch`` PyTorch takes part in each round.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

from tf_mwnet.cli import command_flags, console

console.start()

import tensorflow as tf  # noqa: E402
from absl import flags, logging  # noqa: E402

from tf_mwnet import networks, strategies  # noqa: E402
from tf_mwnet.benchmark import peer  # noqa: E402
from tf_mwnet.benchmark.measure import (  # noqa: E402
    input_speed,
    measure,
    onednn_is_on,
    own_peak,
    peak_memory,
    resident_peak,
    threads,
)
from tf_mwnet.benchmark.modes import ABOUT, METHODS, MODES, Setting, mode_of  # noqa: E402
from tf_mwnet.cli import outputs  # noqa: E402
from tf_mwnet.errors import UserError, check_range, choose  # noqa: E402
from tf_mwnet.figures import comparisons, plots  # noqa: E402
from tf_mwnet.files import write_csv  # noqa: E402

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
USUAL = ["plain", "exact", "late", "fast", "l2rw"]  # minutes on two cores


def define_flags() -> flags.FlagValues:
    """Returns the command's flags, separate from absl's global ones."""
    values = command_flags.new_flags()
    about = "; ".join(f"{name}: {mode.about}" for name, mode in MODES.items())
    about = f"modes to time, or all: {about}. Or names of methods, or methods: all of them"
    flags.DEFINE_list("modes", USUAL, about, flag_values=values)
    for name, default in dataclasses.asdict(Setting()).items():
        if isinstance(default, bool):
            flags.DEFINE_boolean(name, default, ABOUT[name], flag_values=values)
        elif isinstance(default, int):
            flags.DEFINE_integer(name, default, ABOUT[name], flag_values=values)
        else:
            flags.DEFINE_string(name, default, ABOUT[name], flag_values=values)
    text = "also time plain training and MW-Net as its authors' code has it: torch"
    flags.DEFINE_string("peer", "", text, flag_values=values)
    flags.DEFINE_integer("rounds", 3, "number of rounds", flag_values=values)
    flags.DEFINE_integer("steps", 2, "steps of each mode in a round", flag_values=values)
    flags.DEFINE_boolean("memory", True, "also measure peak memory", flag_values=values)
    flags.DEFINE_boolean("input_only", False, "measure only the input stream", flag_values=values)
    flags.DEFINE_integer("examples", 10_000, "images in the input stream", flag_values=values)
    flags.DEFINE_string("cache", "memory", "where these images are: memory or disk", flag_values=values)
    flags.DEFINE_string("csv", "", "file to write the numbers to", flag_values=values)
    flags.DEFINE_string("png", "", "file to write a bar chart to", flag_values=values)
    outputs.define_overwrite(values)
    flags.DEFINE_string(
        "memory_of", "", "only print the peak memory of this mode as JSON", flag_values=values
    )
    return values


def _setting(values: flags.FlagValues) -> Setting:
    choose("network", values.network, networks.NETWORKS)
    choose("precision", values.precision, dict.fromkeys(PRECISIONS))
    choose("cache", values.cache, dict.fromkeys(("memory", "disk")))
    for name in ("batch", "rounds", "steps", "examples"):
        check_range(name, getattr(values, name), 1)
    check_range("size", values.size, 8)
    check_range("features", values.features, 0)
    if values.features and values.network not in ("linear", "mlp"):
        raise UserError(f"features is set with network {values.network}; allowed: linear or mlp")
    check_range("classes", values.classes, 2)
    return Setting(**{f.name: getattr(values, f.name) for f in dataclasses.fields(Setting)})


def run(values: flags.FlagValues) -> str:
    """Measures what the flags ask for and prints a table; returns what to print below it.

    Raises:
        UserError: the value of a flag is not allowed.
    """
    setting = _setting(values)
    several = {"all": list(MODES), "methods": list(METHODS)}
    names = [n for name in values.modes for n in several.get(name, [name])]
    for name in names:
        choose("mode", name, METHODS | MODES)
    modes = ["plain", *(name for name in dict.fromkeys(names) if name != "plain")]
    outputs.check(values, csv=("mode", "ratio_to_plain"), png=outputs.PNG)
    if values.memory_of:
        choose("mode", values.memory_of, METHODS | MODES)
        return json.dumps({"peak_mb": own_peak(setting, values.memory_of)})
    if values.input_only:
        return _input(setting, values)
    strategy = strategies.make(setting.strategy, setting.replicas)
    replicas = strategy.num_replicas_in_sync
    if replicas > 1:
        logging.info("several replicas: leaving out memory, and naive, which runs on one replica only")
        modes = [name for name in modes if not mode_of(name).naive]
    other = _peer(setting, values) if replicas == 1 else None
    try:
        rows = measure(setting, modes, values.rounds, values.steps, strategy, other)
        if not strategies.is_chief(strategy):
            return ""
        title = _title(setting, replicas)
        print(f"{title}\n\n{_header()}", flush=True)
        for row, memory in zip(rows, _memory(setting, rows, values, other, replicas), strict=True):
            row["peak_mb"] = memory
            print(_line(row), flush=True)
    finally:
        if other is not None:
            other.close()
    if values.csv:
        about = dataclasses.asdict(setting) | {"onednn": onednn_is_on(), "threads": threads()}
        lines = [{k: "" if v is None else v for k, v in row.items()} | about for row in rows]
        write_csv(pathlib.Path(values.csv), lines, list(lines[0]), digits=5)
    if values.png:
        plots.save(comparisons.step_times(rows, title), pathlib.Path(values.png))
    return "\n" + _input(setting, values)


def _peer(setting: Setting, values: flags.FlagValues) -> peer.Peer | None:
    if not values.peer:
        return None
    choose("peer", values.peer, dict.fromkeys(peer.PEERS))
    if setting.precision != "float32" or setting.jit_compile or setting.features:
        raise UserError("peer is set; allowed: with float32, on images and without jit_compile")
    return peer.Peer(setting.network, setting.batch, setting.size, setting.classes, threads())


def _memory(
    setting: Setting,
    rows: Sequence[dict[str, Any]],
    values: flags.FlagValues,
    other: peer.Peer | None,
    replicas: int,
) -> Iterator[float | None]:
    """Yields the peak memory of each row's mode in MB, measured in two processes at once."""
    if not values.memory or replicas > 1:
        yield from (None for _ in rows)
        return
    own = [row["mode"] for row in rows if row["mode"] not in peer.MODES]
    with futures.ThreadPoolExecutor(2) as pool:
        yield from pool.map(lambda mode: peak_memory(setting, mode), own)
    if other is not None:  # one process for both
        yield from (resident_peak(other.process.pid) / 1e6 for _ in peer.MODES)


def _input(setting: Setting, values: flags.FlagValues) -> str:
    speed, size = input_speed(setting, values.examples, values.cache)
    return (
        f"the input stream alone gives {speed:,.0f} examples a second, of {values.examples:,},"
        f" {size:,.0f} MB in all; the process took at most {resident_peak() / 1e6:,.0f} MB"
    )


def _title(setting: Setting, replicas: int) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    device = f"CPU with {threads()} threads, oneDNN {'on' if onednn_is_on() else 'off'}"
    if gpus:
        device = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    xla = ", XLA" if setting.jit_compile else ""
    count = f"{replicas} replicas, " if replicas > 1 else ""
    size = f" on {setting.features} features" if setting.features else ""
    return f"{setting.network}{size}, batch {setting.batch}, {setting.precision}{xla}, {count}{device}"


COLUMNS = {  # and their widths
    "mode": 16, "ratio to plain": 14, "quartiles": 13, "to peer": 7, "ms": 8, "compile s": 9,
    "peak MB": 7,
}  # fmt: skip


def _cells(cells: Sequence[str]) -> str:
    """Sets the cells of a line in the widths of `COLUMNS`."""
    first, *others = zip(cells, COLUMNS.values(), strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])


def _header() -> str:
    return _cells(list(COLUMNS)) + "\n" + _cells(["-" * width for width in COLUMNS.values()])


def _line(row: Mapping[str, Any]) -> str:
    to_peer, memory = row["ratio_to_peer"], row["peak_mb"]
    return _cells(
        [
            row["mode"],
            f"{row['ratio_to_plain']:.2f}",
            f"{row['ratio_low']:.2f} - {row['ratio_high']:.2f}",
            "" if to_peer is None else f"{to_peer:.2f}",
            f"{row['ms']:.1f}",
            f"{row['compile_s']:.1f}",
            "" if memory is None else f"{memory:.0f}",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 for bad input."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
