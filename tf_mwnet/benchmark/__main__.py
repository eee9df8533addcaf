"""``python -m tf_mwnet.benchmark``: the time of one training step, as a ratio to plain training.

Each round times all modes, one after the other, so that other work on the machine affects all of them;
ratios are taken within a round. Compilation is timed separately. Memory is measured in a separate
process for each mode.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from tf_mwnet.cli import console

console.start()

import tensorflow as tf  # noqa: E402
from absl import flags, logging  # noqa: E402

from tf_mwnet import networks, strategies  # noqa: E402
from tf_mwnet.benchmark.measure import (  # noqa: E402
    input_speed,
    measure,
    own_peak,
    peak_memory,
    resident_peak,
)
from tf_mwnet.benchmark.modes import ABOUT, MODES, Setting  # noqa: E402
from tf_mwnet.errors import UserError, check_range, choose  # noqa: E402
from tf_mwnet.figures import plots, tables  # noqa: E402
from tf_mwnet.files import write_csv  # noqa: E402

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def define_flags() -> flags.FlagValues:
    """Returns the command's flags, separate from absl's global ones."""
    values = console.new_flags()
    about = "; ".join(f"{name}: {mode.about}" for name, mode in MODES.items())
    flags.DEFINE_list("modes", list(MODES), f"modes to time. {about}", flag_values=values)
    for name, default in dataclasses.asdict(Setting()).items():
        if isinstance(default, bool):
            flags.DEFINE_boolean(name, default, ABOUT[name], flag_values=values)
        elif isinstance(default, int):
            flags.DEFINE_integer(name, default, ABOUT[name], flag_values=values)
        else:
            flags.DEFINE_string(name, default, ABOUT[name], flag_values=values)
    flags.DEFINE_integer("rounds", 7, "number of rounds", flag_values=values)
    flags.DEFINE_integer("steps", 10, "steps of each mode in a round", flag_values=values)
    flags.DEFINE_boolean("memory", True, "also measure peak memory", flag_values=values)
    flags.DEFINE_boolean("input_only", False, "measure only the input stream", flag_values=values)
    flags.DEFINE_integer("examples", 10_000, "images in the input stream", flag_values=values)
    flags.DEFINE_string("cache", "memory", "where these images are: memory or disk", flag_values=values)
    flags.DEFINE_string("csv", "", "file to write the numbers to", flag_values=values)
    flags.DEFINE_string("png", "", "file to write a bar chart to", flag_values=values)
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
    check_range("classes", values.classes, 2)
    return Setting(**{f.name: getattr(values, f.name) for f in dataclasses.fields(Setting)})


def run(values: flags.FlagValues) -> str:
    """Measures what the flags ask for; returns the table to print.

    Raises:
        UserError: the value of a flag is not allowed.
    """
    setting = _setting(values)
    for name in values.modes:
        choose("mode", name, MODES)
        if values.steps % MODES[name].every:
            allowed = f"a multiple of {MODES[name].every}, after which mode '{name}' begins anew"
            raise UserError(f"steps is {values.steps}; allowed: {allowed}")
    modes = ["plain", *(name for name in dict.fromkeys(values.modes) if name != "plain")]
    if values.memory_of:
        choose("mode", values.memory_of, MODES)
        return json.dumps({"peak_mb": own_peak(setting, values.memory_of)})
    if values.input_only:
        return _input(setting, values)
    strategy = strategies.make(setting.strategy, setting.replicas)
    if strategy.num_replicas_in_sync > 1:
        logging.info("several replicas: leaving out memory, and naive, which runs on one replica only")
        modes = [name for name in modes if not MODES[name].naive]
    rows = measure(setting, modes, values.rounds, values.steps, strategy)
    if not strategies.is_chief(strategy):
        return ""
    for row in rows if values.memory and strategy.num_replicas_in_sync == 1 else ():
        row["peak_mb"] = peak_memory(setting, row["mode"])
        row["memory_to_plain"] = row["peak_mb"] / rows[0]["peak_mb"]
    if values.csv:
        lines = [row | dataclasses.asdict(setting) for row in rows]
        write_csv(pathlib.Path(values.csv), lines, list(lines[0]), digits=5)
    title = _title(setting, strategy.num_replicas_in_sync)
    if values.png:
        plots.save(plots.step_times(rows, title), pathlib.Path(values.png))
    return "\n".join([title, "", _table(rows), "", _input(setting, values)])


def _input(setting: Setting, values: flags.FlagValues) -> str:
    speed, size = input_speed(setting, values.examples, values.cache)
    return (
        f"the input stream alone gives {speed:,.0f} images a second, of {values.examples:,},"
        f" {size:,.0f} MB in all; the process took at most {resident_peak() / 1e6:,.0f} MB"
    )


def _title(setting: Setting, replicas: int) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    device = "CPU"
    if gpus:
        device = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    xla = ", XLA" if setting.jit_compile else ""
    count = f"{replicas} replicas, " if replicas > 1 else ""
    return f"{setting.network}, batch {setting.batch}, {setting.precision}{xla}, {count}{device}"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    header = ["mode", "ratio to plain", "quartiles", "ms a step", "compile s"]
    memory = "peak_mb" in rows[0]
    lines = []
    for r in rows:
        spread = f"{r['ratio_low']:.2f} - {r['ratio_high']:.2f}"
        cells = [r["mode"], f"{r['ratio_to_plain']:.2f}", spread, f"{r['ms']:.1f}"]
        cells.append(f"{r['compile_s']:.1f}")
        if memory:
            cells += [f"{r['peak_mb']:.0f}", f"{r['memory_to_plain']:.2f}"]
        lines.append(cells)
    return tables.text([*header, *["peak MB", "ratio to plain"][: 2 * memory]], lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 for bad input."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
