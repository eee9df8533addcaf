"""Pictures of a run, as matplotlib figures without global state."""

from __future__ import annotations

import contextlib
import functools
import io
import pathlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from matplotlib import colormaps, font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from tf_mwnet.figures.colours import (
    RIGHT,
    UNKNOWN,
    WRONG,
    coloured,
)
from tf_mwnet.files import SOFTWARE, write_atomically

# What an SVG file needs not: its head, names that nothing refers to, spaces; and long numbers.
SHORTER = (
    (r"^.*?(?=<svg)", ""), (r"<!--.*?-->", ""), (r"<metadata>.*?</metadata>", ""),
    (r'<g id="[^"]*">', "<g>"), (r" font-family: [^\";]*", ""), (r">\s+<", "><"), (r"\s+", " "),
    (r"(?=</style>)", "text{font-family: DejaVu Sans, sans-serif}"),
)  # fmt: skip
FIRST_EPOCH = 0.6  # in the colour map, whose lighter part is lost on white, and in the dark page
DECIMALS = re.compile(r"(\d\.\d\d)\d+")
# Fonts with Chinese, Japanese, Korean and other letters, of Linux, macOS and Windows.
WIDE_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Micro Hei", "IPAGothic",
    "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Arial Unicode MS", "Yu Gothic",
    "Microsoft YaHei", "Malgun Gothic", "Noto Sans", "Noto Sans Devanagari", "Noto Sans Thai",
)  # fmt: skip


def new_axes(xlabel: str, ylabel: str, title: str) -> tuple[Figure, Axes]:
    """Creates a figure and axes in the style of all pictures."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def over_epochs(axes: Axes) -> None:
    """Makes an x axis one of epochs, which are whole numbers."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def share_limits(figures: Sequence[Figure]) -> None:
    """Gives figures of one kind the same limits, so that they can be compared side by side.

    Axes belong together that have the same label, see `Axes.set_label`; linear scales stay linear.
    """
    groups: dict[Any, list[Axes]] = {}
    for axes in (axes for figure in figures for axes in figure.axes):
        groups.setdefault(axes.get_label(), []).append(axes)
    for members in groups.values():
        lefts, rights = zip(*(axes.get_xlim() for axes in members), strict=True)
        lows, highs = zip(*(axes.get_ylim() for axes in members), strict=True)
        for axes in members:
            axes.set(xlim=(min(lefts), max(rights)), ylim=(min(lows), max(highs)))


def _groups(known: np.ndarray, corrupted: np.ndarray | None) -> list[tuple[str, np.ndarray, str]]:
    """Returns ``(name, rows, colour)`` of each group of examples that is shown separately."""
    if corrupted is None or not corrupted.any():
        return [("all examples", known, UNKNOWN)]
    return [
        ("right label", known & ~corrupted, RIGHT),
        ("wrong label", known & corrupted, WRONG),
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
    density.set_ylabel("examples per bin, last epoch\n(symlog: linear up to 1)")
    handles = list(labelled(figure).values())
    columns = 4 if count == 1 else 8
    figure.legend(handles=handles, fontsize=8, frameon=False, loc="outside lower center", ncols=columns)
    return figure


def labelled(figure: Figure) -> dict[str, Any]:
    """Returns what has a label in any panel, each label once."""
    pairs = [axes.get_legend_handles_labels() for axes in figure.axes]
    return {label: handle for handles, labels in pairs for handle, label in zip(handles, labels)}  # noqa: B905


def _loss_density(
    axes: Axes, losses: np.ndarray, rows: np.ndarray, corrupted: np.ndarray | None, right: float
) -> Axes:
    density = axes.twinx()
    density.set_label("density")
    bins = np.linspace(0, right, 41).tolist()
    for name, part, colour in _groups(rows, corrupted):
        density.hist(losses[part], bins, color=colour, alpha=0.3, label=name, histtype="stepfilled")
    density.set_yscale("symlog", linthresh=1)
    density.yaxis.set_major_formatter("{x:g}")
    density.spines["top"].set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_zorder(density.get_zorder() + 1)
    axes.patch.set_visible(False)
    return density


def _weight_lines(axes: Axes, losses: np.ndarray, curves: Mapping[int, np.ndarray]) -> None:
    epochs = sorted(curves)
    for place, epoch in enumerate(epochs):
        share = place / max(len(epochs) - 1, 1)
        colour = colormaps["viridis"](FIRST_EPOCH * (1 - share))
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
    figure, axes = new_axes(xlabel, "share of examples per bin", title)
    known = np.isfinite(weights)
    top = max(1.5, float(np.quantile(weights[known], 0.995))) if known.any() else 1.5
    bins = np.linspace(0, top, 41).tolist()
    for name, rows, colour in _groups(known, corrupted):
        values = np.clip(weights[rows], 0, top)
        share = np.full(len(values), 1 / max(len(values), 1))
        label = f"{name} (n = {len(values)})"
        style: dict[str, Any] = {"color": colour, "alpha": 0.6, "histtype": "stepfilled"}
        axes.hist(values, bins, weights=share, label=label, **style)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9, frameon=False)
    return figure


def accuracy(histories: Mapping[str, Sequence[Mapping[str, float]]], checked: bool = True) -> Figure:
    """Draws test and training accuracy over epochs (MW-Net figure 7).

    Args:
        histories: method -> rows of ``metrics.csv``.
        checked: whether the test labels may be taken to be right; else both are agreements.
    """
    title = "Test accuracy, and agreement with the given training labels"
    figure, axes = new_axes("epoch", "accuracy (%)", title)
    if not checked:
        axes.set_title("Agreement with given labels, which nobody has checked", fontsize=11)
        axes.set_ylabel("agreement with given labels (%)")
    for name, rows, colour in coloured(histories):
        epochs = [r["epoch"] for r in rows]
        test = [100 * r["test_accuracy"] for r in rows]
        train = [100 * r["train_accuracy"] for r in rows]
        style: dict[str, Any] = {"color": colour, "marker": "o" if len(rows) < 3 else "", "ms": 3}
        axes.plot(epochs, test, lw=2, label=f"{name}, test", **style)
        axes.plot(epochs, train, lw=1.2, ls="--", label=f"{name}, training", **style)
    over_epochs(axes)
    axes.set_ylim(0, 101)
    axes.legend(fontsize=9, frameon=False, ncols=2, loc="lower right")
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


def svg(figure: Figure) -> bytes:
    """Renders a figure as an SVG file, small: texts stay texts, and coordinates have two decimals."""
    for text in figure.findobj(Text):
        text.set(parse_math=False, family=["DejaVu Sans", "sans-serif"])
    buffer = io.StringIO()
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": SOFTWARE, "path.simplify_threshold": 0.2}
    with rc_context(style):
        figure.savefig(buffer, format="svg", metadata={"Creator": SOFTWARE, "Date": None})
    content = buffer.getvalue()
    for pattern, short in SHORTER:
        content = re.sub(pattern, short, content, flags=re.S)
    # Only in tags: texts are what the axes say.
    rounded = re.sub(r"<[^>]*>", lambda tag: DECIMALS.sub(r"\1", tag[0]), content)
    return rounded.strip().encode()


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
