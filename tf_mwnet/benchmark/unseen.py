"""``python -m tf_mwnet.benchmark.unseen --run_dir=<run>``: weights of examples a run has not seen.

L2RW's figure 3. The examples are those that a run with --early_stopping held out, noise included. The
state that the run ended in weights them as if they were a training batch: in mixed batches (the figure's
left), and in batches of one true class some of whose labels are wrong (its right; the background class,
which has none, is left out). Nothing is learned from them.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tf_mwnet.cli import command_flags, console

console.start()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from absl import flags  # noqa: E402

from tf_mwnet import methods  # noqa: E402
from tf_mwnet.config import Experiment  # noqa: E402
from tf_mwnet.data.images import rows_of  # noqa: E402
from tf_mwnet.data.streams import normalise  # noqa: E402
from tf_mwnet.errors import UserError, check_range, choose  # noqa: E402
from tf_mwnet.experiment import build, resolve, scores  # noqa: E402
from tf_mwnet.experiment.callbacks import Checkpoints  # noqa: E402
from tf_mwnet.figures import plots, tables  # noqa: E402
from tf_mwnet.files import write_csv  # noqa: E402
from tf_mwnet.model import example_record  # noqa: E402
from tf_mwnet.model.train_step import train_step  # noqa: E402
from tf_mwnet.runs import saved_run  # noqa: E402
from tf_mwnet.types import Batch, LabelledSet, Splits  # noqa: E402

KINDS = {"mixed": "a batch of unseen examples", "one_class": "batches of one true class, unseen"}


def batches(
    held_out: LabelledSet, class_names: Sequence[str], size: int, mixed: int, rng: np.random.Generator
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Draws batches of held-out examples.

    Args:
        held_out: with given and true labels.
        class_names: K names.
        size: of a batch; one of a class with fewer examples is smaller.
        mixed: number of mixed batches.
        rng: source of the draws.

    Yields:
        The kind in `KINDS`, a name, and rows, int ``[b]``.
    """
    for number in range(mixed):
        rows = rng.choice(len(held_out), min(size, len(held_out)), replace=False)
        yield "mixed", str(number), rows
    for k, name in enumerate(class_names):
        of_class = np.flatnonzero(held_out.true_y == k)
        if (held_out.y[of_class] == k).all():
            continue
        yield "one_class", name, rng.choice(of_class, min(size, len(of_class)), replace=False)


def held_out_of(config: Experiment, splits: Splits, name: str) -> LabelledSet:
    """Returns the examples to weight; raises ``UserError`` where a run's weights cannot be asked for."""
    kind = methods.METHODS[name]
    if splits.validation is None or not splits.truth_known:
        raise UserError(
            "the run held no examples of known true label out; allowed: one with --early_stopping, and"
            " true labels or noise put in"
        )
    if "num_examples" in kind.from_run or build.first_stage(config, name):
        raise UserError(
            f"method '{name}' weights no other examples than those of its training set; allowed: l2rw,"
            " mwnet and the like"
        )
    return splits.validation


def measure(
    folder: pathlib.Path, method: str = "", mixed: int = 1, seed: int = 0
) -> list[dict[str, Any]]:
    """Weights batches of examples that a finished run has not seen, see the module.

    Args:
        folder: of the run.
        method: one that it trained; the last by default.
        mixed: number of mixed batches.
        seed: of the draws of batches.

    Returns:
        A row per example of a batch: "kind", "batch", "id", "given_label", "true_label" and "weight",
        times the size of the batch (1 is plain training).

    Raises:
        UserError: the run is not finished, has no such method or no held-out examples, or its method
            weights rows of its training set.
    """
    config, _ = saved_run.finished(folder)
    name = method or config.method
    choose("method of the run", name, dict.fromkeys(config.methods))
    _, _, splits = resolve.load(config)
    held_out, spec = held_out_of(config, splits, name), splits.spec
    model = build.build_model(config, splits, name, build.classifier_maker(config))
    saved = Checkpoints(folder / name / "checkpoints", model)
    rng = np.random.default_rng(seed)

    def batch(examples: LabelledSet, rows: np.ndarray) -> Batch:
        x = normalise(tf.constant(rows_of(examples.x, rows)), spec)
        return Batch(x, tf.constant(examples.y[rows]), tf.range(len(rows), dtype=tf.int64))

    lines = []
    for kind, label, rows in batches(held_out, spec.class_names, config.batch_size, mixed, rng):
        if not saved.restore():  # the step before this one moved the state
            raise UserError(
                f"'{folder / name}' holds no intact checkpoint; allowed: that of a whole run"
            )
        data = {"train": batch(held_out, rows)}
        if model.method.takes_meta_batches and splits.meta is not None:
            size = min(config.meta_batch_size, len(splits.meta))
            data["meta"] = batch(splits.meta, rng.choice(len(splits.meta), size, replace=False))
        train_step(model, data)
        weights = example_record.columns(model.record)["weight"][: len(rows)]
        for row, weight in zip(rows, weights, strict=True):
            given, true = held_out.y[row], held_out.true_y[row]
            lines.append(
                {"kind": kind, "batch": label, "id": held_out.ids[row],
                 "given_label": spec.class_names[given], "true_label": spec.class_names[true],
                 "weight": float(weight)}
            )  # fmt: skip
    return lines


def arrays_of(lines: Sequence[Mapping[str, Any]], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns weights in batches of a kind, float ``[n]``, and which labels are wrong, bool ``[n]``."""
    chosen = [line for line in lines if line["kind"] == kind]
    wrong = np.array([line["given_label"] != line["true_label"] for line in chosen], bool)
    return np.array([line["weight"] for line in chosen], float), wrong


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Formats, for each kind of batches, mean weight and share of zeros of right and wrong labels."""
    header = ["batches", "right", "wrong", "weight of right", "of wrong", "0, right", "0, wrong", "AUC"]
    out = []
    for kind in KINDS:
        weights, wrong = arrays_of(lines, kind)
        parts = [weights[~wrong], weights[wrong]]
        cells = [str(len(p)) for p in parts]
        cells += [f"{p.mean():.2f}" if len(p) else "-" for p in parts]
        cells += [f"{100 * (p == 0).mean():.1f} %" if len(p) else "-" for p in parts]
        auc = scores.clean_auc(wrong, weights) if len(weights) else float("nan")
        out.append([kind, *cells, f"{auc:.2f}"])
    return tables.text(header, out)


def define_flags() -> flags.FlagValues:
    """Defines the command's flags, separate from absl's global ones."""
    values = command_flags.new_flags()
    flags.DEFINE_string("run_dir", "", "a finished run with --early_stopping", flag_values=values)
    flags.DEFINE_string(
        "method", "", "one of the run's methods; --method's by default", flag_values=values
    )
    flags.DEFINE_integer("mixed", 1, "number of mixed batches", flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the batches", flag_values=values)
    flags.DEFINE_string("out", "", "folder; unseen/ in the run's by default", flag_values=values)
    return values


def run(values: flags.FlagValues) -> str:
    """Does what the flags ask for; writes weights.csv and a picture of each kind; returns the table."""
    check_range("mixed", values.mixed, 1)
    folder = pathlib.Path(values.run_dir)
    lines = measure(folder, values.method, values.mixed, values.seed)
    out = pathlib.Path(values.out) if values.out else folder / "unseen"
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "weights.csv", lines, list(lines[0]))
    for kind, about in KINDS.items():
        weights, wrong = arrays_of(lines, kind)
        if len(weights):
            figure = plots.example_weights(weights, wrong, f"Example weights, {about}")
            plots.save(figure, out / f"{kind}.png")
    return table(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 for bad input."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
