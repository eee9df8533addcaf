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
from tf_mwnet.figures.tables import ACCURACY, AGREEMENT, MEASURES, SCORES, small
from tf_mwnet.files import write_atomically
from tf_mwnet.reports import page, settings

CHOOSE = ("set", "given_label", "predicted_label", "is_label_issue")
# Columns of the labels that come first, and what some are called in the page.
FIRST = ("given_label", "predicted_label", "label_quality", "is_label_issue", "id")
NAMES = {"is_correct": "given label is right"}
KEY = {
    "label_quality": "Label quality: how likely the given label is right (0 to 1)",
    "weight": "weight: of the example x batch size (1 is plain training)",
    "loss": "loss: cross-entropy of the given label in nats",
    "probability": "probability: of the given label",
    "neighbour_agreement": "neighbour agreement: share of the nearest examples with the given label",
}
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
    folder: pathlib.Path,
    run: RunData,
    summaries: Summaries,
    audit: Audited | None,
    drawn: Sequence[pictures.Picture],
) -> page.Section:
    """Makes the section of a run, and writes its parts below ``folder``.

    Args:
        folder: of the page.
        run: see `run_data.read`.
        summaries: method -> see `tables.summary`.
        audit: of the run's labels; None without one.
        drawn: see `pictures.of_run`.
    """
    place = run.folder.name
    frame = results(run, summaries, audit).drop(columns=["run", "measured"]).dropna(axis=1, how="all")
    caption = f"Results: {measured(run)}, in percent"
    tables = [page.table(folder, f"{place}/results.csv", caption, frame)]
    for method, rows in run.histories.items():
        path = folder / place / f"metrics_{method}.csv"
        content = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode()
        write_atomically(path, functools.partial(_write, content))
    images = [page.image(folder, place, p.kind, p.title, p.figure, p.alt, p.method) for p in drawn]
    lines, shown = settings.about(run), []
    if audit is not None:
        lines += audit.lines
        shown = examples(place, audit.worst)
        tables.append(labels(folder, f"{place}/label_issues.csv", audit.table, shown))
    return page.Section(place, lines, tables, images, shown)


def labels(
    folder: pathlib.Path, path: str, table: pd.DataFrame, shown: Sequence[page.Example]
) -> page.Table:
    """Makes the table of the worst labels: what is suggested first, near duplicates last.

    Args:
        folder: of the page.
        path: of the CSV file, which has the columns as the audit has them.
        table: see `tf_mwnet.audit`.
        shown: the pictures that its first rows link to.
    """
    first = [*FIRST, *(["set"] if table.set.nunique() > 1 else [])]
    columns = [*first, *(name for name in table if name not in (*first, "set"))]
    worst = table.head(page.ISSUES)
    empty = {n for n in columns if n.startswith("near_duplicate") and (worst[n].isin(["", None])).all()}
    return page.table(
        folder,
        path,
        f"Labels, worst first ({min(page.ISSUES, len(table))} of {len(table)})",
        table,
        page.ISSUES,
        CHOOSE,
        [example.anchor for example in shown],
        show={name: NAMES.get(name, name) for name in columns if name not in empty},
        note="; ".join(said for name, said in KEY.items() if name in table) + ".",
    )


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
            quality=small(row.label_quality),
            issue=bool(row.is_label_issue),
        )
        for rank, (source, row) in enumerate(zip(sources, table.itertuples(), strict=True), 1)
    ]


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
