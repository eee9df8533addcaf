"""``python -m tf_mwnet.benchmark``: the time of one training step, as a ratio to plain training.

All modes are timed in the same rounds, one after the other, so that what else the machine does falls
on all of them; a ratio is taken within a round. Compiling is timed apart. Memory is that of a process
of its own for each mode.
"""

from __future__ import annotations

import csv
import dataclasses
import gc
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tf_mwnet import console

console.quiet_start()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from absl import flags, logging  # noqa: E402

from tf_mwnet import naive, networks, optimizers  # noqa: E402
from tf_mwnet.data.streams import Augmentation, training_stream  # noqa: E402
from tf_mwnet.errors import UserError, check_range, choose  # noqa: E402
from tf_mwnet.files import write_atomically  # noqa: E402
from tf_mwnet.model import ReweightedModel  # noqa: E402
from tf_mwnet.reports import plots, tables  # noqa: E402
from tf_mwnet.types import Batch, DataSpec, LabelledSet  # noqa: E402

ABOUT = {
    "network": f"one of {', '.join(networks.NETWORKS)}",
    "batch": "training examples a step",
    "size": "height and width of the images, which have 3 channels",
    "classes": "number of classes",
    "precision": "float32, mixed_bfloat16 or mixed_float16",
    "jit_compile": "compile the step with XLA",
}
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class Mode:
    """A way to train.

    Attributes:
        method: its name.
        meta_batch: meta examples as a share of the batch.
        naive: with the step of `tf_mwnet.naive`.
        about: what it is.
    """

    method: str
    meta_batch: float = 1.0
    naive: bool = False
    about: str = ""


MODES = {
    "plain": Mode("erm", about="plain training"),
    "naive": Mode("mwnet", naive=True, about="MW-Net as nested tapes write it"),
    "exact": Mode("mwnet", about="MW-Net"),
    "exact_m25": Mode("mwnet", 0.25, about="MW-Net, a quarter of the meta batch"),
    "l2rw": Mode("l2rw", about="L2RW"),
    "gdw": Mode("gdw", about="GDW"),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all modes have in common; `ABOUT` says what each field is."""

    network: str = "resnet32"
    batch: int = 100
    size: int = 32
    classes: int = 10
    precision: str = "float32"
    jit_compile: bool = False

    @property
    def spec(self) -> DataSpec:
        names = tuple(map(str, range(self.classes)))
        shape = (self.size, self.size, 3)
        return DataSpec("random", shape, "float32", names, np.zeros(3), np.ones(3))


def make_step(setting: Setting, mode: Mode) -> Callable[[], Any]:
    """A function that takes one training step on the same random batch and waits for its end."""
    keras.config.set_dtype_policy(setting.precision)
    try:
        model = ReweightedModel(networks.build(setting.network, setting.spec), mode.method)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(
        optimizers.SGD(0.1, momentum=0.9, l2=5e-4),
        optimizers.Adam(1e-3),
        metrics=[],
        jit_compile=setting.jit_compile,
    )
    rng = np.random.default_rng(0)

    def batch(size):
        shape = (size, setting.size, setting.size, 3)
        x = tf.constant(rng.normal(size=shape), tf.float32)
        y = tf.constant(rng.integers(setting.classes, size=size))
        return Batch(x, y, tf.range(size, dtype=tf.int64))

    data = {"train": batch(setting.batch)}
    if model.method.takes_meta_batches:
        data["meta"] = batch(max(1, round(setting.batch * mode.meta_batch)))
    body = naive.train_step if mode.naive else ReweightedModel.train_step
    # As Keras compiles it for `fit`.
    step = tf.function(lambda data: body(model, data), jit_compile=setting.jit_compile)
    return lambda: tf.nest.map_structure(np.asarray, step(data))


# -------------------------------------------------------------------- time


def measure(setting: Setting, modes: Sequence[str], rounds: int, steps: int) -> list[dict[str, Any]]:
    """A row per mode: "ms", "ratio_to_plain" with its quartiles, "compile_s".

    Args:
        setting: of all modes.
        modes: names in `MODES`; ratios are to the first.
        rounds: in each, every mode takes its steps.
        steps: of a mode in a round.
    """
    ready, compiling = {}, {}
    for name in modes:
        start = time.perf_counter()
        ready[name] = make_step(setting, MODES[name])
        ready[name]()
        compiling[name] = time.perf_counter() - start
        ready[name]()
        logging.info("%s: ready after %.1f s", name, compiling[name])
    times: dict[str, list[float]] = {name: [] for name in modes}
    gc.collect()
    for turn in range(rounds):
        # From another mode on in each round, so that none always comes after the same.
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
    """The quarter, half and three-quarter points; of one value three times the value."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def images_per_second(setting: Setting, steps: int = 200) -> float:
    """How many training images a second the input stream gives alone, cropped and flipped."""
    rng = np.random.default_rng(0)
    count = max(1000, 2 * setting.batch)
    x = rng.integers(0, 256, (count, setting.size, setting.size, 3), dtype=np.uint8)
    y, ids = rng.integers(setting.classes, size=count), np.arange(count).astype(str)
    stream = training_stream(
        LabelledSet(x, y, y, ids), None, setting.spec, setting.batch, 0, 0, Augmentation(4, True)
    )
    iterator = iter(stream)
    for _ in range(10):
        next(iterator)
    start = time.perf_counter()
    for _ in range(steps):
        next(iterator)
    return steps * setting.batch / (time.perf_counter() - start)


# -------------------------------------------------------------------- memory


def peak_memory(setting: Setting, mode: str) -> float:
    """Highest memory in MB of a process that takes three steps; of the GPU's where there is one.

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
    """As `peak_memory`, for this process."""
    step = make_step(setting, MODES[mode])
    for _ in range(3):
        step()
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
    return resident_peak() / 1e6


def resident_peak() -> float:
    """Highest resident memory of this process so far, in bytes."""
    status = pathlib.Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * float(line.split()[1])
    import resource  # elsewhere; on Linux this would count the parent's memory at the fork

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # in bytes on macOS


# -------------------------------------------------------------------- the command


def define_flags() -> flags.FlagValues:
    """The command's flags, apart from absl's global ones."""
    values = flags.FlagValues()
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
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", **define)
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
        _write(pathlib.Path(values.csv), rows, setting)
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


def _write(path: pathlib.Path, rows: Sequence[dict[str, Any]], setting: Setting) -> None:
    found = [{**row, **dataclasses.asdict(setting)} for row in rows]

    def write(file):
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        for row in found:
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write, mode="w")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 for bad input."""
    console.start_logging()
    values = define_flags()
    try:
        console.read_flags(values, sys.argv[1:] if arguments is None else arguments)
        print(f"{__doc__}\n{values.get_help()}" if values.help else run(values))
    except (UserError, OSError) as error:
        return console.fail(error, 2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
