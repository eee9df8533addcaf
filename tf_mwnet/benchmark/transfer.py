"""``python -m tf_mwnet.benchmark.transfer``: weight nets learned on one data set, used on another.

For each bias and seed, MW-Net learns a weight net on each data set. Then the classifier of every other
data set trains with that function and without a meta set: with the function over the course of its
training ("from"), and with the function at its end ("end of"). The baselines are plain training and a
weight net learned on the data itself ("learned anew"). All runs on a data set share its biased
examples, seed, network and schedule. With --backbone they are linear heads on features, which are
computed once for each data set.
"""

from __future__ import annotations

import itertools
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from tf_mwnet.cli import command_flags, console

console.start()

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from absl import flags  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from tf_mwnet.cli import outputs  # noqa: E402
from tf_mwnet.cli.flags import parse  # noqa: E402
from tf_mwnet.data import biased_source, records  # noqa: E402
from tf_mwnet.data.bias import long_tail_counts  # noqa: E402
from tf_mwnet.data.sources import FEATURES  # noqa: E402
from tf_mwnet.errors import UserError, check_range, choose, integers  # noqa: E402
from tf_mwnet.experiment import resolve  # noqa: E402
from tf_mwnet.figures import comparisons, plots, tables  # noqa: E402
from tf_mwnet.files import new_folder, write_csv  # noqa: E402
from tf_mwnet.reports import compare  # noqa: E402
from tf_mwnet.runs import saved_run  # noqa: E402
from tf_mwnet.runs.saved_run import RESULT, exported  # noqa: E402
from tf_mwnet.sweep.jobs import Job, Processes, execute  # noqa: E402
from tf_mwnet.types import Splits  # noqa: E402

BIASES = {
    "flip2": ("--noise=flip2", "--noise_rate=0.4"),
    "uniform": ("--noise=uniform", "--noise_rate=0.4"),
    "longtail": ("--noise=none",),
}
SETS = ("digits", "mnist", "cifar10")
TAIL = 100  # imbalance factor
EACH = 1000  # training examples of each class, or of the long tail's first class: MNIST and CIFAR-10
DIGITS = 110  # the same for the digits: their smallest class without test and meta set
META = 100  # examples in the meta set, equally many of each class
SCHEDULE = ("--network=small_cnn", "--epochs=20", "--lr_drops=14,18", "--augment=none")
DIGITS_SCHEDULE = ("--epochs=60", "--lr_drops=40,50")
META_RATE = "--meta_lr=1e-3"  # as from scratch, also for the long tail
COLUMNS = ["bias", "target", "seed", "how", "source", "last", "mean_last_5", "best"]
PLAIN, ANEW = "plain", "learned anew"
TRANSFERRED = {"from": "--weight_net_replay", "end of": "--noweight_net_replay"}


def data_of(out: pathlib.Path, name: str, bias: str, seed: int) -> pathlib.Path:
    """Returns the folder of a data set written by `write_data`."""
    return out / "data" / f"{bias}_{name}_{seed}"


def write_data(
    out: pathlib.Path,
    name: str,
    bias: str,
    seed: int,
    data_dir: str,
    backbone: Sequence[str] = (),
) -> None:
    """Writes a biased data set, unless it exists; all runs on the data set share it.

    Args:
        out: folder of the benchmark.
        name: a name in `SETS`.
        bias: a name in `BIASES`.
        seed: seed of splits and noise.
        data_dir: TFDS's folder, or "".
        backbone: flags of a backbone, whose features are written; without them the images, as records.
    """
    folder = data_of(out, name, bias, seed)
    if folder.is_dir():
        return
    size = DIGITS if name == "digits" else EACH
    counts = [size] * 10 if bias != "longtail" else long_tail_counts(size, TAIL, 10)
    line = [f"--dataset={name}", *BIASES[bias], f"--data_seed={seed}", "--method=mwnet",
            f"--meta_size={META}", f"--class_counts={','.join(map(str, counts))}"]  # fmt: skip
    if data_dir and name != "digits":
        line.append(f"--data_dir={data_dir}")
    config, source, splits = resolve.load(parse([*line, *backbone]))
    if backbone:
        _write_features(splits, source.class_names, folder, name)
    else:
        records.write(biased_source(source, splits, resolve.bias_of(config)), folder)


