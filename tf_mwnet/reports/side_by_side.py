"""Sections of a page that put several runs side by side."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tf_mwnet.figures.run_data import RunData
from tf_mwnet.figures.tables import ACCURACY, MEASURES
from tf_mwnet.reports import compare, page, run_section
from tf_mwnet.reports.page import Image, Row, Section

# Settings along which the error is drawn (L2RW figures 2, 4, 5).
ALONG = {"noise_rate": "noise rate", "meta_size": "meta set size"}
ASKED, FOUND = "imbalance_factor", "imbalance"  # as asked for; as it is, where class counts were given
# What is shown of the groups of runs first, where it differs.
FIRST = ("dataset", "noise", "noise_rate", "meta_size", "network", "speed")

Run = tuple[RunData, Mapping[str, Mapping[str, float]], run_section.Audited | None]


def sections(folder: pathlib.Path, runs: Sequence[Run], single: Sequence[Section]) -> list[Section]:
    """Makes a table of all runs with pictures of the error, and each kind of picture side by side.

    Args:
        folder: of the page.
        runs: each with the summaries of its methods, and its audit.
        single: their sections.

    Returns:
        A comparison; what is side by side, if anything is; and the sections of the runs, without the
        pictures that are.
    """
    rows = [row for run, *_ in runs for row in compare.read_run(run.folder)]
    imbalance = FOUND if any(row["class_counts"] for row in rows) else ASKED
    by = [name for name in (*FIRST, imbalance) if len({_shown(row, name) for row in rows} - {"-"}) > 1]
    by += compare.apart(rows, by)
    tables = [page.table(folder, "comparison/means.csv", _caption(by), _means(rows, by))]
    every = pd.concat([run_section.results(*run) for run in runs], ignore_index=True)
    if all(run.test_checked for run, *_ in runs):
        every = every.drop(columns="measured")
    frame = every.dropna(axis=1, how="all")
    tables.append(page.table(folder, "comparison/runs.csv", "Each run", frame))
    images = [
        _error(folder, rows, name, shown)
        for name, shown in (ALONG | {imbalance: "imbalance factor"}).items()
        if len({row[name] for row in rows if row["test_checked"]}) > 1
    ]
    lines = [
        f"{len(runs)} runs. Mean ± standard deviation over the seeds of a row, whose runs are alike in"
        " all else; no deviation for one seed."
    ]
    if not all(row["test_checked"] for row in rows):
        lines.append("Runs whose test labels nobody has checked have no accuracy, but an agreement.")
    parts = [Section("Comparison", lines, tables, images)]
    beside = _beside(single)
    if beside:
        parts.append(Section("Side by side", [], [], [], rows=beside))
    shown = {row.images[0].kind for row in beside}
    left = [[i for i in section.images if i.kind not in shown] for section in single]
    return parts + [
        dataclasses.replace(section, images=images) for section, images in zip(single, left, strict=True)
    ]


def _error(folder: pathlib.Path, rows: Sequence[Mapping[str, Any]], name: str, shown: str) -> Image:
    figure = compare.draw(rows, name)
    caption = f"Test error against {shown} (L2RW figures 2, 4, 5)"
    return page.image(folder, "comparison", f"error_{name}", caption, figure)


def _beside(single: Sequence[Section]) -> list[Row]:
    """Collects each kind of picture that there is several times, with the names of the runs.

    A picture that is the same for several runs, as of their common noise, is shown once.
    """
    found: dict[str, list[Image]] = {}
    for section in single:
        for image in section.images:
            whose = f"{section.title}, {image.method}" if image.method else section.title
            found.setdefault(image.kind, []).append(dataclasses.replace(image, caption=whose))
    return [Row(images[0].title, _once(images)) for images in found.values() if len(images) > 1]


def _once(images: Sequence[Image]) -> list[Image]:
    same: dict[str, list[Image]] = {}
    for image in images:
        same.setdefault(image.source, []).append(image)
    captions = ["; ".join(image.caption for image in group) for group in same.values()]
    return [
        dataclasses.replace(group[0], caption=caption)
        for group, caption in zip(same.values(), captions, strict=True)
    ]


def _shown(row: Mapping[str, Any], name: str) -> str:
    return str(compare.value_of(row, name))


def _caption(by: Sequence[str]) -> str:
    return "Test accuracy in percent, over seeds" + (f", by {', '.join(by)}" if by else "")


def _means(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> pd.DataFrame:
    lines = []
    mixed = len({row["test_checked"] for row in rows}) > 1
    for key, members in compare.group(rows, by).items():
        cells = compare.cells(members)
        line: dict[str, Any] = dict(zip([*by, "method"], key, strict=True))
        if mixed:
            line["measured"] = ACCURACY if members[0]["test_checked"] else "agreement"
        line |= dict(zip(MEASURES.values(), cells, strict=True))
        lines.append(line | {"seeds": compare.number_of_seeds(members)})
    return pd.DataFrame(lines)
