"""Pictures of images with their labels."""

from __future__ import annotations

import base64
import io
import pathlib
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tf_mwnet.figures.colours import GREY, WRONG
from tf_mwnet.figures.tables import small

ACROSS = 8
LINE, HEIGHT = 21, 0.115  # characters of a line of text, and its height in inches
SIDE = 96  # pixels of a small copy, at most


def worst_labels(
    images: np.ndarray,
    names: Sequence[str],
    given: Sequence[str],
    suggested: Sequence[str],
    quality: Sequence[float],
    issue: Sequence[bool],
    title: str,
) -> Figure:
    """Images with rank, file name, given and suggested label; issues have a coloured frame.

    Args:
        images: ``[n, H, W, C]``, worst first, any range of values; shown from their least to their
            largest.
        names: of the images, ``[n]``; folders are left out.
        given, suggested: class names, ``[n]``; long ones are wrapped.
        quality: of each label, 0 to 1.
        issue: bool ``[n]``.
        title: above the picture.
    """
    texts = []
    for place, name in enumerate(names):
        lines = _wrapped(f"{place + 1}  {pathlib.PurePath(str(name)).name}")
        lines += _wrapped(f"given {given[place]}") + _wrapped(f"suggested {suggested[place]}")
        texts.append([*lines, f"quality {small(quality[place])}"])
    down, longest = -(-len(images) // ACROSS), max(map(len, texts))
    size = (1.35 * ACROSS, (1.35 + HEIGHT * longest) * down + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(down, ACROSS, squeeze=False).reshape(-1)
    shown = scaled(images)
    for place, axes in enumerate(grid):
        axes.set(xticks=[], yticks=[])
        if place >= len(images):
            axes.set_axis_off()
            continue
        axes.imshow(shown[place].squeeze(), cmap="gray", vmin=0, vmax=255)
        for spine in axes.spines.values():
            spine.set(color=WRONG if issue[place] else GREY, linewidth=2.5 if issue[place] else 1)
        axes.set_xlabel("\n".join(texts[place]), fontsize=6, labelpad=2)
    return figure


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, LINE, break_long_words=True) or [""]


def scaled(images: np.ndarray) -> np.ndarray:
    """Scales images ``[n, H, W, C]`` from their least to their largest value, uint8."""
    low, high = float(images.min()), float(images.max())
    return np.round(255 * (images.astype(float) - low) / max(high - low, 1e-9)).astype(np.uint8)


def data_url(image: np.ndarray) -> str:
    """Returns a small copy of an image, uint8 ``[H, W, C]``, as the address of a WebP picture."""
    picture = Image.fromarray(image.squeeze())
    small = max(picture.size) <= SIDE
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=small, quality=75)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
