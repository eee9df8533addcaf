"""HTML pages about a pipeline's data and its labels, and the picture of an evaluation."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipelines.work.evaluation import Evaluation
from pipelines.work.statistics import Part, Place
from tf_mwnet.audit import outputs
from tf_mwnet.audit.examine import Audit
from tf_mwnet.figures import matrices, plots
from tf_mwnet.figures.colours import SERIES
from tf_mwnet.reports import page, run_section

WORST = 64  # labels whose images are shown


def class_counts(names: Sequence[str], parts: Mapping[str, Part]) -> Figure:
    """Draws the share of each class in each split as bars.

    Args:
        names: K class names.
        parts: split -> its sums.
    """
    figure, axes = plots.new_axes("class", "% of the split", "Classes of each split")
    place, width = np.arange(len(names)), 0.8 / max(len(parts), 1)
    counts = {split: part.counts for split, part in parts.items()}
    colours = itertools.cycle(SERIES)
    for number, ((split, count), colour) in enumerate(zip(counts.items(), colours, strict=False)):
        share = 100 * count / max(count.sum(), 1)
        label = f"{split} ({count.sum():,})"
        axes.bar(place + (number + 0.5) * width - 0.4, share, width, label=label, color=colour)
    axes.set_xticks(place, names, rotation=45 if max(map(len, names)) > 3 else 0, ha="center")
    axes.margins(y=0.25)
    axes.legend(frameon=False, ncols=len(parts))
    return figure


def _alone(table: page.Table) -> page.Table:
    """Returns a table without the link to its file, for a page that is kept alone."""
    return dataclasses.replace(table, path="")


def of_data(
    folder: pathlib.Path,
    facts: Mapping[str, Any],
    parts: Mapping[str, Part],
    groups: Sequence[Sequence[Place]],
) -> pathlib.Path:
    """Writes the page about records; returns its path.

    Args:
        folder: an empty folder.
        facts: see `records.read_facts`.
        parts, groups: see `pipelines.beam_jobs.look`.
    """
    names = facts["classes"]
    counts = pd.DataFrame({"class": names} | {split: p.counts for split, p in parts.items()})
    rows = [
        {"split": split, "channel": c, "mean": p.mean[c], "deviation": p.std[c],
         "smallest": p.low[c], "largest": p.high[c]}
        for split, p in parts.items() for c in range(len(p.total))
    ]  # fmt: skip
    twice = [
        {"group": number, "split": split, "id": name}
        for number, group in enumerate(groups)
        for split, name in group
    ]
    tables = [
        page.table(folder, "counts.csv", "Examples of each class", counts),
        page.table(folder, "values.csv", "Values of the inputs", pd.DataFrame(rows)),
    ]
    lines = [f"{p.counts.sum():,} examples in {split}" for split, p in parts.items()]
    lines.append(f"{len(groups)} inputs occur more than once")
    if twice:
        caption = "Inputs that occur more than once"
        tables.append(page.table(folder, "duplicates.csv", caption, pd.DataFrame(twice), page.ISSUES))
    figure = class_counts(names, parts)
    images = [page.image(folder, "plots", "classes", "Classes of each split", figure)]
    title = f"Data: {facts['name']}"
    section = page.Section(facts["name"], lines, [_alone(t) for t in tables], images)
    return page.write(folder, title, [section])


def of_labels(folder: pathlib.Path, audit: Audit) -> pathlib.Path:
    """Writes the page about an audit's labels into an empty folder; returns its path."""
    lines = [f"{name}: {value}" for name, value in outputs.lines(audit)]
    shown = run_section.examples("label", outputs.worst_images(audit, WORST))
    labels = run_section.labels(folder, outputs.ISSUES, audit.table, shown)
    section = page.Section(f"By {audit.method}", lines, [_alone(labels)], [], shown)
    return page.write(folder, "Labels that look wrong", [section])


def evaluation(result: Evaluation, names: Sequence[str]) -> Figure:
    """Draws the confusion matrix of the test set, with accuracy and verdict as title."""
    low, high = result.interval
    verdict = "blessed" if result.blessed else "not blessed"
    title = (
        f"{100 * result.accuracy:.1f} % right ({100 * low:.1f} to {100 * high:.1f}), baseline"
        f" {100 * result.baseline_accuracy:.1f} %: {verdict}"
    )
    return matrices.draw({title: result.confusion}, tuple(names), "predicted class", "true class")
