"""One self-contained HTML page about runs, and its parts as PNG and CSV files."""

from __future__ import annotations

import dataclasses
import importlib.resources
import pathlib
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tf_mwnet import __version__
from tf_mwnet.errors import UserError
from tf_mwnet.figures import plots
from tf_mwnet.figures.tables import MISSING, small
from tf_mwnet.files import SOFTWARE, check_folder, holds_files, write_atomically, write_frame

PAGE = "index.html"
WIDE = 9  # inches; taller pictures hold many small ones
ISSUES = 200  # rows of label issues that the page shows; all are in the CSV file
DIGITS = {"seconds": 1}  # at most so many decimals
EXAMPLES = 18  # pictures of examples that are seen at once; the others unfold
COLUMNS = 3  # of pictures side by side, at most
CHOICES = 40  # at most so many values of a column can be chosen from
SAFE = " !$&'()*+,-./:;=?@[]^_`{|}~"  # what may stand in the address of an SVG picture


@dataclasses.dataclass(frozen=True)
class Image:
    """A picture in the page.

    Attributes:
        kind: what it shows, the same for all methods and runs.
        title: what it shows, and where such a picture was published.
        method: whose it is; "" for one of all methods.
        source: its SVG as a data URL; each is in the page once.
        path: of its PNG file, relative to the page.
        alt: what is seen, in words.
        wide: whether it needs the page's whole width.
        caption: below it; its method and title by default.
    """

    kind: str
    title: str
    method: str
    source: str
    path: str
    alt: str
    wide: bool = False
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Example:
    """A training image in the page.

    Attributes:
        anchor: its name in the page.
        rank: from 1, the worst.
        source: the image as a data URL.
        name: of the file.
        given, suggested: class names.
        quality: of the label, as shown.
        issue: whether the label is taken to be wrong.
    """

    anchor: str
    rank: int
    source: str
    name: str
    given: str
    suggested: str
    quality: str
    issue: bool


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in the page, sorted by a click on a header.

    Attributes:
        caption: above it.
        header: names of the columns.
        rows: cells as shown.
        path: of its CSV file, relative to the page; "" for none.
        numbers: which columns are numbers, set to the right.
        choices: number of a column -> values that rows can be chosen by; with any, rows can be searched.
        anchors: of the picture of each of the first rows, to which its first cell links.
        note: below it.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    path: str = ""
    numbers: Sequence[bool] = ()
    choices: Mapping[int, Sequence[str]] = dataclasses.field(default_factory=dict)
    anchors: Sequence[str] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """Pictures of one kind, side by side."""

    title: str
    images: Sequence[Image]


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: a run, or several side by side."""

    title: str
    lines: Sequence[str]
    tables: Sequence[Table]
    images: Sequence[Image]
    examples: Sequence[Example] = ()
    rows: Sequence[Row] = ()


def image(
    folder: pathlib.Path, place: str, kind: str, title: str, figure: Figure, alt: str = "",
    method: str = "",
) -> Image:  # fmt: skip
    """Writes a figure as ``folder/place/name.png`` and returns it for the page.

    Args:
        folder: of the page.
        place: folder of the file, in that of the page.
        kind, title, method, alt: see `Image`; the title stands for a missing ``alt``.
        figure: the figure.
    """
    name = f"{kind}_{method}" if method else kind
    plots.save(figure, folder / place / f"{name}.png")
    source = "data:image/svg+xml," + urllib.parse.quote(plots.svg(figure), safe=SAFE)
    width, height = figure.get_size_inches()
    wide = width > 1.9 * height or max(width, height) > WIDE
    caption = f"{method}: {title}" if method else title
    return Image(kind, title, method, source, f"{place}/{name}.png", alt or title, wide, caption)


def table(
    folder: pathlib.Path, path: str, caption: str, frame: pd.DataFrame, limit: int = 0,
    choose: Sequence[str] = (), anchors: Sequence[str] = (), show: Mapping[str, str] | None = None,
    note: str = "",
) -> Table:  # fmt: skip
    """Writes a frame as ``folder/path`` and returns its first rows for the page.

    Args:
        folder: of the page.
        path: of the file.
        caption: above the table.
        frame: the numbers; those of a column are shown with the same digits.
        limit: rows that are shown; 0 for all.
        choose: columns whose values rows can be chosen by, where these are few.
        anchors: see `Table`; the rows are numbered then.
        show: columns that are shown, in this order, and their headers; all by default.
        note: below the table.
    """
    write_frame(folder / path, frame)
    show = show or {str(name): str(name) for name in frame}
    shown = (frame.head(limit) if limit else frame)[list(show)]
    if anchors:
        shown = shown.copy()
        shown.insert(0, "rank", range(1, len(shown) + 1))
    columns = [_cells(shown[name]) for name in shown]
    values = {i: sorted(set(columns[i])) for i, name in enumerate(shown) if name in choose}
    values = {i: found for i, found in values.items() if 1 < len(found) <= CHOICES}
    return Table(
        caption=caption,
        header=[show.get(name, name).replace("_", " ") for name in shown],
        rows=list(zip(*columns, strict=True)),
        path=path,
        numbers=[_is_number(shown[name]) for name in shown],
        choices=values,
        anchors=anchors,
        note=note,
    )


def _is_number(column: pd.Series) -> bool:
    if pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column):  # as "90.6 ± 3.1"
        return all(re.fullmatch(r"[-\d.± ]+", str(value)) for value in column) and len(column) > 0
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _cells(column: pd.Series) -> list[str]:
    """Formats the cells of a column: floats with the same decimals, four digits for the largest."""
    if pd.api.types.is_bool_dtype(column):
        return ["yes" if value else "no" for value in column]
    if not pd.api.types.is_float_dtype(column):
        return [MISSING if _is_missing(value) else str(value) for value in column]
    largest = float(np.nanmax(np.abs(column))) if column.notna().any() else 0.0
    digits = int(np.clip(3 - np.floor(np.log10(max(largest, 1e-9))), 0, 3))
    digits = 2 if 100 <= largest < 1000 else digits  # percent, up to 100.00
    digits = min(digits, DIGITS.get(str(column.name), digits))
    return [MISSING if pd.isna(value) else small(value, digits) for value in column]


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and pd.isna(value))


def is_ours(folder: pathlib.Path) -> bool:
    """Tells whether a folder has a page that `write` has written."""
    path = folder / PAGE
    return path.is_file() and f"Made by {SOFTWARE}".encode() in path.read_bytes()


def check(name: str, folder: pathlib.Path) -> None:
    """Raises ``UserError`` where a folder for a page is a file, or holds files that are no report.

    Args:
        name: of the flag, for the message.
        folder: of the page.
    """
    check_folder(name, folder)
    if holds_files(folder, started=PAGE) and not is_ours(folder):
        raise UserError(f"{name} '{folder}' holds files that are no report; allowed: a new folder")


def write(
    folder: pathlib.Path, title: str, sections: Sequence[Section], refresh: int = 0
) -> pathlib.Path:
    """Writes the page, which needs no other file and no network; returns its path.

    Args:
        folder: of the page.
        title: of the page.
        sections: its parts.
        refresh: seconds after which a browser loads it again; 0 for never.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    parts = importlib.resources.files("tf_mwnet.reports")
    texts = {
        name: parts.joinpath(f"page.{name}").read_text("utf-8") for name in ("html.j2", "css", "js")
    }
    page = environment.from_string(texts["html.j2"]).render(
        title=title,
        sections=sections,
        version=__version__,
        css=texts["css"],
        script=texts["js"],
        refresh=refresh,
        at_once=EXAMPLES,
        columns=COLUMNS,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAGE, lambda file: file.write(page), mode="w")
    return folder / PAGE
