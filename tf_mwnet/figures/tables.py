"""Summaries of a run, and tables for the terminal."""

from __future__ import annotations

import itertools
import shutil
import textwrap
from collections.abc import Collection, Mapping, Sequence

import numpy as np

GAP = "  "  # between columns
INDENT = "    "  # of what stands under a line
# Scores that separate clean from corrupted labels, and their names in a table.
SCORES = {"weight": "weight", "mean_weight": "mean weight of up to 5 epochs", "loss": "loss"}
WEIGHTS = ("weight", "mean_weight")
AUC, BELOW_CHANCE = "AUC of wrong labels", "0.5 is chance; below it wrong labels weigh more"
AVERAGED = 5  # epochs
# What test accuracies are called in every table.
MEASURES = {"last": "last", "mean_last_5": "mean of last 5", "best": "best epoch"}
MISSING = "-"  # in every table, for what was not measured
# What the numbers of a test set are, and what they are where nobody has checked its labels.
ACCURACY, AGREEMENT = "test accuracy", "agreement with given labels"
UNCHECKED = f"{AGREEMENT} of the test set, which nobody has checked: no accuracy"


def summary(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Computes test accuracy at the last epoch, over the last five, and at the best; AUCs likewise.

    Args:
        rows: of ``metrics.csv``.

    Returns:
        Accuracies 0 to 1 under "last", "mean_last_5" (from five epochs on) and "best" (chosen by test
        accuracy: an upper bound, not a result), "best_epoch"; for each score in `SCORES` that was
        measured "auc_<score>" at the last epoch, "auc_<score>_best" and "auc_<score>_best_epoch".
    """
    test = np.array([r["test_accuracy"] for r in rows])
    numbers = {
        "last": float(test[-1]),
        **({"mean_last_5": float(test[-AVERAGED:].mean())} if len(test) >= AVERAGED else {}),
        "best": float(test.max()),
        "best_epoch": int(rows[int(test.argmax())]["epoch"]),
    }
    for name in (f"auc_{score}" for score in SCORES):
        values = np.array([r.get(name, np.nan) for r in rows])
        if np.isfinite(values).any():
            numbers[name] = float(values[-1])
            numbers[f"{name}_best"] = float(np.nanmax(values))
            numbers[f"{name}_best_epoch"] = int(rows[int(np.nanargmax(values))]["epoch"])
    return numbers


def at_epoch(rows: Sequence[Mapping[str, float]], epoch: int) -> dict[str, float]:
    """Summarises the classifier of one epoch as `summary` does, without a mean of several."""
    test = next(r["test_accuracy"] for r in rows if r["epoch"] == epoch)
    return {
        "last": float(test),
        "best": float(test),
        "best_epoch": epoch,
        "seconds": 0.0,
    }


def small(value: float, digits: int = 3) -> str:
    """Formats a number from 0 on: "0.123"; "<0.001" where it is more than 0 but shows no digit."""
    least = 10.0**-digits
    return f"<{least:.{digits}f}" if 0 < value < least / 2 else f"{value:.{digits}f}"


def text(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    numbers: Collection[int] | None = None,
    width: int = 0,
    keys: int = 1,
    below: Sequence[str] = (),
) -> str:
    """Formats a table in plain text that fits the terminal.

    Where it is too wide, headers and columns of words are wrapped, at spaces alone, so that a command
    can be copied; where that is not enough, columns go to further tables, which repeat the keys.

    Args:
        header: of each column.
        lines: cells of each line.
        numbers: columns that are set to the right and not wrapped; all but the first by default.
        width: characters in a line; 0 for those of the terminal, or 100 where there is none.
        keys: number of first columns that tell what a line is about.
        below: text of each line, set under it, indented and not wrapped.
    """
    width = width or shutil.get_terminal_size((100, 24)).columns
    numbers = range(1, len(header)) if numbers is None else numbers
    columns = list(zip(header, *lines, strict=True))
    widths = _widths(columns, numbers, width)
    count = len(columns)
    while count > keys + 1 and sum(widths[:count]) + len(GAP) * (count - 1) > width:
        count -= 1
    first = _lines(columns[:count], _widths(columns[:count], numbers, width), numbers, below)
    if count == len(columns):
        return first
    kept = [*range(keys), *range(count, len(columns))]
    rest = [[row[i] for i in kept] for row in lines]
    own = [new for new, old in enumerate(kept) if old in numbers]
    return f"{first}\n\n{text([header[i] for i in kept], rest, own, width, keys)}"


def _widths(columns: Sequence[Sequence[str]], numbers: Collection[int], width: int) -> list[int]:
    """Returns the width of each column, as narrow as its words allow if the whole is too wide."""
    widths = [max(map(len, cells)) for cells in columns]
    least = []
    for i, (head, *cells) in enumerate(columns):
        parts = cells if i in numbers else [word for cell in cells for word in cell.split()]
        least.append(max(map(len, [*head.split(), *parts, ""])))
    while sum(widths) + len(GAP) * (len(widths) - 1) > width:
        spare = [w - low for w, low in zip(widths, least, strict=True)]
        if max(spare) <= 0:
            break
        widest = max((w, i) for i, w in enumerate(widths) if spare[i] > 0)[1]
        widths[widest] -= 1
    return widths


def _lines(
    columns: Sequence[Sequence[str]],
    widths: Sequence[int],
    numbers: Collection[int],
    below: Sequence[str] = (),
) -> str:
    header, *rows = zip(*columns, strict=True)
    out = []
    for place, row in enumerate((header, ["-" * w for w in widths], *rows), -2):
        wrapped = [
            textwrap.wrap(cell, w, break_long_words=False, break_on_hyphens=False) or [""]
            for cell, w in zip(row, widths, strict=True)
        ]
        for parts in itertools.zip_longest(*wrapped, fillvalue=""):
            pairs = enumerate(zip(parts, widths, strict=True))
            cells = [part.rjust(w) if i in numbers else part.ljust(w) for i, (part, w) in pairs]
            out.append(GAP.join(cells).rstrip())
        if below and place >= 0:
            out.append(INDENT + below[place])
    return "\n".join(out)


def methods_table(methods: Mapping[str, Mapping[str, float]]) -> str:
    """Formats a row per method: test accuracy in percent, seconds."""
    header = ["method", *MEASURES.values(), "seconds"]
    lines = [
        [
            name,
            f"{100 * m['last']:.2f} %",
            f"{100 * m['mean_last_5']:.2f} %" if "mean_last_5" in m else MISSING,
            f"{100 * m['best']:.2f} % ({m['best_epoch']})",
            f"{m['seconds']:.1f}",
        ]
        for name, m in methods.items()
    ]
    return text(header, lines)


def auc_table(methods: Mapping[str, Mapping[str, float]]) -> str | None:
    """Formats a row per method: AUC of finding wrong labels, last and best epoch; None without any."""
    if not any(f"auc_{score}" in m for m in methods.values() for score in SCORES):
        return None
    header = ["method", *(f"by {shown}" for shown in SCORES.values())]

    def cell(m: Mapping[str, float], name: str) -> str:
        if name not in m or not np.isfinite(m[name]):
            return MISSING
        return f"{m[name]:.3f}, {m[f'{name}_best']:.3f} ({m[f'{name}_best_epoch']})"

    lines = [[name, *(cell(m, f"auc_{score}") for score in SCORES)] for name, m in methods.items()]
    found = f"{AUC}: at the last epoch, at the best one (its number)\n\n{text(header, lines)}"
    weights = [m.get(f"auc_{score}", np.nan) for m in methods.values() for score in WEIGHTS]
    return f"{found}\n\n{BELOW_CHANCE}" if np.nanmin([*weights, 1.0]) < 0.5 else found
