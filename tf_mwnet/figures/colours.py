"""Colours of methods and of labels, the same in all pictures."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from typing import TypeVar

from matplotlib import colors

from tf_mwnet.methods import METHODS

# Okabe and Ito's palette, which works for all kinds of colour vision and in print.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7F7F7F"
PURPLE, SKY, YELLOW = "#CC79A7", "#56B4E9", "#E69F00"
# Of labels; no method has these.
RIGHT, WRONG, UNKNOWN = BLUE, ORANGE, GREY
PLAIN = "erm"
SERIES = (GREY, BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW)  # of what is neither
# Of the first methods of the table but plain training; the others get hues between.
FIRST = (GREEN, PURPLE, "#7A5195", SKY, YELLOW, "#882255", "#44AA99", "#999933")
TURN, LEVELS = 0.618034, (0.42, 0.56, 0.34)
T = TypeVar("T")


def _table() -> dict[str, str]:
    names = [name for name in METHODS if name != PLAIN]
    found = {PLAIN: GREY}
    for place, name in enumerate(names):
        later = place - len(FIRST)
        rgb = colorsys.hls_to_rgb(later * TURN % 1, LEVELS[later % len(LEVELS)], 0.6)
        found[name] = FIRST[place] if later < 0 else colors.to_hex(rgb)
    return found


TABLE = _table()


def of_method(row: str) -> str:
    """Returns the colour of a method: the same for "gdw", "gdw+FT" and "gdw --eta=10"."""
    for end in (" ", "+", ","):
        row = row.partition(end)[0]
    return TABLE.get(row, GREY)  # a method that was added outside the library


def coloured(lines: Mapping[str, T]) -> list[tuple[str, T, str]]:
    """Returns ``(name, value, colour)`` of each line; variants of a method are lighter."""
    seen: dict[str, int] = {}
    out = []
    for name, value in lines.items():
        colour = of_method(name)
        place = seen[colour] = seen.get(colour, -1) + 1
        light = 1 - 0.62**place
        red, green, blue = ((1 - light) * part + light for part in colors.to_rgb(colour))
        out.append((name, value, colors.to_hex((red, green, blue))))
    return out
