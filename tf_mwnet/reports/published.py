"""``python -m tf_mwnet.reports.published --list``: published numbers, the command for each, ours.

Our figure is that of finished runs with the command's settings, mean and deviation over their seeds.
"""

from __future__ import annotations

import glob
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tf_mwnet.cli import console

console.start()

from absl import flags  # noqa: E402

from tf_mwnet.cli.flags import parse  # noqa: E402
from tf_mwnet.config import Experiment  # noqa: E402
from tf_mwnet.errors import UserError, quoted  # noqa: E402
from tf_mwnet.figures import tables  # noqa: E402
from tf_mwnet.files import write_csv  # noqa: E402
from tf_mwnet.methods import METHODS  # noqa: E402
from tf_mwnet.methods.options import filled  # noqa: E402
from tf_mwnet.reports import compare  # noqa: E402
from tf_mwnet.reports.papers import PAPERS, Entry, entries  # noqa: E402
from tf_mwnet.run_folder import RESULT  # noqa: E402

# What must agree between a command and a run, apart from the method's own options.
SETTINGS = (
    "dataset", "label_key", "resize", "center_crop", "classes", "noise", "noise_rate",
    "imbalance_factor", "class_counts", "network", "dropout", "epochs", "steps_per_epoch",
    "batch_size", "lr", "schedule", "lr_drops", "momentum", "nesterov", "l2", "then_fine_tune",
    "early_stopping",
)  # fmt: skip
LEARNING = (
    "meta_size", "meta_labels", "meta_batch_size", "meta_optimizer", "meta_lr", "meta_l2", "meta_scope",
    "meta_every", "meta_warmup", "meta_late",
)  # fmt: skip


# -------------------------------------------------------------------- our figures


def matches(asked: Experiment, ran: Mapping[str, Any], method: str) -> bool:
    """Tells whether a run had the settings of a command, as far as they matter to a method.

    What the command leaves open ("auto", 0 or nothing) may be anything.
    """
    kind = METHODS[method]
    names = list(SETTINGS)
    if kind.learns or kind.needs_meta or asked.then_fine_tune:
        names += LEARNING[:2]
    if asked.then_fine_tune:
        names.append("fine_tune_unit")
    if kind.learns:
        names += [*LEARNING[2:], "weight_net"]
    names += [name for name in kind.from_run if hasattr(asked, name) and name != "seed"]
    if filled(kind, asked.options_of(method)) != ran["method_options"].get(method, {}):
        return False
    for name in names:
        wanted, used = getattr(asked, name), ran.get(name)
        wanted = list(wanted) if isinstance(wanted, tuple) else wanted
        if wanted in ("auto", 0, "", []) and name not in (
            "noise_rate",
            "then_fine_tune",
            "early_stopping",
        ):
            continue
        if name == "noise_rate" and asked.noise == "none":
            continue
        if wanted != used:
            return False
    return True


def figures(numbers: Sequence[Entry], folders: Sequence[pathlib.Path], root: pathlib.Path) -> list[str]:
    """Returns our figure for each number, "" without a run.

    Args:
        numbers: the published numbers.
        folders: of finished runs.
        root: the folder that ``configs`` lies in.
    """
    runs = [compare.read_run(f) for f in folders]
    out = []
    for entry in numbers:
        values = []
        if runs:
            flagfile, *rest = entry.arguments
            path = root / flagfile.removeprefix("--flagfile=")
            asked = parse([f"--flagfile={path}", *rest])
            for rows in runs:
                if matches(asked, rows[0], entry.row.partition("+")[0]):
                    values += [r for r in rows if r["method"] == entry.row]
        out.append(_figure(values, entry.metric))
    return out


def of_run(ran: Mapping[str, Any], root: pathlib.Path) -> str:
    """Returns the published test accuracy, in percent, for a run; "" if there is none.

    Args:
        ran: a row of `compare.read_run`.
        root: the folder that ``configs`` lies in.
    """
    for entry in entries():
        same = (entry.dataset, entry.row, entry.network) == (
            ran["dataset"],
            ran["method"],
            ran["network"],
        )
        if not same or entry.metric != "test_accuracy":
            continue
        flagfile, *rest = entry.arguments
        path = root / flagfile.removeprefix("--flagfile=")
        if not path.is_file():  # installed without the project's flagfiles
            continue
        if matches(parse([f"--flagfile={path}", *rest]), ran, entry.row.partition("+")[0]):
            return f"{entry.published} ({PAPERS[entry.source]} {entry.table})"
    return ""


def _figure(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    measure, factor = ("last", 100) if metric == "test_accuracy" else ("auc_weight", 1)
    digits = 2 if factor == 100 else 3
    return compare.shown([factor * r[measure] for r in rows if measure in r], digits)


# -------------------------------------------------------------------- the command


def define_flags() -> flags.FlagValues:
    """Defines the command's flags, separate from absl's global ones."""
    values = console.new_flags()
    flags.DEFINE_boolean("list", False, "print every number with its command", flag_values=values)
    flags.DEFINE_string("source", "", f"only of one paper: {quoted(PAPERS)}", flag_values=values)
    flags.DEFINE_string("table", "", "only of the table of this number", flag_values=values)
    flags.DEFINE_string("runs", "runs/*", "run folders to take our figures from", flag_values=values)
    flags.DEFINE_string("csv", "", "file to write the list to", flag_values=values)
    return values


def run(values: flags.FlagValues) -> str:
    """Does what the flags ask for; returns the list, or how to ask for it.

    Raises:
        UserError: nothing is published under the source and table asked for.
    """
    if not (values.list or values.csv):
        return f"{__doc__}\n{values.get_help()}"
    listed = [e for e in entries() if values.source in ("", e.source) and values.table in ("", e.table)]
    if not listed:
        allowed = quoted(sorted({f"{e.source} {e.table}" for e in entries()}))
        raise UserError(
            f"nothing is known of source '{values.source}', table '{values.table}'; allowed: {allowed}"
        )
    folders = [pathlib.Path(p) for p in sorted(glob.glob(values.runs))]
    finished = [f for f in folders if (f / RESULT).is_file()]
    ours = figures(listed, finished, pathlib.Path())
    header = ["table", "data", "bias", "method", "published", "ours", "command", "note"]
    lines = [
        [
            f"{PAPERS[e.source]} {e.table}", e.dataset, f"{e.bias} {e.level}".strip(), e.method,
            e.published + " (AUC)" * (e.metric == "noise_auc"), figure or "-", e.command, e.note,
        ]
        for e, figure in zip(listed, ours, strict=True)
    ]  # fmt: skip
    if values.csv:
        write_csv(
            pathlib.Path(values.csv), [dict(zip(header, line, strict=True)) for line in lines], header
        )
    done = sum(figure != "" for figure in ours)
    end = f"{len(listed)} published numbers, each with a command; {done} with a run of ours"
    return "\n".join([tables.text(header, lines, numbers=(4, 5)), "", end])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 for bad input."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
