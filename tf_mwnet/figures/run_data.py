"""Reads a run folder for pictures and pages."""

from __future__ import annotations

import dataclasses
import glob
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from absl import logging

from tf_mwnet.config import DEFAULTS
from tf_mwnet.errors import UserError
from tf_mwnet.files import load_arrays, read_json, reading
from tf_mwnet.methods import METHODS, options
from tf_mwnet.runs import saved_run
from tf_mwnet.runs.saved_run import CONFIG, read_metrics, with_options

T = TypeVar("T")
PREDICTIONS = "test_predictions.npz"


@dataclasses.dataclass(frozen=True)
class RunData:
    """The files of a run.

    Attributes:
        folder: of the run.
        config: field -> value, as in ``config.json``.
        labels: the arrays of ``split.npz``.
        class_names: K names.
        truth_known: whether the true labels of the training set are known.
        test_checked: whether those of the test set may be taken to be right.
        methods: names, in the order of training.
        histories: method -> rows of ``metrics.csv``.
    """

    folder: pathlib.Path
    config: Mapping[str, Any]
    labels: Mapping[str, np.ndarray]
    class_names: tuple[str, ...]
    truth_known: bool
    methods: tuple[str, ...]
    histories: Mapping[str, Sequence[Mapping[str, float]]]
    test_checked: bool = True

    def records(self, method: str) -> list[pathlib.Path]:
        """Returns the files with the record of each epoch, in order."""
        return sorted((self.folder / method / "examples").glob("epoch_*.npz"))

    def trained_on(self, method: str, field: str) -> np.ndarray:
        """Returns "y", "true_y" or "ids", ``[N]``, of the examples that a method was trained on."""
        sets = {"train": ("train",), "meta": ("meta",), "both": ("train", "meta")}
        return np.concatenate([self.labels[f"{s}_{field}"] for s in sets[METHODS[method].trains_on]])

    def corrupted(self, method: str) -> np.ndarray | None:
        """Tells which of these labels are wrong, bool ``[N]``; None if the truth is unknown."""
        if not self.truth_known:
            return None
        return self.trained_on(method, "y") != self.trained_on(method, "true_y")

    def meta_loss(self, method: str) -> str:
        """Returns the name of the loss that a method's weights are learned from; "" if it has none."""
        kind, asked = METHODS[method], self.config["meta_loss"]
        if asked == "auto":
            asked = self.config["method_options"].get(method, {}).get("meta_loss")
        return str(asked or options.default_of(kind, "meta_loss") if kind.learns else "")

    def matrices(self) -> dict[str, np.ndarray]:
        """Reads the noise transition matrices: requested, realised, and estimated by audits.

        One that the labels of neighbours give is the same for each method, and is there once.
        """
        files = {
            "requested": self.folder / "transition_matrix.csv",
            "realised": self.folder / "realised_matrix.csv",
        }
        for method in self.methods:
            place = self.folder / method / "audit"
            said = read_json(place / "audit.json") if (place / "audit.json").is_file() else {}
            files[f"estimated ({said.get('estimated_from', method)})"] = place / "estimated_matrix.csv"
        return {k: np.loadtxt(p, delimiter=",") for k, p in files.items() if p.is_file()}

    def predictions(self, method: str) -> np.ndarray | None:
        """Reads the predicted classes of the test set, int ``[n]``; None if not kept."""
        path = self.folder / method / PREDICTIONS
        return load_arrays(path)["predicted"] if path.is_file() else None


def read(folder: pathlib.Path) -> RunData:
    """Reads a run folder whose methods are trained.

    Raises:
        UserError: it holds no run, or its files are damaged.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(f"'{folder}' holds no run; allowed: run folders")
    config, labels = read_json(folder / CONFIG), saved_run.split_arrays(folder)
    with reading(folder / CONFIG):
        config = DEFAULTS | with_options(config)
        methods = [m for m in (config["compare"], config["method"]) if m]
    names, known = saved_run.data_facts(folder, labels)
    histories = {m: read_metrics(folder / m / "metrics.csv") for m in methods}
    histories = {m: rows for m, rows in histories.items() if rows}
    if (folder / saved_run.RESULT).is_file():
        for name in methods:
            if name not in histories and name in saved_run.results(folder)["methods"]:
                path = folder / name / "metrics.csv"
                raise UserError(f"'{path}' is not there or empty; allowed: as the run wrote it")
    if not histories:
        raise UserError(f"'{folder}' has no metrics; allowed: a run whose methods are trained")
    checked = saved_run.is_test_checked(folder, config["dataset"], known)
    return RunData(folder, config, labels, names, known, tuple(histories), histories, checked)


def matching(patterns: Iterable[str]) -> list[pathlib.Path]:
    """Finds the folders that match patterns, sorted; each has a name, also "." and "a/.."."""
    paths = [pathlib.Path(p) for pattern in patterns for p in glob.glob(pattern)]
    named = {p if p.name not in ("", "..") else p.resolve() for p in paths if p.is_dir()}
    return sorted(named)


def each(folders: Iterable[pathlib.Path], take: Callable[[pathlib.Path], T]) -> list[T]:
    """Calls a function with each run's folder; logs the damaged runs, which are left out.

    Raises:
        UserError: none is left; it is the first one's.
    """
    taken: list[T] = []
    damaged: list[UserError] = []
    for folder in folders:
        try:
            taken.append(take(folder))
        except UserError as error:
            damaged.append(error)
    if damaged and not taken:
        raise damaged[0]
    for reason in damaged:
        logging.warning("left out: %s", reason)
    return taken


def finished(patterns: str) -> list[pathlib.Path]:
    """Finds the finished runs that match patterns between commas; logs the unfinished ones.

    Raises:
        UserError: none matches.
    """
    names = [p.strip() for p in patterns.split(",") if p.strip()]
    folders = matching(names)
    done = [f for f in folders if (f / saved_run.RESULT).is_file()]
    for other in sorted(set(folders) - set(done)):
        logging.info("left out: '%s' holds no finished run", other)
    if not done:
        raise UserError(f"no finished run matches '{patterns}'; allowed: --runs='runs/*' or the like")
    names = [f.name for f in done]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UserError(f"two runs are called '{twice}'; allowed: run folders of different names")
    return done
