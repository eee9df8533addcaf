"""Summaries of a run, and tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# Scores that separate clean from corrupted labels, and their names in a table.
SCORES = {"weight": "weight", "mean_weight": "mean weight of last 5", "loss": "loss"}


def summary(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Computes test accuracy at the last epoch, over the last five, and at the best; AUCs likewise.

    Args:
        rows: of ``metrics.csv``.

    Returns:
        Accuracies 0 to 1 under "last", "mean_last_5" and "best" (chosen by test accuracy: an upper
        bound, not a result), "best_epoch"; for each score in `SCORES` that was measured
        "auc_<score>" at the last epoch, "auc_<score>_best" and "auc_<score>_best_epoch".
    """
    test = np.array([r["test_accuracy"] for r in rows])
    numbers = {
        "last": float(test[-1]),
        "mean_last_5": float(test[-5:].mean()),
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


def text(header: Sequence[str], lines: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Formats a table in plain text.

    Args:
        header: of each column.
        lines: cells of each line.
        numbers: columns that are set to the right; all but the first by default.
    """
    numbers = numbers or range(1, len(header))
    widths = [max(len(row[i]) for row in (header, *lines)) for i in range(len(header))]
    out = []
    for row in (header, ["-" * w for w in widths], *lines):
        pairs = enumerate(zip(row, widths, strict=True))
        cells = [cell.rjust(w) if i in numbers else cell.ljust(w) for i, (cell, w) in pairs]
        out.append("  ".join(cells).rstrip())
    return "\n".join(out)


def methods_table(methods: Mapping[str, Mapping[str, float]]) -> str:
    """Formats a row per method: test accuracy in percent, seconds."""
    header = ["method", "last", "mean of last 5", "best (epoch)", "seconds"]
    lines = [
        [
            name,
            f"{100 * m['last']:.2f} %",
            f"{100 * m['mean_last_5']:.2f} %" if "mean_last_5" in m else "-",
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
    header = ["AUC of wrong labels by", *(f"{n}: last, best (epoch)" for n in SCORES.values())]

    def cell(m: Mapping[str, float], name: str) -> str:
        if name not in m or not np.isfinite(m[name]):
            return "-"
        return f"{m[name]:.3f}, {m[f'{name}_best']:.3f} ({m[f'{name}_best_epoch']})"

    lines = [[name, *(cell(m, f"auc_{score}") for score in SCORES)] for name, m in methods.items()]
    return text(header, lines)