def _write_features(splits: Splits, class_names: Sequence[str], folder: pathlib.Path, data: str) -> None:
    arrays: dict[str, Any] = {"true_y_train": splits.train.true_y, "class_names": class_names}
    for name in ("train", "meta", "test"):
        part = getattr(splits, name)
        arrays |= {f"{FEATURES}{name}": np.asarray(part.x), f"y_{name}": part.y}
    with new_folder(folder) as temporary:
        np.savez(temporary / f"{data}.npz", **arrays)


def run_flags(
    out: pathlib.Path, name: str, bias: str, seed: int, backbone: Sequence[str] = ()
) -> tuple[str, ...]:
    """Returns the flags of a run on a data set, without the method.

    Args:
        out, name, bias, seed: see `write_data`.
        backbone: see `write_data`. On features a linear head is trained with the settings for features,
            on images a small network.
    """
    seeds = (f"--seed={seed}", f"--data_seed={seed}", "--compare=")
    folder = data_of(out, name, bias, seed)
    if backbone:
        return ("--dataset=npz", f"--data_dir={folder / name}.npz", META_RATE, *seeds)
    data = ("--dataset=records", f"--data_dir={folder}")
    return (*data, *seeds, *SCHEDULE, *DIGITS_SCHEDULE * (name == "digits"))


def folder_of(out: pathlib.Path, name: str, bias: str, seed: int, kind: str) -> pathlib.Path:
    """Returns the folder of a run on a data set; ``kind`` is "plain", "anew", or as "from mnist"."""
    return out / f"{bias}_{name}_{seed}_{kind.replace(' ', '_')}"


def net_of(out: pathlib.Path, name: str, bias: str, seed: int) -> pathlib.Path:
    """Returns the folder of the weight net that a run of `learning` has exported."""
    return exported(folder_of(out, name, bias, seed, "anew"), "mwnet", "weight_net")


def learning(
    out: pathlib.Path,
    sets: Sequence[str],
    biases: Sequence[str],
    seeds: Sequence[int],
    backbone: Sequence[str] = (),
) -> list[Job]:
    """Returns the jobs of plain training and of learning a weight net."""
    return [
        Job(folder_of(out, name, bias, seed, kind), bias, method, method,
            (*run_flags(out, name, bias, seed, backbone), f"--method={method}"))
        for seed, bias, name in itertools.product(seeds, biases, sets)
        for kind, method in (("plain", "erm"), ("anew", "mwnet"))
    ]  # fmt: skip


def transferring(
    out: pathlib.Path,
    sets: Sequence[str],
    biases: Sequence[str],
    seeds: Sequence[int],
    backbone: Sequence[str] = (),
) -> list[Job]:
    """Returns the jobs of training with another data set's weight net."""
    return [
        Job(folder_of(out, name, bias, seed, f"{how} {source}"), bias, "mwnet", f"{how} {source}",
            (*run_flags(out, name, bias, seed, backbone), "--method=mwnet", flag,
             f"--weight_net={net_of(out, source, bias, seed)}"))
        for seed, (how, flag), bias, name, source in itertools.product(
            seeds, TRANSFERRED.items(), biases, sets, sets)
        if source != name
    ]  # fmt: skip


