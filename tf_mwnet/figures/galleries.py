"""Pictures of images with their labels."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tf_mwnet.figures.plots import GREY, ORANGE

ACROSS = 8
CAPTION = 17  # characters of a line


def worst_labels(
    images: np.ndarray,
    given: Sequence[str],
    suggested: Sequence[str],
    quality: Sequence[float],
    issue: Sequence[bool],
    title: str,
) -> Figure:
    """Images with given and suggested labels, in the order given; issues have a coloured frame.

    Args:
        images: ``[n, H, W, C]``, any range of values; shown from their least to their largest.
        given, suggested: class names, ``[n]``.
        quality: of each label, 0 to 1.
        issue: bool ``[n]``.
        title: above the picture.
    """
    down = -(-len(images) // ACROSS)
    figure = Figure(figsize=(1.35 * ACROSS, 1.78 * down + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(down, ACROSS, squeeze=False).reshape(-1)
    low, high = float(images.min()), float(images.max())
    for place, axes in enumerate(grid):
        axes.set(xticks=[], yticks=[])
        if place >= len(images):
            axes.set_axis_off()
            continue
        shown = (images[place].astype(float) - low) / max(high - low, 1e-9)
        axes.imshow(shown if shown.shape[-1] == 3 else shown[..., 0], cmap="gray", vmin=0, vmax=1)
        for spine in axes.spines.values():
            spine.set(color=ORANGE if issue[place] else GREY, linewidth=2.5 if issue[place] else 1)
        axes.set_title(f"given {_short(given[place])}", fontsize=7, pad=3)
        text = f"suggested {_short(suggested[place])}\nquality {quality[place]:.2f}"
        axes.set_xlabel(text, fontsize=7, labelpad=2)
    return figure


def _short(name: str) -> str:
    return textwrap.shorten(str(name), CAPTION, placeholder="…")
