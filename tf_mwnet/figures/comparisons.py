"""Pictures of several runs and methods in one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tf_mwnet.figures.colours import BLUE, GREY, PLAIN, coloured, of_method
from tf_mwnet.figures.plots import new_axes

MARKERS = "osD^vP"


def errors(lines: Mapping[str, Mapping[float, Sequence[float]]], xlabel: str) -> Figure:
    """Draws test error against a setting, mean and deviation over runs (L2RW figures 2, 4, 5).

    Args:
        lines: method -> value of the setting -> test error in percent of each run.
        xlabel: name of the setting; its axis is logarithmic where the values span a factor of ten.
    """
    title = "Test error at the last epoch, mean and standard deviation over seeds"
    figure, axes = new_axes(xlabel, "test error (%)", title)
    levels = sorted({x for line in lines.values() for x in line})
    markers = itertools.cycle(MARKERS)
    for name, line, colour in coloured(lines):
        marker = next(markers)
        x = sorted(line)
        means = [float(np.mean(line[v])) for v in x]
        spread = [float(np.std(line[v], ddof=1)) if len(line[v]) > 1 else np.nan for v in x]
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
    reference: str = PLAIN,
    xlabel: str = "test accuracy at the last epoch (%)",
) -> Figure:
    """Draws the test accuracy of many methods, a panel per setting, all on one scale.

    A dashed line marks plain training; methods below it have an open marker, and the legend says so.

    Args:
        panels: setting -> method -> test accuracy in percent of each run.
        reference: the method whose mean is drawn as a line.
        xlabel: what the numbers are, of which mean and standard deviation over seeds are drawn.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    size = (max(5.0, 3.0 * len(panels) + 1.4), 0.19 * len(names) + 1.7)
    figure = Figure(figsize=size, layout="constrained")
    row = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    below_any = False
    for axes, (setting, panel) in zip(row, panels.items(), strict=True):
        plain = np.mean(panel[reference]) if reference in panel else -np.inf
        for place, name in enumerate(names):
            if name not in panel:
                continue
            mean, values = np.mean(panel[name]), panel[name]
            spread = np.std(values, ddof=1) if len(values) > 1 else np.nan
            style: dict[str, Any] = {"color": of_method(name), "marker": "o", "ms": 5, "capsize": 3}
            if mean < plain:
                style["mfc"], below_any = "white", True
            axes.errorbar(mean, place, xerr=spread, **style)
        if reference in panel:
            axes.axvline(plain, color=GREY, lw=1, ls="--", zorder=0)
        axes.set_title(setting, fontsize=11)
        axes.grid(axis="y", lw=0.4, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    row[0].set_yticks(range(len(names)), names, fontsize=8)
    row[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(f"{xlabel}\nmean and standard deviation over seeds", fontsize=9)
    if any(reference in panel for panel in panels.values()):
        line = Line2D([], [], color=GREY, lw=1, ls="--", label=f"mean of {reference}")
        below = Line2D([], [], color=GREY, marker="o", mfc="white", ls="", label="below it")
        handles = [line, below] if below_any else [line]
        figure.legend(handles=handles, fontsize=8, frameon=False, loc="outside upper right", ncols=2)
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
