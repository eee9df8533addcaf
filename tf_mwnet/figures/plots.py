"""Pictures of a run, as matplotlib figures without global state."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from absl import logging
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from tf_mwnet.files import SOFTWARE, write_atomically

# Okabe and Ito's palette, which works for all kinds of colour vision and in print.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7F7F7F"
PURPLE, SKY, YELLOW = "#CC79A7", "#56B4E9", "#E69F00"
LINE_COLOURS = (GREY, BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW)
MARKERS = "osD^vP"
# Fonts with Chinese, Japanese, Korean and other letters, of Linux, macOS and Windows.
WIDE_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Micro Hei", "IPAGothic",
    "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Arial Unicode MS", "Yu Gothic",
    "Microsoft YaHei", "Malgun Gothic", "Noto Sans", "Noto Sans Devanagari", "Noto Sans Thai",
)  # fmt: skip
T = TypeVar("T")


def coloured(lines: Mapping[str, T]) -> list[tuple[str, T, str]]:
    """Returns ``(name, value, colour)`` of each line; plain training is grey."""
    others = itertools.cycle(LINE_COLOURS[1:])
    return [(k, v, GREY if k == "erm" else next(others)) for k, v in lines.items()]


def new_axes(xlabel: str, ylabel: str, title: str) -> tuple[Figure, Axes]:
    """Creates a figure and axes in the style of all pictures."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _groups(known: np.ndarray, corrupted: np.ndarray | None) -> list[tuple[str, np.ndarray, str]]:
    """Returns ``(name, rows, colour)`` of each group of examples that is shown separately."""
    if corrupted is None or not corrupted.any():
        return [("all examples", known, GREY)]
    return [
        ("right label", known & ~corrupted, BLUE),
        ("wrong label", known & corrupted, ORANGE),
    ]


def weight_function(
    losses: np.ndarray,
    curves: Mapping[int, np.ndarray],
    seen: np.ndarray,
    corrupted: np.ndarray | None = None,
    group: np.ndarray | None = None,
) -> Figure:
    """Draws weight against loss over training, with the density of the losses behind it.

    MW-Net figure 1 d-f. A function with groups of classes gets a panel for each.

    Args:
        losses: ``[n]``, where the function was evaluated, rising.
        curves: epoch -> weight ``[n]``, or ``[n, G]`` for G groups of classes, 0 to 1.
        seen: losses of the training examples in the last epoch, ``[N]``; NaN where not seen.
        corrupted: bool ``[N]``, to show clean and wrong labels apart; None where unknown.
        group: int ``[N]``, the group of each example, for a function with groups.
    """
    known = np.isfinite(seen)
    right = max(2.0, float(np.quantile(seen[known], 0.99)) * 1.1) if known.any() else losses[-1]
    right = min(right, float(losses[-1]))
    count = 1 if group is None else next(iter(curves.values())).shape[1]
    figure = Figure(figsize=(6.0 if count == 1 else 4.2 * count, 4.0), layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for g, axes in enumerate(panels):
        rows = known if group is None else known & (group == g)
        density = _loss_density(axes, np.clip(seen, 0, right), rows, corrupted, right)
        shown = {e: c if group is None else c[:, g] for e, c in curves.items()}
        _weight_lines(axes, losses, shown)
        title = "Learned weight function"
        if group is not None:
            place = {0: " (smallest)", count - 1: " (largest)"}.get(g, "")
            title = f"Classes of group {g + 1} of {count}{place}, {rows.sum()} examples"
        axes.set_title(title, fontsize=11)
        axes.set(xlim=(0, right), ylim=(0, 1.02), xlabel="example loss (cross-entropy, nats)")
    panels[0].set_ylabel("weight")
    density.set_ylabel("examples per bin, last epoch")
    handles = [h for a in (axes, density) for h in a.get_legend_handles_labels()[0]]
    columns = 4 if count == 1 else 8
    figure.legend(handles=handles, fontsize=8, frameon=False, loc="outside lower center", ncols=columns)
    return figure


def _loss_density(
    axes: Axes, losses: np.ndarray, rows: np.ndarray, corrupted: np.ndarray | None, right: float
) -> Axes:
    density = axes.twinx()
    bins = np.linspace(0, right, 41).tolist()
    for name, part, colour in _groups(rows, corrupted):
        density.hist(losses[part], bins, color=colour, alpha=0.3, label=name)
    density.set_yscale("symlog")
    density.spines["top"].set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_zorder(density.get_zorder() + 1)
    axes.patch.set_visible(False)
    return density


def _weight_lines(axes: Axes, losses: np.ndarray, curves: Mapping[int, np.ndarray]) -> None:
    epochs = sorted(curves)
    for place, epoch in enumerate(epochs):
        share = place / max(len(epochs) - 1, 1)
        colour = colormaps["viridis_r"](0.15 + 0.85 * share)
        last = epoch == epochs[-1]
        axes.plot(losses, curves[epoch], color=colour, lw=2.5 if last else 1.2, label=f"epoch {epoch}")


def example_weights(weights: np.ndarray, corrupted: np.ndarray | None, title: str) -> Figure:
    """Draws a histogram of weights of right and wrong labels (MW-Net figure 5, L2RW figure 3).

    Args:
        weights: ``[N]``, weight times batch size, so that 1 is plain training; NaN is left out.
        corrupted: bool ``[N]``, or None where unknown.
        title: above the picture.
    """
    xlabel = "example weight x batch size (1 = plain training)"
    figure, axes = new_axes(xlabel, "share of examples", title)
    known = np.isfinite(weights)
    top = max(1.5, float(np.quantile(weights[known], 0.995))) if known.any() else 1.5
    bins = np.linspace(0, top, 41).tolist()
    for name, rows, colour in _groups(known, corrupted):
        values = np.clip(weights[rows], 0, top)
        share = np.full(len(values), 1 / max(len(values), 1))
        label = f"{name} (n = {len(values)})"
        axes.hist(values, bins, weights=share, color=colour, alpha=0.6, label=label)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9, frameon=False)
    return figure


