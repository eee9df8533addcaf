"""Pictures of square matrices over classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NUMBERED = 12  # at most so many classes have their shares written in the cells
SHORT = 12  # characters; classes with longer names, or more classes, are numbered along the columns
NAMED = 120  # more classes have no names: the rows would be too thin
ROW, LETTER = 0.17, 0.065  # inches


def confusion(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts ``[K, K]``, row = true class, column = predicted class."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (true, predicted), 1)
    return counts


def draw(
    panels: Mapping[str, np.ndarray], class_names: Sequence[str], xlabel: str, ylabel: str
) -> Figure:
    """Matrices side by side, rows as shares in percent (MW-Net figures 3 and 8-10).

    Names of classes are written once, beside the rows; where they are many or long, each has a number,
    which stands below its column.

    Args:
        panels: title -> ``[K, K]``, probabilities or counts; a row of zeros stays empty.
        class_names: K names.
        xlabel, ylabel: what columns and rows are.
    """
    count, longest = len(class_names), max(map(len, class_names), default=0)
    side = max(3.6, ROW * min(count, NAMED) + 0.4)
    width = (side + 0.2) * len(panels) + 0.9 + LETTER * min(longest + 4, 90)
    figure = Figure(figsize=(width, side + 0.9), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (title, matrix) in zip(row, panels.items(), strict=True):
        total = matrix.sum(axis=1, keepdims=True)
        share = 100 * np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
        shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=100, interpolation="none")
        axes.set_title(title, fontsize=10, wrap=True)
        axes.set_xlabel(xlabel)
        _name(axes, class_names)
        if count <= NUMBERED:
            _numbers(axes, share)
    row[0].set_ylabel(ylabel)
    figure.colorbar(shown, ax=figure.axes, label="share of the row (%)", shrink=0.85)
    return figure


def _name(axes: Axes, names: Sequence[str]) -> None:
    """Writes the classes beside the rows and below the columns."""
    count = len(names)
    if count > NAMED:
        axes.set(xticks=[], yticks=[])
        return
    size = 8 if count <= 20 else 7
    if count > NUMBERED or max(map(len, names)) > SHORT:
        step = max(1, -(-count // 40))  # room for a number of two digits
        axes.set_xticks(range(0, count, step), [str(i + 1) for i in range(0, count, step)], fontsize=6)
        axes.set_yticks(range(count), [f"{name}  {i}" for i, name in enumerate(names, 1)], fontsize=size)
    else:
        axes.set_xticks(range(count), names, rotation=90, fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)


def _numbers(axes: Axes, share: np.ndarray) -> None:
    for i, j in zip(*np.nonzero(share >= 0.5), strict=True):
        colour = "white" if share[i, j] > 55 else "black"
        axes.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=7, color=colour)
