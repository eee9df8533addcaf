"""Writes the files of an audit, and formats it for the terminal."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tf_mwnet.audit.examine import Audit
from tf_mwnet.data.images import rows_of
from tf_mwnet.errors import UserError
from tf_mwnet.figures import galleries, plots, tables
from tf_mwnet.files import as_written, write_atomically, write_frame

ISSUES, PICTURE, MATRIX, SUMMARY = "label_issues.csv", "worst.png", "estimated_matrix.csv", "audit.json"
SHOWN = 10


def folder_of(run: pathlib.Path, method: str) -> pathlib.Path:
    """Returns the folder of the audit of a run by one of its methods."""
    return run / method / "audit"


def summary(audit: Audit) -> dict[str, Any]:
    """Summarises an audit in numbers, for people and for reports."""
    table, train = audit.table, audit.table[audit.table.set == "train"]
    numbers = {
        "method": audit.method,
        "examples": len(table),
        "issues": int(table.is_label_issue.sum()),
        "estimated_wrong_labels": audit.estimate.num_issues,
        "estimated_noise_rate": audit.estimate.noise_rate,
    }
    if "is_correct" in table:
        numbers["true_noise_rate"] = float((~train.is_correct).mean())
        numbers["precision_at_true_number_of_errors"] = audit.precision
    return numbers


def write(
    audit: Audit, worst: int, folder: pathlib.Path | None = None
) -> tuple[list[tuple[str, object]], Figure | None]:
    """Writes the audit's files; a picture that fails is left out, with a warning.

    Args:
        audit: the audit.
        worst: number of labels in the picture, see `picture`.
        folder: to write into; by default in the run's folder.

    Returns:
        A name and a path for each file, and the figure, if there is one.
    """
    folder = folder or folder_of(audit.folder, audit.method)
    folder.mkdir(parents=True, exist_ok=True)
    write_frame(folder / ISSUES, audit.table)
    matrix = audit.estimate.transition
    write_atomically(folder / MATRIX, lambda file: np.savetxt(file, matrix, "%.6f", ","))
    content = json.dumps(summary(audit), indent=2) + "\n"
    write_atomically(folder / SUMMARY, lambda file: file.write(content), mode="w")
    paths: list[tuple[str, object]] = [("all labels, worst first", folder / ISSUES)]
    figure = None
    with plots.not_fatal(f"'{folder / PICTURE}'"):
        figure = picture(audit, worst)
        if figure is not None:
            plots.save(figure, folder / PICTURE)
            paths.append(("the worst labels", folder / PICTURE))
    return paths, figure


def read_label_issues(path: str | pathlib.Path) -> pd.DataFrame:
    """Reads ``label_issues.csv``; ids and class names stay texts, also "007", "None", "NA" and "=1+1".

    `pandas.read_csv` alone takes such names for numbers and missing values, and keeps the apostrophe
    that `files.cell_text` sets before what a spreadsheet would run.

    Examples:
        >>> table = read_label_issues("runs/my_audit/gce/audit/label_issues.csv")
        >>> table[table.is_label_issue].id

    Args:
        path: the file, or its folder.

    Returns:
        See `tf_mwnet.audit`.

    Raises:
        UserError: there is no such file, or it is another file.
    """
    path = pathlib.Path(path)
    path = path / ISSUES if path.is_dir() else path
    names = ["id", "set", "given_label", "predicted_label"]
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(names, str), keep_default_na=False, na_values=[""])
        table[names] = table[names].fillna("").map(as_written)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"'{path}' can not be read ({error}); allowed: a {ISSUES} of an audit"
        ) from error
    return table


def picture(audit: Audit, worst: int) -> Figure | None:
    """Draws the worst labels, see `galleries.worst_labels`; None without images."""
    if audit.examples is None:
        return None
    inputs = audit.examples.originals
    if inputs.ndim != 4 or inputs.shape[-1] not in (1, 3):
        return None
    shown = audit.table.head(worst)
    images = rows_of(inputs, shown.index.to_numpy())
    count = int(shown.is_label_issue.sum())
    title = f"The {len(shown)} labels of lowest quality; {count} are taken to be wrong (framed)"
    return galleries.worst_labels(
        images,
        shown.given_label.to_list(),
        shown.predicted_label.to_list(),
        shown.label_quality.to_list(),
        shown.is_label_issue.to_list(),
        title,
    )


def lines(audit: Audit) -> list[tuple[str, str]]:
    """Formats the summary as names and values for people."""
    numbers = summary(audit)

    def percent(name: str, what: str = " of the training set") -> str:
        return f"{100 * numbers[name]:.1f} %{what}"

    out = [
        (
            "estimated wrong labels",
            f"{numbers['estimated_wrong_labels']}, {percent('estimated_noise_rate')}",
        ),
        ("label issues", f"{numbers['issues']} of {numbers['examples']} examples"),
    ]
    if "true_noise_rate" in numbers:
        out.append(("truly wrong labels", percent("true_noise_rate")))
    if numbers.get("precision_at_true_number_of_errors") is not None:
        out.append(("precision at that number", percent("precision_at_true_number_of_errors", "")))
    return out


def text(audit: Audit, paths: list[tuple[str, object]]) -> str:
    """Formats the worst labels, the estimates, and the places of the files."""
    rows = []
    for row in audit.table.head(SHOWN).itertuples():
        names = [str(row.id), str(row.given_label), str(row.predicted_label)]
        rows.append([*names, f"{row.label_quality:.3f}"])
    places = [*lines(audit), *paths]
    width = max(len(name) for name, _ in places) + 2
    table = tables.text(["id", "given", "suggested", "quality"], rows, numbers=(3,))
    return "\n".join(["", table, "", *(f"{name:<{width}}{place}" for name, place in places)])
