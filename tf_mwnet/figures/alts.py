"""What is seen in pictures, in words, for those who do not see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Rows = Sequence[Mapping[str, float]]


def _course(rows: Rows, name: str, factor: float, form: str) -> str:
    """Says where a metric begins, ends, and has its highest value; "" if it was not measured."""
    found = [(int(r["epoch"]), factor * r[name]) for r in rows if np.isfinite(r.get(name, np.nan))]
    if not found:
        return ""
    (_, first), (last_epoch, last) = found[0], found[-1]
    top_epoch, top = max(found, key=lambda pair: pair[1])
    said = f"from {form.format(first)} to {form.format(last)} at epoch {last_epoch}"
    return said + (f", highest {form.format(top)} at {top_epoch}" if top_epoch != last_epoch else "")


def curves(
    what: str,
    histories: Mapping[str, Rows],
    names: Mapping[str, str],
    factor: float = 1.0,
    form: str = "{:.2f}",
) -> str:
    """Describes lines over epochs.

    Args:
        what: the picture shows.
        histories: method -> rows of ``metrics.csv``.
        names: metric -> what it is called.
        factor, form: of a value, and how it is written.
    """
    said = []
    for method, rows in histories.items():
        for name, shown in names.items():
            if course := _course(rows, name, factor, form):
                said.append(f"{method}, {shown}: {course}")
    return f"{what} over epochs. {'; '.join(said)}."


def matrix(what: str, counts: np.ndarray, names: Sequence[str], row: str, column: str) -> str:
    """Describes a matrix over classes ``[K, K]``: its diagonal, and its largest entries beside it."""
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    others = share - np.diag(np.diag(share))
    worst = [np.unravel_index(i, others.shape) for i in np.argsort(others, axis=None)[::-1][:3]]
    said = [f"{row} {names[i]} as {column} {names[j]} {100 * others[i, j]:.0f} %" for i, j in worst
            if others[i, j] > 0]  # fmt: skip
    kept = f"on average {100 * np.diag(share).mean():.0f} % of a row is on the diagonal"
    return f"{what}: {kept}" + (f"; most beside it: {', '.join(said)}." if said else ".")


def weights(what: str, values: np.ndarray, corrupted: np.ndarray | None) -> str:
    """Describes weights of examples ``[N]``, of right and wrong labels apart."""
    known = np.isfinite(values)
    groups = {"all examples": known}
    if corrupted is not None and corrupted.any():
        groups = {"right labels": known & ~corrupted, "wrong labels": known & corrupted}
    said = [f"median {np.median(values[rows]):.2f} for {name}" for name, rows in groups.items()
            if rows.any()]  # fmt: skip
    return f"{what}: {', '.join(said)} (1 is plain training)."


def function(method: str, losses: np.ndarray, last: np.ndarray) -> str:
    """Describes a learned weight function ``[P]`` or ``[P, G]`` at losses ``[P]``."""
    last = last[:, None] if last.ndim == 1 else last
    said = []
    for g in range(last.shape[1]):
        at = [f"{np.interp(loss, losses, last[:, g]):.2f} at loss {loss}" for loss in (0, 1, 2, 4)]
        said.append((f"group {g + 1}: " if last.shape[1] > 1 else "") + ", ".join(at))
    return f"Learned weight function of {method} in the last epoch: {'; '.join(said)}."


def changes(histories: Mapping[str, tuple[np.ndarray, np.ndarray | None]]) -> str:
    """Describes how far the weights ``[E, N]`` of methods move from one epoch to the next."""
    said = []
    for name, (values, _) in histories.items():
        step = np.abs(np.diff(values.astype(float), axis=0))
        first, last = np.nanmean(step[0]), np.nanmean(step[-1])
        said.append(f"{name}: mean change {first:.2f} after the first epoch, {last:.2f} at the end")
    return f"Change of example weights from epoch to epoch. {'; '.join(said)}."
