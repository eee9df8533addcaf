"""The short table that a run prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def summary(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Test accuracy at the last epoch, over the last five, and at the best; AUCs at the last.

    Args:
        rows: of ``metrics.csv``.

    Returns:
        Accuracies 0 to 1 under "last", "mean_last_5" and "best" (chosen by test accuracy: an upper
        bound, not a result), "best_epoch", and "auc_weight", "auc_loss" where they were measured.
    """
    test = np.array([r["test_accuracy"] for r in rows])
    found = {
        "last": float(test[-1]),
        "mean_last_5": float(test[-5:].mean()),
        "best": float(test.max()),
        "best_epoch": int(rows[int(test.argmax())]["epoch"]),
    }
    for name in ("auc_weight", "auc_loss"):
        if name in rows[-1]:
            found[name] = float(rows[-1][name])
    return found


def text(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in plain text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *lines)) for i in range(len(header))]
    out = []
    for row in (header, ["-" * w for w in widths], *lines):
        cells = [
            row[0].ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
        ]
        out.append("  ".join(cells).rstrip())
    return "\n".join(out)


def methods_table(methods: Mapping[str, Mapping[str, float]]) -> str:
    """A row per method: test accuracy in percent, AUC of finding clean labels, seconds."""
    header = ["method", "last", "mean of last 5", "best (epoch)", "AUC weight", "AUC loss", "seconds"]

    def auc(value):
        return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"

    lines = [
        [
            name,
            f"{100 * m['last']:.2f} %",
            f"{100 * m['mean_last_5']:.2f} %",
            f"{100 * m['best']:.2f} % ({m['best_epoch']})",
            auc(m.get("auc_weight")),
            auc(m.get("auc_loss")),
            f"{m['seconds']:.1f}",
        ]
        for name, m in methods.items()
    ]
    return text(header, lines)