def rows(
    out: pathlib.Path, sets: Sequence[str], biases: Sequence[str], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Reads the results of finished runs: a row per run with the fields in `COLUMNS`."""
    results = []
    for bias, target, seed in itertools.product(biases, sets, seeds):
        kinds = [("plain", PLAIN, ""), ("anew", ANEW, target)]
        kinds += [(f"{how} {s}", how, s) for how in TRANSFERRED for s in sets if s != target]
        for kind, how, source in kinds:
            path = folder_of(out, target, bias, seed, kind) / RESULT
            if path.is_file():
                (summary,) = saved_run.results(path.parent)["methods"].values()
                keys = {"bias": bias, "target": target, "seed": seed, "how": how, "source": source}
                measured = {k: summary.get(k) for k in ("last", "mean_last_5", "best")}
                results.append(keys | measured)
    return results


KINDS = [PLAIN, ANEW, *(f"{how} {s}" for how in TRANSFERRED for s in SETS)]


def _frame(results: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Returns a row per run, with "last" in percent and the "kind" of the run."""
    frame = pd.DataFrame(results)
    frame["last"] *= 100
    frame["kind"] = frame.how.where(~frame.how.isin(list(TRANSFERRED)), frame.how + " " + frame.source)
    return frame


def picture(results: Sequence[dict[str, Any]]) -> Figure:
    """Draws the gains over plain training with the same seed, see `comparisons.methods`."""
    frame = _frame(results)
    panels: dict[str, dict[str, list[float]]] = {}
    for (bias, target), part in frame.groupby(["bias", "target"], sort=False):
        gains = part.pivot(index="seed", columns="kind", values="last")
        gains = gains.sub(gains[PLAIN], axis=0)
        panel = panels.setdefault(bias, {PLAIN: [0.0]})
        for kind in [k for k in KINDS if k in gains and k != PLAIN]:
            panel[f"{target}: {kind}"] = gains[kind].dropna().tolist()
    xlabel = "points of test accuracy above plain training (last epoch)"
    return comparisons.methods(panels, PLAIN, xlabel)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Formats test accuracy at the last epoch in percent, mean and standard deviation over seeds."""
    frame = _frame(results)
    grouped = frame.groupby(["bias", "target", "kind"], sort=False)["last"].apply(list).to_dict()
    kinds = [kind for kind in KINDS if kind in set(frame.kind)]
    lines = []
    for bias, target in dict.fromkeys(zip(frame.bias, frame.target, strict=True)):
        cells = [compare.shown(grouped.get((bias, target, kind), ()), 1) for kind in kinds]
        lines.append([bias, target, *cells])
    numbers = tuple(range(2, 2 + len(kinds)))
    return tables.text(["bias", "target", *kinds], lines, numbers, keys=2)


def define_flags() -> flags.FlagValues:
    """Returns the command's flags, separate from absl's global ones."""
    values = command_flags.new_flags()
    flags.DEFINE_list("sets", list(SETS), "data sets", flag_values=values)
    flags.DEFINE_list("biases", list(BIASES), f"some of {', '.join(BIASES)}", flag_values=values)
    flags.DEFINE_list("seeds", ["0", "1", "2"], "values of seed and data_seed", flag_values=values)
    flags.DEFINE_string("data_dir", "", "folder of TensorFlow Datasets", flag_values=values)
    flags.DEFINE_string(
        "backbone", "", "train heads on its features, see docs/features.md", flag_values=values
    )
    flags.DEFINE_integer("backbone_size", 0, "side of its images in pixels", flag_values=values)
    flags.DEFINE_string(
        "out",
        "runs/transfer",
        "folder of the runs; those on features are in <backbone>-<backbone_size> in it",
        flag_values=values,
    )
    flags.DEFINE_integer("jobs", 1, "runs at a time", flag_values=values)
    flags.DEFINE_string("csv", "", "file to write a row per run to", flag_values=values)
    flags.DEFINE_string("png", "", "file to draw the gains over plain training into", flag_values=values)
    outputs.define_overwrite(values)
    return values


def run(values: flags.FlagValues) -> str:
    """Runs what is missing; returns the table to print.

    Raises:
        UserError: the value of a flag is not allowed, or no run has ended.
    """
    for name in values.sets:
        choose("data set", name, dict.fromkeys(SETS))
    for bias in values.biases:
        choose("bias", bias, BIASES)
    if len(values.sets) < 2:
        raise UserError(f"sets are '{','.join(values.sets)}'; allowed: two or more")
    check_range("jobs", values.jobs, 1)
    outputs.check(values, csv=COLUMNS, png=outputs.PNG)
    seeds = integers("seeds", values.seeds)
    out = pathlib.Path(values.out)
    backbone: list[str] = []
    if values.backbone:
        size = f"--backbone_size={values.backbone_size}"
        backbone = [f"--backbone={values.backbone}", size, "--feature_dtype=float16"]
        stem = re.sub(r"[^\w.-]+", "-", pathlib.Path(values.backbone).stem)
        out /= f"{stem}-{values.backbone_size}"  # apart from runs on images and on other features
    problems: dict[Job, str] = {}
    for seed in seeds:  # one after the other, so that an interrupted benchmark has whole seeds
        for bias, name in itertools.product(values.biases, values.sets):
            write_data(out, name, bias, seed, values.data_dir, backbone)
        for stage in (learning, transferring):
            jobs = stage(out, values.sets, values.biases, [seed], backbone)
            problems |= execute(jobs, Processes(values.jobs))
    results = rows(out, values.sets, values.biases, seeds)
    if not results:
        raise UserError(f"no run has ended: {next(iter(problems.values()))}")
    if values.csv:
        write_csv(pathlib.Path(values.csv), results, COLUMNS)
    if values.png:
        plots.save(picture(results), pathlib.Path(values.png))
    left = [f"{job.folder.name} {problem}" for job, problem in problems.items()]
    return "\n".join(["", table(results), *left])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
