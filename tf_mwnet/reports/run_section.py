"""The section of a page about one run."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import IO, Any

import pandas as pd

from tf_mwnet.audit import outputs
from tf_mwnet.audit.examine import Audit
from tf_mwnet.figures import galleries, pictures
from tf_mwnet.figures.run_data import RunData
from tf_mwnet.figures.tables import ACCURACY, AGREEMENT, MEASURES, SCORES
from tf_mwnet.files import write_atomically
from tf_mwnet.reports import page, settings

CHOOSE = ("set", "given_label", "predicted_label", "is_label_issue")
Summaries = Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Audited:
    """What a page shows of an audit.

    Attributes:
        method: the one whose training was used.
        lines: about the labels.
        table: of the labels, worst first.
        worst: rows of the worst labels, and their images; None without images.
        accuracy: in percent, estimated where the test labels are unchecked; else None.
    """

    method: str
    lines: Sequence[str]
    table: pd.DataFrame
    worst: Any
    accuracy: float | None = None


def audited(audit: Audit, worst: int) -> Audited:
    """Takes from an audit what a page shows, with so many of the worst labels."""
    lines = [f"{name.capitalize()}: {value}" for name, value in outputs.lines(audit)]
    estimate = audit.agreement.accuracy if audit.agreement else None
    found = outputs.worst_images(audit, worst)
    return Audited(audit.method, lines, audit.table, found, 100 * estimate[0] if estimate else None)


def results(run: RunData, summaries: Summaries, audit: Audited | None = None) -> pd.DataFrame:
    """Makes a row per method: test accuracy in percent, AUC of finding wrong labels."""
    rows = []
    for method, summary in summaries.items():
        row: dict[str, Any] = {"run": run.folder.name, "method": method, "measured": measured(run)}
        for key, name in MEASURES.items():
            row[f"{name}, %"] = 100 * summary[key] if key in summary else float("nan")
        known = audit is not None and audit.method == method and audit.accuracy is not None
        row["estimated accuracy, %"] = audit.accuracy if audit and known else float("nan")
        for score, name in SCORES.items():
            row[f"AUC of wrong labels by {name}"] = summary.get(f"auc_{score}", float("nan"))
        rows.append(row | {"seconds": summary.get("seconds", float("nan"))})
    return pd.DataFrame(rows)


def measured(run: RunData) -> str:
    """Says what the numbers of a run's test set are."""
    return ACCURACY if run.test_checked else AGREEMENT


def of_run(
    folder: pathlib.Path, run: RunData, summaries: Summaries, audit: Audited | None
) -> page.Section:
    """Makes the section of a run, and writes its parts below ``folder``.

    Args:
        folder: of the page.
        run: see `run_data.read`.
        summaries: method -> see `tables.summary`.
        audit: of the run's labels; None without one.
    """
    place = run.folder.name
    frame = results(run, summaries, audit).drop(columns=["run", "measured"]).dropna(axis=1, how="all")
    caption = f"Results: {measured(run)}, in percent"
    tables = [page.table(folder, f"{place}/results.csv", caption, frame)]
    for method, rows in run.histories.items():
        path = folder / place / f"metrics_{method}.csv"
        content = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode()
        write_atomically(path, functools.partial(_write, content))
    images = [
        page.image(folder, place, p.kind, p.title, p.figure, p.alt, p.method)
        for p in pictures.of_run(run)
    ]
    lines, shown = settings.about(run), []
    if audit is not None:
        lines += audit.lines
        shown = examples(place, audit.worst)
        count = min(page.ISSUES, len(audit.table))
        caption = f"Labels, worst first ({count} of {len(audit.table)})"
        anchors = [example.anchor for example in shown]
        issues = f"{place}/label_issues.csv"
        labels = page.table(folder, issues, caption, audit.table, page.ISSUES, CHOOSE, anchors)
        tables.append(labels)
    return page.Section(place, lines, tables, images, shown)


def examples(place: str, worst: Any) -> list[page.Example]:
    """Makes the pictures of the worst labels of a run, see `outputs.worst_images`."""
    if worst is None:
        return []
    table, images = worst
    sources = [galleries.data_url(image) for image in galleries.scaled(images)]
    return [
        page.Example(
            anchor=f"{place}-{rank}",
            rank=rank,
            source=source,
            name=str(row.id),
            given=str(row.given_label),
            suggested=str(row.predicted_label),
            quality=f"{row.label_quality:.3f}",
            issue=bool(row.is_label_issue),
        )
        for rank, (source, row) in enumerate(zip(sources, table.itertuples(), strict=True), 1)
    ]


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
