"""Pictures of square matrices over classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NAMED, NUMBERED = 20, 12  # at most so many classes are named, and have numbers in their cells


def confusion(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts ``[K, K]``, row = true class, column = predicted class."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (true, predicted), 1)
    return counts


def draw(
    panels: Mapping[str, np.ndarray], class_names: Sequence[str], xlabel: str, ylabel: str
) -> Figure:
    """Matrices side by side, rows as shares in percent (MW-Net figures 3 and 8-10).

    Args:
        panels: title -> ``[K, K]``, probabilities or counts; a row of zeros stays empty.
        class_names: K names, written where they are few.
        xlabel, ylabel: what columns and rows are.
    """
    count = len(class_names)
    side = 4.4 if count <= NUMBERED else 4.0
    figure = Figure(figsize=(side * len(panels) + 1.0, side + 0.4), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, matrix) in zip(row, panels.items(), strict=True):
        total = matrix.sum(axis=1, keepdims=True)
        share = 100 * np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
        shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        axes.set_title(title, fontsize=11)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if count <= NAMED:
            axes.set_xticks(range(count), class_names, rotation=90, fontsize=8)
            axes.set_yticks(range(count), class_names, fontsize=8)
        if count <= NUMBERED:
            _numbers(axes, share)
    figure.colorbar(shown, ax=figure.axes, label="share of the row (%)", shrink=0.85)
    return figure


def _numbers(axes: Axes, share: np.ndarray) -> None:
    for i, j in zip(*np.nonzero(share >= 0.5), strict=True):
        colour = "white" if share[i, j] > 55 else "black"
        axes.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=7, color=colour)
