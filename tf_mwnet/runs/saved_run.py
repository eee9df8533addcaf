"""Reads what a run has written into its folder."""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_mwnet.config import ABOUT_THE_FOLDER, ABOUT_THE_MACHINES, AFTERWARDS, DEFAULTS, Experiment
from tf_mwnet.data.sources import MEMORY
from tf_mwnet.errors import UserError
from tf_mwnet.files import load_arrays, read_json, reading
from tf_mwnet.methods import METHODS, options
from tf_mwnet.networks.course import Course

CONFIG, RESULT, SPLIT, DATA = "config.json", "result.json", "split.npz", "data.json"
OWN, OWN_FILES = ("folder", "csv", "npz", "records"), (".csv", ".tsv", ".npz")
# Fields and flags of versions before 0.2 that are now options of one method.
FORMER = {
    "zero_mean": "gdw",
    "eta": "gdw",
    "groups": "cmwnet",
    "s_model_init": "s_model",
    "forget_rate": "co_teaching",
}


def exported(run: pathlib.Path, method: str, what: str) -> pathlib.Path:
    """Returns the path of a run's "classifier" or "weight_net" as a SavedModel."""
    return run / method / "saved_models" / what / "1"


def finished(folder: pathlib.Path) -> tuple[Experiment, dict]:
    """Reads the configuration of a finished run, and the summary of each method it trained.

    Raises:
        UserError: there is no finished run, or its files are damaged.
    """
    if not (folder / RESULT).is_file():
        raise UserError(f"'{folder}' holds no finished run; allowed: the folder of one")
    config = saved_experiment(folder / CONFIG)
    return config, results(folder)["methods"]


def results(folder: pathlib.Path) -> dict[str, Any]:
    """Reads ``result.json`` of a finished run: "methods", their summaries, and "noise_rate".

    Raises:
        UserError: the file is damaged.
    """
    path = folder / RESULT
    content: dict[str, Any] = read_json(path)
    with reading(path):
        for summary in content["methods"].values():
            for value in summary.values():
                if not isinstance(value, int | float):
                    raise TypeError(f"{value!r} is no number")
    return content


def split_arrays(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the ids and labels that a run was trained on, see `Splits.labels`.

    Raises:
        UserError: the file is damaged.
    """
    arrays = load_arrays(folder / SPLIT)
    with reading(folder / SPLIT):
        for name in ("train", "test"):
            sizes = {len(arrays[f"{name}_{field}"]) for field in ("ids", "y", "true_y")}
            if len(sizes) > 1 or 0 in sizes or arrays[f"{name}_y"].dtype.kind not in "iu":
                raise ValueError(f"the {name} set has {sorted(sizes)} ids and labels")
    return arrays


def data_facts(folder: pathlib.Path, arrays: dict[str, np.ndarray]) -> tuple[tuple[str, ...], bool]:
    """Returns the class names of a run's data, and whether the true labels are known.

    Args:
        folder: of the run.
        arrays: of its ``split.npz``.
    """
    if (folder / DATA).is_file():
        about = read_json(folder / DATA)
        with reading(folder / DATA):
            classes, known = tuple(about["classes"]), bool(about["truth_known"])
            if not all(isinstance(name, str) for name in classes):
                raise TypeError("a class without a name")
            if len(classes) <= max(int(v.max()) for k, v in arrays.items() if k.endswith("_y")):
                raise ValueError(f"names of {len(classes)} classes")
        return classes, known
    # A run of an early version, which wrote no such file.
    known = bool((arrays["train_y"] != arrays["train_true_y"]).any())
    for card in sorted(folder.glob("*/saved_models/classifier/*/model_card.json")):
        with reading(card):
            return tuple(read_json(card)["classes"]), known
    count = max(int(v.max()) for k, v in arrays.items() if k.endswith("_y")) + 1
    return tuple(map(str, range(count))), known


def is_own(dataset: str) -> bool:
    """Tells own data: which of its labels are right and how large its meta set is only the run knows."""
    return dataset in OWN or dataset.startswith(MEMORY) or pathlib.Path(dataset).suffix in OWN_FILES


def is_test_checked(folder: pathlib.Path, dataset: str, truth_known: bool) -> bool:
    """Tells whether the test labels of a run may be taken to be right, see `types.Splits`.

    Args:
        folder: of the run.
        dataset: of its configuration.
        truth_known: whether the true labels of its training set are known.
    """
    about = read_json(folder / DATA) if (folder / DATA).is_file() else {}
    # Early versions have not noted it: the labels of published sets are taken to be right.
    return bool(about.get("test_checked", truth_known or not is_own(dataset)))


def read_metrics(path: pathlib.Path) -> list[dict[str, float]]:
    """Reads the rows of ``metrics.csv``, none if there is no file; ``epoch`` counts from 1.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file)) or [[]]
        if header and not set(header) >= {"epoch", "test_accuracy"}:
            raise ValueError("no columns 'epoch' and 'test_accuracy'")
        rows = [
            {k: int(v) if k == "epoch" else float(v or "nan") for k, v in zip(header, line, strict=True)}
            for line in lines
        ]
        if [row["epoch"] for row in rows] != sorted({row["epoch"] for row in rows}):
            raise ValueError("epochs out of order")
        if not all(0 <= row["test_accuracy"] <= 1 for row in rows):
            raise ValueError("a test accuracy that is not 0 to 1")
        return rows
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(f"'{path}' cannot be read: {error}; allowed: as the run wrote it") from error


