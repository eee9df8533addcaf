"""``python -m tf_mwnet.benchmark``: the time of one training step, as a ratio to plain training.

All modes are timed in the same rounds, one after the other, so that what else the machine does falls
on all of them; a ratio is taken within a round. Compiling is timed apart. Memory is that of a process
of its own for each mode.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from tf_mwnet import console

console.start()

import tensorflow as tf  # noqa: E402
from absl import flags  # noqa: E402

from tf_mwnet import networks  # noqa: E402
from tf_mwnet.benchmark.measure import (  # noqa: E402
    images_per_second,
    measure,
    own_peak,
    peak_memory,
)
from tf_mwnet.benchmark.modes import ABOUT, MODES, Setting  # noqa: E402
from tf_mwnet.errors import check_range, choose  # noqa: E402
from tf_mwnet.files import write_csv  # noqa: E402
from tf_mwnet.reports import plots, tables  # noqa: E402

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def define_flags() -> flags.FlagValues:
    """The command's flags, apart from absl's global ones."""
    values = console.new_flags()
    define = {"flag_values": values}
    about = "; ".join(f"{name}: {mode.about}" for name, mode in MODES.items())
    flags.DEFINE_list("modes", list(MODES), f"what to time. {about}", **define)
    for field in dataclasses.fields(Setting):
        kind = {"str": flags.DEFINE_string, "int": flags.DEFINE_integer, "bool": flags.DEFINE_boolean}
        kind[field.type](field.name, field.default, ABOUT[field.name], **define)
    flags.DEFINE_integer("rounds", 7, "rounds in which each mode takes its steps", **define)
    flags.DEFINE_integer("steps", 4, "steps of a mode in a round", **define)
    flags.DEFINE_boolean("memory", True, "measure peak memory too", **define)
    flags.DEFINE_string("csv", "", "file for the numbers", **define)
    flags.DEFINE_string("png", "", "file for a bar chart", **define)
    flags.DEFINE_string("memory_of", "", "print one mode's peak memory as JSON, and end", **define)
    return values


def _setting(values: flags.FlagValues) -> Setting:
    choose("network", values.network, networks.NETWORKS)
    choose("precision", values.precision, dict.fromkeys(PRECISIONS))
    for name in ("batch", "rounds", "steps"):
        check_range(name, values[name].value, 1)
    check_range("size", values.size, 8)
    check_range("classes", values.classes, 2)
    return Setting(**{f.name: values[f.name].value for f in dataclasses.fields(Setting)})


def run(values: flags.FlagValues) -> str:
    """Does what the flags ask for; returns the table.

    Raises:
        UserError: a flag is not allowed.
    """
    setting = _setting(values)
    for name in values.modes:
        choose("mode", name, MODES)
    modes = ["plain", *(name for name in dict.fromkeys(values.modes) if name != "plain")]
    if values.memory_of:
        choose("mode", values.memory_of, MODES)
        return json.dumps({"peak_mb": own_peak(setting, values.memory_of)})
    rows = measure(setting, modes, values.rounds, values.steps)
    for row in rows if values.memory else ():
        row["peak_mb"] = peak_memory(setting, row["mode"])
        row["memory_to_plain"] = row["peak_mb"] / rows[0]["peak_mb"]
    if values.csv:
        found = [row | dataclasses.asdict(setting) for row in rows]
        write_csv(pathlib.Path(values.csv), found, list(found[0]), digits=5)
    if values.png:
        plots.save(plots.step_times(rows, _title(setting)), pathlib.Path(values.png))
    speed = images_per_second(setting)
    end = f"the input stream alone gives {speed:,.0f} images a second (cropped and flipped)"
    return "\n".join([_title(setting), "", _table(rows), "", end])


def _title(setting: Setting) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    device = "CPU"
    if gpus:
        device = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    xla = ", XLA" if setting.jit_compile else ""
    return f"{setting.network}, batch {setting.batch}, {setting.precision}{xla}, {device}"


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
    """Runs the command line; returns the exit code: 0, or 2 for bad input."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
