"""``python -m tf_mwnet.reports.compare``: compares finished runs over seeds.

Prints test accuracy per setting and method, mean and standard deviation over seeds, and writes the
numbers of each run as CSV and a picture of the error against one setting. Runs are averaged only if
they differ in nothing but their seeds: settings that would be mixed are shown and kept apart.
"""

from __future__ import annotations

import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tf_mwnet.cli import command_flags, console
from tf_mwnet.files import load_arrays, read_json, reading

console.start()

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from tf_mwnet import files  # noqa: E402
from tf_mwnet.cli import outputs  # noqa: E402
from tf_mwnet.config import DEFAULTS  # noqa: E402
from tf_mwnet.errors import UserError, quoted  # noqa: E402
from tf_mwnet.figures import comparisons, plots, run_data, tables  # noqa: E402
from tf_mwnet.reports import matching  # noqa: E402
from tf_mwnet.runs import saved_run  # noqa: E402
from tf_mwnet.runs.saved_run import CONFIG, DATA, RESULT, SPLIT, with_options  # noqa: E402


def read_run(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Reads a row per method of a finished run: configuration, "method", its options, and results.

    "imbalance" is the size of the largest over that of the smallest class of the training set,
    "train_examples" its size, "shape" that of an input (None in runs of early versions); "truth_known"
    and "test_checked" tell whether the labels of the training and the test set may be taken to be right.

    Raises:
        UserError: the folder holds no finished run.
    """
    if not (folder / RESULT).is_file():
        raise UserError(f"'{folder}' holds no finished run; allowed: run folders with {RESULT}")
    saved, result = read_json(folder / CONFIG), saved_run.results(folder)
    with reading(folder / CONFIG):
        config = with_options(saved)
    config |= {k: v for k, v in DEFAULTS.items() if k not in config}  # newer than the run
    with reading(folder / SPLIT):
        sizes = np.bincount(load_arrays(folder / SPLIT, ("train_true_y",))["train_true_y"])
        if not len(sizes):
            raise ValueError("no training labels")
    about = config | {"run": folder.name, "imbalance": round(sizes.max() / sizes.min(), 1)}
    about["train_examples"] = int(sizes.sum())
    facts = read_json(folder / DATA) if (folder / DATA).is_file() else {}
    known = bool(facts.get("truth_known", True))
    checked = saved_run.is_test_checked(folder, config["dataset"], known)
    about |= {"shape": facts.get("shape"), "truth_known": known, "test_checked": checked}
    rows = []
    for name, summary in result["methods"].items():
        own = config["method_options"].get(name.partition("+")[0], {})
        rows.append(about | own | {"method": name} | summary)
    return rows


def noise_is_unknown(row: Mapping[str, Any]) -> bool:
    """Tells whether labels were taken as they came, and may be wrong."""
    return row["noise"] == "none" and not row.get("test_checked", True)


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """Returns a field of a row as it is shown and grouped by; "-" if the method does not need it."""
    if name in ("noise", "noise_rate") and noise_is_unknown(row):
        return "unknown"
    value = matching.settings(row).get(name, "-" if name in matching.OF_METHODS else row.get(name, "-"))
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else value


def apart(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> list[str]:
    """Names the settings in which rows differ that agree in the fields ``by`` and in the method."""
    found: dict[str, None] = {}
    for members in group(rows, by).values():
        every = [matching.settings(row) for row in members]
        names = dict.fromkeys(name for values in every for name in values)
        found |= {n: None for n in names if len({values.get(n) for values in every}) > 1}
    return [name for name in found if name not in by]


def group(rows: Iterable[Mapping[str, Any]], by: Sequence[str]) -> dict[tuple, list[Mapping[str, Any]]]:
    """Groups rows that agree in the fields ``by`` and in the method, in order of ``by``.

    Raises:
        UserError: no row has such a field.
    """
    groups: dict[tuple, list] = {}
    rows = list(rows)
    if missing := [name for name in by if not any(name in row for row in rows)]:
        raise UserError(f"a run has no '{missing[0]}'; allowed: {quoted(rows[0] if rows else ())}")
    for row in rows:
        key = (*(value_of(row, name) for name in by), row["method"])
        groups.setdefault(key, []).append(row)
    return dict(sorted(groups.items(), key=lambda item: tuple(map(_order, item[0][:-1]))))


def _order(value: Any) -> tuple[bool, float, list[Any]]:
    """Returns what values are sorted by: numbers first, and numbers within texts as numbers."""
    if isinstance(value, int | float):
        return False, value, []
    parts = re.split(r"(\d+(?:\.\d+)?)", str(value))
    return True, 0, [float(part) if i % 2 else part for i, part in enumerate(parts)]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Computes mean and sample standard deviation (NaN for one value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def shown(values: Sequence[float], digits: int) -> str:
    """Formats mean and, for several values, deviation: "90.6 ± 3.1"; "" without values."""
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    return with_deviation(mean, deviation if len(values) > 1 else None, digits)


def with_deviation(mean: float, deviation: float | None, digits: int) -> str:
    """ "90.6 ± 3.1", or without a deviation "90.6"."""
    return f"{mean:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def of_seeds(runs: Iterable[Mapping[str, Any]], measure: str) -> list[float]:
    """Returns a measure for each seed, in percent: the mean where a seed was run again."""
    found: dict[tuple, list[float]] = {}
    for row in runs:
        if measure in row:
            found.setdefault(matching.seeds(row), []).append(100 * row[measure])
    return [float(np.mean(values)) for values in found.values()]


def cells(runs: Sequence[Mapping[str, Any]], digits: int = 2) -> list[str]:
    """Formats mean and deviation of each of `tables.MEASURES` over seeds, in percent."""
    return [shown(of_seeds(runs, measure), digits) or tables.MISSING for measure in tables.MEASURES]


def number_of_seeds(runs: Iterable[Mapping[str, Any]]) -> int:
    """Counts distinct seeds."""
    return len({matching.seeds(row) for row in runs})


def table(
    rows: Iterable[Mapping[str, Any]],
    by: Sequence[str],
    published: Callable[[Mapping[str, Any]], str] | None = None,
) -> str:
    """Formats test accuracy in percent, mean and deviation over the seeds of each group.

    Args:
        rows: see `read_run`.
        by: fields that separate groups, in addition to the method, and to settings that differ.
        published: gives the published number for a row, or ""; a column where there is one.
    """
    lines, rows = [], list(rows)
    first = ["dataset"] if len({value_of(row, "dataset") for row in rows}) > 1 else []
    by = list(dict.fromkeys([*first, *by, *apart(rows, [*first, *by])]))
    for key, members in group(rows, by).items():
        line = [*map(str, key), *cells(members), str(number_of_seeds(members))]
        lines.append([*line, published(members[0]) if published else ""])
    header = [*by, "method", *tables.MEASURES.values(), "seeds", "published"]
    if not any(line[-1] for line in lines):
        header, lines = header[:-1], [line[:-1] for line in lines]
    keys = len(by) + 1
    return tables.text(header, lines, range(keys, len(header)), keys=keys)


def write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> None:
    """Writes a line per run and method: the fields ``by``, seeds, and measurements."""
    measured = [f"auc_{s}{end}" for s in tables.SCORES for end in ("", "_best", "_best_epoch")]
    columns = [
        *by,
        "seed",
        "data_seed",
        "method",
        *tables.MEASURES,
        "best_epoch",
        "noise_rate",
        *measured,
    ]
    columns = [c for c in dict.fromkeys(columns) if any(c in r for r in rows)]
    files.write_csv(path, rows, columns)


def draw(rows: Iterable[Mapping[str, Any]], x: str) -> Figure:
    """Draws the last test error against a numeric field, a line per method, see `comparisons.errors`.

    Runs whose test labels nobody has checked have no known error and are left out. Settings that differ
    at the same level make lines of their own.

    Raises:
        UserError: no run is left, or the field is not a number.
    """
    if not (rows := [row for row in rows if row.get("test_checked", True)]):
        raise UserError("no run has test labels that are known to be right; allowed: runs that have")
    also = apart(rows, [x])
    lines: dict[str, dict[float, list[float]]] = {}
    for (level, *others, method), members in group(rows, [x, *also]).items():
        if isinstance(level, (str, bool)):
            raise UserError(f"'{x}' is {level!r} in a run; allowed for x: a field of numbers")
        more = [f"{name}={value}" for name, value in zip(also, others, strict=True) if value != "-"]
        errors = [100 - accuracy for accuracy in of_seeds(members, "last")]
        lines.setdefault(", ".join([method, *more]), {})[level] = errors
    return comparisons.errors(lines, x.replace("_", " "))


def define_flags() -> flags.FlagValues:
    """Defines the command's flags, separate from absl's global ones."""
    values = command_flags.new_flags()
    flags.DEFINE_string("runs", "", "run folders, as patterns between commas", flag_values=values)
    flags.DEFINE_string("by", "noise", "settings to keep apart, between commas", flag_values=values)
    flags.DEFINE_string("csv", "", "file to write the numbers of each run to", flag_values=values)
    flags.DEFINE_string("png", "", "file to draw the test error to, against --x", flag_values=values)
    flags.DEFINE_string("x", "noise_rate", "the setting along the picture's x axis", flag_values=values)
    outputs.define_overwrite(values)
    return values


def run(values: flags.FlagValues) -> str:
    """Does what the flags ask for; returns the table.

    Raises:
        UserError: no run matches, none is finished and whole, or one lacks a field.
    """
    outputs.check(values, csv=("method",), png=outputs.PNG)
    patterns = [p.strip() for p in values.runs.split(",") if p.strip()]
    folders = run_data.matching(patterns)
    if not folders:
        raise UserError(f"no run matches '{values.runs}'; allowed: --runs='runs/*' or the like")
    rows = [row for rows in run_data.each(folders, read_run) for row in rows]
    by = [name.strip() for name in values.by.split(",") if name.strip()]
    text = table(rows, by)
    figure = draw(rows, values.x) if values.png else None
    if values.csv:
        write_csv(pathlib.Path(values.csv), rows, by)
    if figure is not None:
        plots.save(figure, pathlib.Path(values.png))
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 for bad input."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