def weight_course(folder: pathlib.Path) -> Course | None:
    """Reads the weight function at the end of each epoch of a run; None if an epoch has none.

    Args:
        folder: with the files ``epoch_*.npz``, see `experiment.example_files`.
    """
    functions = weight_functions(sorted(folder.glob("epoch_*.npz")))
    return None if functions is None else Course(*functions)


def weight_functions(records: Sequence[pathlib.Path]) -> tuple[np.ndarray, np.ndarray] | None:
    """Reads losses ``[P]`` and the weights there in each of E files, ``[E, P]`` or ``[E, P, G]``.

    Returns None if there is no file, or a file without a function.
    """
    files = [load_arrays(path, ("function_loss", "function_weight")) for path in records]
    if not all(files) or not files:
        return None
    with reading(records[0].parent):
        return files[0]["function_loss"], np.stack([arrays["function_weight"] for arrays in files])


def with_options(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the fields of any version's configuration; completes the options of its methods."""
    fields = dict(fields)
    former = {name: fields.pop(name) for name in FORMER if name in fields}
    if not former.get("forget_rate", 1):  # stood for the noise rate
        del former["forget_rate"]
    own = dict(fields.get("method_options", {}))
    for name in (fields.get("compare", ""), fields.get("method", "")):
        if name in METHODS:
            before = {option: v for option, v in former.items() if FORMER[option] == name}
            own[name] = options.filled(METHODS[name], before | dict(own.get(name, {})))
    fields["method_options"] = {name: values for name, values in own.items() if values}
    return fields


def differences(config: Experiment, saved: Mapping[str, Any]) -> list[str]:
    """Returns lines ``name: saved -> now`` for the fields that change what a run computes."""
    before = json.loads(json.dumps(DEFAULTS | with_options(saved)))  # a field may be newer than the run
    now = json.loads(json.dumps(with_options(dataclasses.asdict(config))))
    return [
        f"{k}: {before[k]!r} -> {v!r}"
        for k, v in now.items()
        if k not in ABOUT_THE_FOLDER + ABOUT_THE_MACHINES + AFTERWARDS and before[k] != v
    ]


def saved_experiment(path: pathlib.Path) -> Experiment:
    """Reads the configuration that a run has written, also one of an older version.

    Raises:
        UserError: the file is damaged, or of a newer version.
    """
    content = read_json(path)
    with reading(path):
        given = with_options(content)
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        if unknown := [name for name in fields if name not in DEFAULTS]:
            raise UserError(
                f"'{path}' has the field '{unknown[0]}'; allowed: those of this version's runs"
            )
        return Experiment(**fields)
