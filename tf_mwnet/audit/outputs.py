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
from tf_mwnet.data.texts import Texts
from tf_mwnet.errors import UserError
from tf_mwnet.figures import galleries, plots, tables
from tf_mwnet.files import as_written, write_atomically, write_frame

ISSUES, CLASSES, PICTURE = "label_issues.csv", "issue_summary.csv", "worst.png"
MATRIX, SUMMARY = "estimated_matrix.csv", "audit.json"
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
        "estimated_wrong_labels_interval": list(audit.estimate.interval),
        "estimated_noise_rate": audit.estimate.noise_rate,
        # Neighbours in the inputs are the same for each method, in its hidden layer they are not.
        "estimated_from": "neighbours" if "is_outlier_issue" in table else audit.method,
    }
    if "is_outlier_issue" in table:
        other = table.is_near_duplicate_issue & (table.near_duplicate_set != table.set)
        for name in ("near_duplicates", "near_duplicates_with_other_label", "outliers"):
            numbers[name] = int(audit.classes[name].sum())
        numbers["near_duplicates_across_sets"] = int(other.sum())
    if "is_correct" in table:
        numbers["true_noise_rate"] = float((~train.is_correct).mean())
        numbers["precision_at_true_number_of_errors"] = audit.precision
        numbers["true_number_of_errors"] = audit.errors
    if audit.agreement is not None:
        numbers["test_examples"] = audit.agreement.examples
        numbers["test_agreement"] = audit.agreement.share
        if audit.agreement.accuracy is not None:
            numbers["estimated_test_accuracy"], *interval = audit.agreement.accuracy
            numbers["estimated_test_accuracy_interval"] = interval
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
    write_frame(folder / ISSUES, with_texts(audit, audit.table))
    write_frame(folder / CLASSES, audit.classes)
    matrix = audit.estimate.transition
    write_atomically(folder / MATRIX, lambda file: np.savetxt(file, matrix, "%.6f", ","))
    content = json.dumps(summary(audit), indent=2) + "\n"
    write_atomically(folder / SUMMARY, lambda file: file.write(content), mode="w")
    paths: list[tuple[str, object]] = [
        ("all labels, worst first", folder / ISSUES),
        ("the issues of each class", folder / CLASSES),
    ]
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
    further = ["near_duplicate_of", "near_duplicate_set", "near_duplicate_label", "text"]
    types = dict.fromkeys([*names, *further], str)
    try:
        table = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])
        names += [name for name in further if name in table]
        table[names] = table[names].fillna("").map(as_written)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"'{path}' cannot be read ({error}); allowed: a {ISSUES} of an audit") from error
    return table


def with_texts(audit: Audit, table: pd.DataFrame, length: int = 500) -> pd.DataFrame:
    """Returns rows of the table, of texts with a last column ``text``, cut to ``length`` characters."""
    inputs = None if audit.examples is None else audit.examples.originals
    if not isinstance(inputs, Texts):
        return table
    found = (" ".join(text.split()) for text in inputs.read(table.index.to_numpy()))
    cut = [text if len(text) <= length else text[: length - 1] + "…" for text in found]
    return table.assign(text=cut)


def worst_images(audit: Audit, worst: int) -> tuple[pd.DataFrame, np.ndarray] | None:
    """Returns the rows of the worst labels, and their images ``[n, H, W, C]``; None without images."""
    if audit.examples is None:
        return None
    inputs = audit.examples.originals
    if inputs.ndim != 4 or inputs.shape[-1] not in (1, 3):
        return None
    shown = audit.table.head(worst)
    return shown, rows_of(inputs, shown.index.to_numpy())


def picture(audit: Audit, worst: int) -> Figure | None:
    """Draws the worst labels, see `galleries.worst_labels`; None without images."""
    if (found := worst_images(audit, worst)) is None:
        return None
    shown, images = found
    count = int(shown.is_label_issue.sum())
    title = f"The {len(shown)} labels of lowest quality; {count} are taken to be wrong (framed)"
    return galleries.worst_labels(
        images,
        shown.id.to_list(),
        shown.given_label.to_list(),
        shown.predicted_label.to_list(),
        shown.label_quality.to_list(),
        shown.is_label_issue.to_list(),
        title,
    )


def lines(audit: Audit) -> list[tuple[str, str]]:
    """Formats the summary as names and values for people."""
    numbers = summary(audit)
    *first, last = ["training", *sorted(set(audit.table.set) - {"train"})]
    sets = f" ({', '.join(first)} and {last} set)" if first else ""

    def percent(name: str, what: str = " of the training set") -> str:
        return f"{100 * numbers[name]:.1f} %{what}"

    out = [
        (
            "estimated wrong labels",
            "{estimated_wrong_labels} ({} to {}), {}".format(
                *numbers["estimated_wrong_labels_interval"], percent("estimated_noise_rate"), **numbers
            ),
        ),
        ("label issues", f"{numbers['issues']} of {numbers['examples']} examples{sets}"),
    ]
    if "outliers" in numbers:
        twins = "{near_duplicates}, {near_duplicates_with_other_label} of them with another label"
        out.append(("near duplicates", twins.format(**numbers)))
        out.append(("outliers", str(numbers["outliers"])))
    else:
        out.append(("near duplicates and outliers", f"not judged ({audit.without})"))
    if "true_noise_rate" in numbers:
        out.append(("truly wrong labels", percent("true_noise_rate")))
    if "test_agreement" in numbers:
        of = f" of {numbers['test_examples']} test examples"
        out.append(("agreement with given labels", percent("test_agreement", of)))
    if "estimated_test_accuracy" in numbers:
        low, high = (100 * share for share in numbers["estimated_test_accuracy_interval"])
        shown = percent("estimated_test_accuracy", f" ({low:.1f} to {high:.1f})")
        out.append(("accuracy, estimated from it", shown))
    if numbers.get("precision_at_true_number_of_errors") is not None:
        of = " of the {true_number_of_errors} lowest-quality labels are wrong".format(**numbers)
        out.append(("precision", percent("precision_at_true_number_of_errors", of)))
    return out


def text(audit: Audit, paths: list[tuple[str, object]]) -> str:
    """Formats the worst labels, the estimates, and the places of the files."""
    rows = []
    shown = with_texts(audit, audit.table.head(SHOWN), 60)
    for row in shown.itertuples():
        names = [str(row.id), str(row.given_label), str(row.predicted_label)]
        rows.append([*names, tables.small(row.label_quality), *([row.text] if "text" in shown else [])])
    places = [*lines(audit), *paths]
    width = max(len(name) for name, _ in places) + 2
    header = ["id", "given", "suggested", "quality", *(["text"] if "text" in shown else [])]
    table = tables.text(header, rows, numbers=(3,))
    return "\n".join(["", table, "", *(f"{name:<{width}}{place}" for name, place in places)])
