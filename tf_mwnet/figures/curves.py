"""Pictures of changes from epoch to epoch, and of class-level weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tf_mwnet.figures.colours import BLUE, GREEN, GREY, ORANGE, RIGHT, UNKNOWN, WRONG, coloured
from tf_mwnet.figures.plots import labelled, new_axes, over_epochs
from tf_mwnet.figures.tables import SCORES

Rows = Sequence[Mapping[str, float]]
FOLLOWED = 10
# What losses are called, and in which unit; the others have none.
LOSSES = {
    "cross_entropy": "cross-entropy (nats)", "mae": "absolute error (0 to 2)",
    "gce": "generalised cross-entropy", "sce": "symmetric cross-entropy",
    "nce": "normalised cross-entropy", "scaled_gce": "scaled generalised cross-entropy",
}  # fmt: skip
TRAINING_LOSS = "Cross-entropy of the given training labels, mean of the epoch"


def _has(rows: Rows, name: str) -> bool:
    return any(np.isfinite(row.get(name, np.nan)) for row in rows)


def _marker(points: Sized) -> str:
    """Returns the marker of a line, so that one of a single point is seen."""
    return "o" if len(points) < 3 else ""


def _line(axes: Axes, rows: Rows, name: str, factor: float = 1.0, **style: Any) -> bool:
    """Draws a metric over epochs; tells whether there was anything to draw."""
    pairs = [(r["epoch"], factor * r[name]) for r in rows if np.isfinite(r.get(name, np.nan))]
    if pairs:
        axes.plot(*zip(*pairs, strict=True), marker=_marker(pairs), ms=3, **style)
    return bool(pairs)


def losses(histories: Mapping[str, Rows], meta_losses: Mapping[str, str]) -> Figure:
    """Draws training loss and meta loss over epochs, each on its own axis (MW-Net figures 11-13).

    Args:
        histories: method -> rows of ``metrics.csv``.
        meta_losses: method -> name of its meta loss, see `LOSSES`.
    """
    learning = {m: rows for m, rows in histories.items() if _has(rows, "meta_loss")}
    count = 2 if learning else 1
    figure = Figure(figsize=(6.0, 3.0 * count + 1.0), layout="constrained")
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for name, rows, colour in coloured(histories):
        _line(panels[0], rows, "loss", color=colour, lw=2, label=f"{name}, training")
        if name in learning:
            loss = LOSSES.get(meta_losses.get(name, ""), "meta loss")
            label = f"{name}, meta set: {loss}"
            _line(panels[-1], rows, "meta_loss", color=colour, lw=2, ls="--", label=label)
    kinds = {LOSSES.get(meta_losses.get(m, ""), "meta loss") for m in learning}
    panels[0].set(ylabel=f"training: mean {LOSSES['cross_entropy']}", title=TRAINING_LOSS)
    if learning:
        one = kinds.pop() if len(kinds) == 1 else "loss of each method"
        panels[1].set(ylabel=f"meta set: mean {one}", title="Meta loss, mean of the epoch")
    for axes, label in zip(panels, ("training", "meta"), strict=False):
        axes.set_label(label)
        axes.title.set_fontsize(11)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=9, frameon=False)
    over_epochs(panels[-1])
    return figure


def aucs(histories: Mapping[str, Rows]) -> Figure | None:
    """Draws the AUC of finding wrong labels over epochs (RMNW-Net table 3); None if not measured."""
    title = "How well wrong labels are told from right ones"
    figure, axes = new_axes("epoch", "AUC of wrong labels (0.5 = chance)", title)
    styles = {"weight": "-", "mean_weight": ":", "loss": "--"}
    drawn = False
    for name, rows, colour in coloured(histories):
        for score, shown in SCORES.items():
            label = f"{name}, by {shown}"
            line_style = styles[score]
            drawn |= _line(axes, rows, f"auc_{score}", color=colour, ls=line_style, lw=1.8, label=label)
    if not drawn:
        return None
    over_epochs(axes)
    axes.axhline(0.5, color=GREY, lw=1, zorder=0)
    axes.set_ylim(top=1.01)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    return figure


def weight_change(
    histories: Mapping[str, tuple[np.ndarray, np.ndarray | None]], seed: int = 0
) -> Figure:
    """Draws the change of weights between adjacent epochs, mean and deviation (MW-Net figure 6).

    Of ten examples with wrong labels, and ten with right ones; of ten examples where the truth is not
    known. Methods lie side by side, on one scale.

    Args:
        histories: method -> weights ``[E, N]``, times batch size, NaN where an example was not seen; and
            which labels are wrong, bool ``[N]``, or None.
        seed: of the draw of the examples, the same for each method.
    """
    figure = Figure(figsize=(1.5 + 4.5 * len(histories), 4.0), layout="constrained")
    panels = figure.subplots(1, len(histories), sharey=True, squeeze=False)[0]
    for axes, (name, (weights, corrupted)) in zip(panels, histories.items(), strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        over_epochs(axes)
        axes.set_title(f"Change of example weights, {name}")
        _changes(axes, weights, corrupted, np.random.default_rng(seed))
    panels[0].set_ylabel("change of weight x batch size")
    style: dict[str, Any] = {"fontsize": 8, "frameon": False, "ncols": 2 * len(histories)}
    handles = list(labelled(figure).values())
    figure.legend(handles=handles, loc="outside lower center", **style)
    return figure


def _changes(
    axes: Axes, weights: np.ndarray, corrupted: np.ndarray | None, rng: np.random.Generator
) -> None:
    every = np.ones(weights.shape[1], bool)
    groups = [("examples", every, UNKNOWN)]
    if corrupted is not None and corrupted.any():
        groups = [("wrong labels", corrupted, WRONG), ("right labels", ~corrupted, RIGHT)]
    epochs = np.arange(2, len(weights) + 1)
    for label, rows, colour in groups:
        known = np.flatnonzero(rows & np.isfinite(weights).all(axis=0))
        if not len(known):
            continue
        picked = rng.choice(known, min(FOLLOWED, len(known)), replace=False)
        change = np.diff(weights[:, picked].astype(float), axis=0)
        mean, spread = change.mean(axis=1), change.std(axis=1)
        style: dict[str, Any] = {"color": colour, "marker": _marker(mean), "ms": 3, "lw": 1.8}
        axes.plot(epochs, mean, label=f"{len(picked)} {label}, mean", **style)
        low, high, label = mean - spread, mean + spread, f"{label}, ± standard deviation"
        axes.fill_between(epochs, low, high, color=colour, alpha=0.2, lw=0, label=label)
    axes.axhline(0, color=GREY, lw=1, zorder=0)


def increased_shares(
    change: np.ndarray, labels: np.ndarray, true_labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes the share of class-level weights omega_i that grew, per class i (GDW table 6).

    Args:
        change: ``[N, K]``, see `Method.class_changes`; NaN rows are left out.
        labels, true_labels: ``[N]``.

    Returns:
        Role of class i for the example -> ``[K]``: "given and true", "given, not true",
        "true, not given", "neither"; NaN where there is no such example.
    """
    seen = np.isfinite(change).all(axis=1)
    grew, classes = change[seen] > 0, np.arange(change.shape[1])
    given = labels[seen][:, None] == classes
    true = true_labels[seen][:, None] == classes
    roles = {
        "given and true": given & true,
        "given, not true": given & ~true,
        "true, not given": true & ~given,
        "neither": ~given & ~true,
    }
    out = {}
    for role, rows in roles.items():
        count = rows.sum(axis=0)
        total = (grew & rows).sum(axis=0)
        out[role] = np.divide(total, count, out=np.full(len(classes), np.nan), where=count > 0)
    return out


def class_weights(shares: Mapping[str, np.ndarray], class_names: Sequence[str], name: str) -> Figure:
    """Draws `increased_shares` as bars, a group for each class."""
    count = len(class_names)
    figure = Figure(figsize=(max(6.0, 0.75 * count + 1.5), 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    width = 0.8 / len(shares)
    for place, (role, values) in enumerate(shares.items()):
        x = np.arange(count) + (place - (len(shares) - 1) / 2) * width
        colour = (BLUE, ORANGE, GREEN, GREY)[place]
        axes.bar(x, 100 * np.nan_to_num(values), width, color=colour, label=role)
    axes.set_xticks(range(count), class_names, rotation=90 if count > 10 else 0, fontsize=8)
    axes.axhline(50, color=GREY, lw=1, ls="--", zorder=0)
    axes.set(xlabel="class i", ylabel="share with increased weight (%)", ylim=(0, 100))
    axes.set_title(f"Class-level weights that grew in the last epoch, {name}", fontsize=11)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=2, title="class i is")
    return figure
