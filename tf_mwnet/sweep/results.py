"""Results of a sweep: rows, a Markdown table, a picture."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tf_mwnet.figures import comparisons
from tf_mwnet.figures.tables import MEASURES
from tf_mwnet.methods import METHODS
from tf_mwnet.reports import compare
from tf_mwnet.runs.saved_run import RESULT
from tf_mwnet.sweep.jobs import Job


def rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Reads the results of each finished run, see `compare.read_run`, with its "setting".

    Methods are in the order of `METHODS`, which tables and pictures keep.
    """
    out = []
    for job in jobs:
        if not (job.folder / RESULT).is_file():
            continue
        run_rows = compare.read_run(job.folder)
        if job.label != job.method and len(run_rows) > 1:  # what came after the method was asked for
            run_rows = [row for row in run_rows if row["method"] != job.method]
        names = {job.method: job.label}
        for row in run_rows:
            name = names.get(row["method"], row["method"])
            out.append(row | {"method": name, "setting": job.setting})
    return sorted(out, key=lambda row: place_of(row["method"]))


def place_of(label: str) -> tuple[int, str]:
    """Returns the place of a method in the tables: as in `METHODS`, variants behind their method."""
    return list(METHODS).index(label.partition(" ")[0].partition("+")[0]), label


def markdown(results: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> str:
    """Formats a row per method: last / mean of last five / best epoch for each setting, in percent."""
    groups = compare.group(results, ["setting"])
    names = list(dict.fromkeys(row["method"] for row in results))
    lines = []
    for name in names:
        cells = [compare.cells(groups.get((setting, name), ()), 1) for setting in settings]
        lines.append([name, *itertools.chain(*cells)])
    header = ["method", *(f"{s}: {m}" for s in settings for m in MEASURES.values())]
    out = [header, ["---"] * len(header), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in out)


def picture(results: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> Figure:
    """Draws the accuracies of all methods, see `comparisons.methods`."""
    panels: dict[str, dict[str, list[float]]] = {s: {} for s in settings}
    for row in results:
        panels[row["setting"]].setdefault(row["method"], []).append(100 * row["last"])
    return comparisons.methods(panels)
