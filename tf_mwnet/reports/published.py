"""``python -m tf_mwnet.reports.published --list``: published numbers, the command for each, ours.

Our figure is the mean, over seeds, of finished runs that agree with the command in every setting that
changes the result. It is read as the paper's is: at the last epoch, the mean of the last five or the
best one; ± is the standard deviation, or a 95 % confidence interval. Figures follow, each with its
command or the reason why it has none.
"""

from __future__ import annotations

import itertools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tf_mwnet.cli import command_flags, console

console.start()

from absl import flags  # noqa: E402
from scipy import stats  # noqa: E402

from tf_mwnet.cli import outputs  # noqa: E402
from tf_mwnet.cli.flags import parse  # noqa: E402
from tf_mwnet.errors import UserError, quoted  # noqa: E402
from tf_mwnet.figures import run_data, tables  # noqa: E402
from tf_mwnet.files import ROOT, write_csv  # noqa: E402
from tf_mwnet.reports import compare  # noqa: E402
from tf_mwnet.reports.matching import matches  # noqa: E402
from tf_mwnet.reports.paper_figures import SHOWN  # noqa: E402
from tf_mwnet.reports.papers import PAPERS, Entry, Reading, entries  # noqa: E402
from tf_mwnet.runs.saved_run import RESULT  # noqa: E402

FIGURES = ("figure", "what", "command", "picture, or why there is none")

# -------------------------------------------------------------------- our figures


def figures(numbers: Sequence[Entry], folders: Sequence[pathlib.Path], root: pathlib.Path) -> list[str]:
    """Returns our figure for each number, "" without a run.

    Args:
        numbers: the published numbers.
        folders: of finished runs.
        root: the folder that ``configs`` lies in.
    """
    runs = run_data.each(folders, compare.read_run)
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
        out.append(_figure(values, entry.reading))
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


def _figure(rows: Sequence[Mapping[str, Any]], reading: Reading) -> str:
    """Formats the mean of a measure over runs, and its deviation or interval: "90.6 ± 3.1"."""
    factor, digits = (1, 3) if reading.measure.startswith("auc") else (100, 2)
    values = [factor * r[reading.measure] for r in rows if reading.measure in r]
    if not reading.interval or len(values) < 2:
        return compare.shown(values, digits)
    mean, deviation = compare.mean_and_deviation(values)
    half = stats.t.ppf(0.975, len(values) - 1) * deviation / len(values) ** 0.5
    return compare.with_deviation(mean, half, digits)


# -------------------------------------------------------------------- the command


COMMAND = "python -m tf_mwnet.main"  # begins every command
HEADER = ("table", "data", "bias", "method", "published", "ours", "read as", "command", "note")


def define_flags() -> flags.FlagValues:
    """Defines the command's flags, separate from absl's global ones."""
    values = command_flags.new_flags()
    flags.DEFINE_boolean("list", False, "print every number with its command", flag_values=values)
    flags.DEFINE_string("source", "", f"only of one paper: {quoted(PAPERS)}", flag_values=values)
    flags.DEFINE_string("table", "", "only of the table of this number", flag_values=values)
    flags.DEFINE_string("runs", "runs/*", "run folders to take our figures from", flag_values=values)
    flags.DEFINE_string("csv", "", "file to write the list to", flag_values=values)
    outputs.define_overwrite(values)
    return values


def run(values: flags.FlagValues) -> str:
    """Does what the flags ask for; returns the list, or how to ask for it.

    Raises:
        UserError: nothing is published under the source and table asked for.
    """
    if not (values.list or values.csv):
        return f"{__doc__}\n{command_flags.flags_text(values)}"
    outputs.check(values, csv=HEADER)
    listed = [e for e in entries() if values.source in ("", e.source) and values.table in ("", e.table)]
    if not listed:
        allowed = quoted(sorted({f"{e.source} {e.table}" for e in entries()}))
        raise UserError(
            f"nothing is known of source '{values.source}', table '{values.table}'; allowed: {allowed}"
        )
    folders = run_data.matching([values.runs])
    finished = [f for f in folders if (f / RESULT).is_file()]
    ours = figures(listed, finished, ROOT)
    lines = [
        [
            f"{PAPERS[e.source]} {e.table}", e.dataset, f"{e.bias} {e.level}".strip(), e.method,
            e.published, figure or "-", e.reading.words, e.command, e.note,
        ]
        for e, figure in zip(listed, ours, strict=True)
    ]  # fmt: skip
    if values.csv:
        write_csv(
            pathlib.Path(values.csv), [dict(zip(HEADER, line, strict=True)) for line in lines], HEADER
        )
    done = sum(figure != "" for figure in ours)
    end = f"{len(listed)} published numbers, each with a command; {done} with a run of ours"
    parts = [
        *(_section(list(group)) for _, group in itertools.groupby(lines, lambda line: line[0])),
        end,
    ]
    others = [s for s in SHOWN if values.source in ("", s.source)]
    if others and not values.table:
        cells = [[f"{PAPERS[s.source]} {s.name}", s.what, s.command or "-", s.where] for s in others]
        parts += ["", tables.text(FIGURES, cells, numbers=())]
    return "\n".join(parts)


def _section(lines: Sequence[Sequence[str]]) -> str:
    """Formats the numbers of one published table, whose command is said once."""
    read = {line[6] for line in lines}
    (one,) = read if len(read) == 1 else ("",)
    header = [
        "data",
        "bias",
        "method",
        "published",
        "ours",
        *([] if one else ["read as"]),
        "note",
    ]
    notes = list(dict.fromkeys(line[8] for line in lines if line[8]))
    cells = [
        [*line[1:6], *([] if one else [line[6]]), f"[{notes.index(line[8]) + 1}]" if line[8] else ""]
        for line in lines
    ]  # fmt: skip
    if not notes:
        header, cells = header[:-1], [cell[:-1] for cell in cells]
    title = f"{lines[0][0]}{f' ({one})' if one else ''}: {COMMAND} <flags>, which stand under each"
    commands = [line[7].removeprefix(COMMAND).strip() for line in lines]
    below = "".join(f"[{i}] {note}\n" for i, note in enumerate(notes, 1))
    return f"{title}\n\n{tables.text(header, cells, (3, 4), keys=4, below=commands)}\n{below}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 for bad input."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