def accuracy(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Draws test and training accuracy over epochs (MW-Net figure 7).

    Args:
        histories: method -> rows of ``metrics.csv``.
    """
    title = "Test accuracy, and training accuracy on given labels"
    figure, axes = new_axes("epoch", "accuracy (%)", title)
    for name, rows, colour in coloured(histories):
        epochs = [r["epoch"] for r in rows]
        test = [100 * r["test_accuracy"] for r in rows]
        train = [100 * r["train_accuracy"] for r in rows]
        axes.plot(epochs, test, color=colour, lw=2, label=f"{name}, test")
        axes.plot(epochs, train, color=colour, lw=1.2, ls="--", label=f"{name}, training")
    axes.set_ylim(0, 101)
    axes.legend(fontsize=9, frameon=False, ncols=2, loc="lower right")
    return figure


def errors(lines: Mapping[str, Mapping[float, Sequence[float]]], xlabel: str) -> Figure:
    """Draws test error against a setting, mean and deviation over runs (L2RW figures 2, 4, 5).

    Args:
        lines: method -> value of the setting -> test error in percent of each run.
        xlabel: name of the setting; its axis is logarithmic where the values span a factor of ten.
    """
    title = "Test error at the last epoch, mean and deviation over seeds"
    figure, axes = new_axes(xlabel, "test error (%)", title)
    levels = sorted({x for line in lines.values() for x in line})
    markers = itertools.cycle(MARKERS)
    for name, line, colour in coloured(lines):
        marker = next(markers)
        x = sorted(line)
        means = [float(np.mean(line[v])) for v in x]
        spread = [float(np.std(line[v], ddof=1)) if len(line[v]) > 1 else 0.0 for v in x]
        axes.errorbar(x, means, spread, color=colour, marker=marker, capsize=4, lw=2, label=name)
    if levels[0] > 0 and levels[-1] >= 10 * levels[0]:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(levels, [f"{v:g}" for v in levels])
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9, frameon=False)
    return figure


def methods(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    reference: str = "erm",
    xlabel: str = "test accuracy at the last epoch (%), mean and deviation over seeds",
) -> Figure:
    """Draws the test accuracy of many methods, a panel per setting; a line marks plain training.

    Args:
        panels: setting -> method -> test accuracy in percent of each run.
        reference: the method whose mean is drawn as a line.
        xlabel: what the numbers are.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    size = (3.0 * len(panels) + 1.4, 0.19 * len(names) + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (setting, panel) in zip(row, panels.items(), strict=True):
        plain = np.mean(panel[reference]) if reference in panel else np.inf
        for place, name in enumerate(names):
            if name not in panel:
                continue
            mean, values = np.mean(panel[name]), panel[name]
            spread = np.std(values, ddof=1) if len(values) > 1 else 0
            colour = GREY if name == reference else BLUE if mean > plain else ORANGE
            axes.errorbar(mean, place, xerr=spread, color=colour, marker="o", ms=5, capsize=3)
        if reference in panel:
            axes.axvline(plain, color=GREY, lw=1, ls="--", zorder=0)
        axes.set_title(setting, fontsize=11)
        axes.grid(axis="y", lw=0.4, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    row[0].set_yticks(range(len(names)), names, fontsize=8)
    row[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(xlabel, fontsize=9)
    return figure


def step_times(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Bars of the time of a step as a ratio to plain training, with quartiles.

    Args:
        rows: with "mode", "ratio_to_plain", "ratio_low" and "ratio_high".
        title: above the picture.
    """
    figure, axes = new_axes("time of a step / plain training", "", title)
    for place, row in enumerate(rows):
        middle = row["ratio_to_plain"]
        spread = [[middle - row["ratio_low"]], [row["ratio_high"] - middle]]
        axes.barh(place, middle, xerr=spread, color=GREY if place == 0 else BLUE, capsize=3, height=0.6)
        axes.text(row["ratio_high"] + 0.03, place, f" {middle:.2f}", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [str(row["mode"]) for row in rows])
    axes.invert_yaxis()
    axes.axvline(1, color=GREY, lw=1, ls="--", zorder=0)
    return figure


@functools.cache
def _families() -> list[str]:
    """Returns matplotlib's own font, and those installed ones that have what it lacks."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in WIDE_FONTS if name in installed)]


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Renders a figure as a PNG file.

    Texts are drawn as they are: a dollar sign in a class name begins no formula, and a letter that no
    installed font has becomes a box.
    """
    for text in figure.findobj(Text):
        text.set(parse_math=False, family=_families())
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": SOFTWARE})
    return buffer.getvalue()


@contextlib.contextmanager
def not_fatal(what: str) -> Iterator[None]:
    """Turns an error while a picture is drawn into a warning: results do not depend on pictures."""
    try:
        yield
    except Exception as error:  # of matplotlib, or of the disk: the work is done and must not be lost
        logging.warning("%s: not drawn (%s: %s)", what, type(error).__name__, error)


def save(figure: Figure, path: pathlib.Path) -> bytes:
    """Writes the figure as PNG and returns the file's bytes; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = png(figure)
    write_atomically(path, lambda file: file.write(content))
    return content
