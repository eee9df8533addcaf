"""Sections of a page that put several runs side by side."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tf_mwnet.figures.run_data import RunData
from tf_mwnet.reports import compare, page
from tf_mwnet.reports.page import Image, Section

# Settings along which the error is drawn (L2RW figures 2, 4, 5).
ALONG = {"noise_rate": "noise rate", "meta_size": "meta set size"}
ASKED, FOUND = "imbalance_factor", "imbalance"  # as asked for; as it is, where class counts were given
# What tells runs apart that are not the same thing again with another seed.
APART = ("dataset", "noise", "noise_rate", "meta_size", "network", "speed")

Runs = Sequence[tuple[RunData, Mapping[str, Mapping[str, float]]]]


def sections(folder: pathlib.Path, runs: Runs, single: Sequence[Section]) -> list[Section]:
    """Makes a table of all runs with pictures of the error, and each kind of picture side by side.

    Args:
        folder: of the page.
        runs: each with the summaries of its methods.
        single: their sections, whose pictures are used again.
    """
    rows = [row for run, _ in runs for row in compare.read_run(run.folder)]
    imbalance = FOUND if any(row["class_counts"] for row in rows) else ASKED
    by = [name for name in (*APART, imbalance) if len({str(row[name]) for row in rows}) > 1]
    tables = [page.table(folder, "comparison/means.csv", _caption(by), _means(rows, by))]
    every = pd.concat([page.results(run, summaries) for run, summaries in runs], ignore_index=True)
    frame = every.dropna(axis=1, how="all")
    tables.append(page.table(folder, "comparison/runs.csv", "Each run", frame))
    images = []
    for name, shown in (ALONG | {imbalance: "imbalance factor"}).items():
        if len({row[name] for row in rows}) > 1:
            figure = compare.draw(rows, name)
            caption = f"Test error against {shown} (L2RW figures 2, 4, 5)"
            images.append(page.image(folder, "comparison", f"error_{name}", caption, figure))
    lines = [f"{len(runs)} runs. Mean ± standard deviation over the runs of a row."]
    parts = [Section("Comparison", lines, tables, images)]
    names = list(dict.fromkeys(i.name for s in single for i in s.images))
    shared = [n for n in names if sum(n in [i.name for i in s.images] for s in single) > 1]
    compared = [image for name in shared for image in _row(name, single)]
    if compared:
        parts.append(Section("Side by side", [], [], compared, side_by_side=len(single)))
    return parts


def _row(name: str, single: Sequence[Section]) -> list[Image]:
    """Collects a picture of each run, with the run's name below; an empty place without one."""
    row = []
    for section in single:
        match = next((i for i in section.images if i.name == name), None)
        shown = match or Image(name, f"no {name.replace('_', ' ')}", "", "")
        row.append(Image(name, f"{section.title}: {shown.caption}", shown.source, shown.path))
    return row


def _caption(by: Sequence[str]) -> str:
    return "Test accuracy in percent, over seeds" + (f", by {', '.join(by)}" if by else "")


def _means(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> pd.DataFrame:
    lines = []
    for key, members in compare.group(rows, by).items():
        cells = compare.cells(members)
        line = dict(zip([*by, "method"], key, strict=True))
        line |= dict(zip(("last", "mean of last 5", "best epoch"), cells, strict=True))
        lines.append(line | {"runs": len(members)})
    return pd.DataFrame(lines)
