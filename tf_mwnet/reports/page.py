"""One self-contained HTML page about runs, and its parts as PNG and CSV files."""

from __future__ import annotations

import base64
import dataclasses
import functools
import importlib.resources
import pathlib
from collections.abc import Mapping, Sequence
from typing import IO, Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from tf_mwnet import __version__
from tf_mwnet.config import ABOUT_THE_FOLDER, DEFAULTS
from tf_mwnet.export.saved_models import without_folders
from tf_mwnet.figures import pictures, plots
from tf_mwnet.figures.run_data import RunData
from tf_mwnet.figures.tables import SCORES
from tf_mwnet.files import SOFTWARE, write_atomically, write_frame
from tf_mwnet.methods import METHODS, spelled

PAGE = "index.html"
WIDE = 9  # inches; taller pictures hold many small ones
ISSUES = 200  # rows of label issues that the page shows; all are in the CSV file


@dataclasses.dataclass(frozen=True)
class Image:
    """A picture in the page.

    Attributes:
        name: of its file, without an ending.
        caption: below it.
        source: its PNG as a data URL.
        path: of its PNG file, relative to the page.
        wide: whether it needs the page's whole width.
    """

    name: str
    caption: str
    source: str
    path: str
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in the page, sorted by a click on a header.

    Attributes:
        caption: above it.
        header: names of the columns.
        rows: cells as shown.
        path: of its CSV file, relative to the page; "" for none.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    path: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: a run, or several side by side."""

    title: str
    lines: Sequence[str]
    tables: Sequence[Table]
    images: Sequence[Image]
    side_by_side: int = 0


def image(folder: pathlib.Path, place: str, name: str, caption: str, figure: Figure) -> Image:
    """Writes a figure as ``folder/place/name.png`` and returns it for the page."""
    content = plots.save(figure, folder / place / f"{name}.png")
    source = "data:image/png;base64," + base64.b64encode(content).decode()
    width, height = figure.get_size_inches()
    wide = width > 1.9 * height or height > WIDE
    return Image(name, caption, source, f"{place}/{name}.png", wide)


def table(folder: pathlib.Path, path: str, caption: str, frame: pd.DataFrame, limit: int = 0) -> Table:
    """Writes a frame as ``folder/path`` and returns its first rows for the page."""
    write_frame(folder / path, frame)
    shown = frame.head(limit) if limit else frame
    rows = [[_cell(value) for value in row] for row in shown.itertuples(index=False)]
    return Table(caption, [c.replace("_", " ") for c in frame.columns], rows, path)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4g}"
    return str(value)


def results(run: RunData, summaries: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Makes a row per method: test accuracy in percent, AUC of finding wrong labels."""
    rows = []
    for method, summary in summaries.items():
        row: dict[str, Any] = {"run": run.folder.name, "method": method}
        for key, name in (("last", "last"), ("mean_last_5", "mean of last 5"), ("best", "best epoch")):
            row[f"{name}, %"] = 100 * summary[key] if key in summary else float("nan")
        for score, name in SCORES.items():
            row[f"AUC by {name}"] = summary.get(f"auc_{score}", float("nan"))
        rows.append(row | {"seconds": summary.get("seconds", float("nan"))})
    return pd.DataFrame(rows)


def changed_settings(config: Mapping[str, Any]) -> list[str]:
    """Lists ``name=value`` of the fields of a configuration that are not at their defaults."""
    hidden = (*ABOUT_THE_FOLDER, "data_dir", "cache_dir", "method_options")
    changed = []
    for name, value in config.items():
        if name in ("method", "compare") and value in METHODS:
            value = spelled(value, config.get("method_options", {}).get(value, {}))
        default = DEFAULTS.get(name)
        default = list(default) if isinstance(default, tuple) else default
        if value != default and name not in hidden:
            shown = ",".join(map(str, value)) if isinstance(value, list) else without_folders(value)
            changed.append(f"{name}={shown}")
    return changed


def of_run(
    folder: pathlib.Path, run: RunData, summaries: Mapping[str, Mapping[str, float]],
    audit: tuple[list[str], pd.DataFrame, Any] | None,
) -> Section:  # fmt: skip
    """Makes the section of a run, and writes its parts below ``folder``.

    Args:
        folder: of the page.
        run: see `run_data.read`.
        summaries: method -> see `tables.summary`.
        audit: lines about the labels, the table of them, and a figure of the worst or None; None
            without an audit.
    """
    place = run.folder.name
    frame = results(run, summaries).drop(columns="run").dropna(axis=1, how="all")
    tables = [table(folder, f"{place}/results.csv", "Results", frame)]
    for method, rows in run.histories.items():
        path = folder / place / f"metrics_{method}.csv"
        content = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode()
        write_atomically(path, functools.partial(_write, content))
    images = [image(folder, place, p.name, p.caption, p.figure) for p in pictures.of_run(run)]
    lines = ["Settings that are not at their defaults: " + ", ".join(changed_settings(run.config))]
    if audit is not None:
        about, issues, worst = audit
        lines += about
        caption = f"Labels, worst first (the first {min(ISSUES, len(issues))} of {len(issues)})"
        tables.append(table(folder, f"{place}/label_issues.csv", caption, issues, ISSUES))
        if worst is not None:
            images.append(image(folder, place, "worst", "The labels of lowest quality", worst))
    return Section(place, lines, tables, images)


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def is_ours(folder: pathlib.Path) -> bool:
    """Tells whether a folder has a page that `write` has written."""
    path = folder / PAGE
    return path.is_file() and f"Made by {SOFTWARE}".encode() in path.read_bytes()


def write(folder: pathlib.Path, title: str, sections: Sequence[Section]) -> pathlib.Path:
    """Writes the page, which needs no other file and no network; returns its path."""
    text = importlib.resources.files("tf_mwnet.reports").joinpath("page.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(text).render(title=title, sections=sections, version=__version__)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAGE, lambda file: file.write(page), mode="w")
    return folder / PAGE
