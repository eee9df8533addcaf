"""The folder of a run: what may be written into it, what a resumed run checks, how it is read."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from tf_mwnet.config import ABOUT_THE_FOLDER, ABOUT_THE_MACHINES, AFTERWARDS, DEFAULTS, Experiment
from tf_mwnet.data import realised_matrix
from tf_mwnet.data.sources import MEMORY
from tf_mwnet.errors import UserError
from tf_mwnet.files import (
    check_folder,
    holds_files,
    load_arrays,
    locked,
    read_json,
    reading,
    write_atomically,
)
from tf_mwnet.methods import METHODS, options
from tf_mwnet.networks.course import Course
from tf_mwnet.types import Splits

CONFIG, RESULT, SPLIT, DATA = "config.json", "result.json", "split.npz", "data.json"
# Fields that every version has written into a run's configuration.
PROOF = {"dataset", "method", "epochs", "batch_size", "data_seed", "run_dir"}
OWN, OWN_FILES = ("folder", "csv", "npz", "records"), (".csv", ".tsv", ".npz")
# Temporary files and folders of `files.write_atomically` and `files.new_folder`, after a kill.
LEFT_BEHIND = re.compile(r"\..+\.[a-z0-9_]{8}")
# Fields and flags of versions before 0.2 that are now options of one method.
FORMER = {
    "zero_mean": "gdw",
    "eta": "gdw",
    "groups": "cmwnet",
    "s_model_init": "s_model",
    "forget_rate": "co_teaching",
}


def _free_folder(config: Experiment) -> pathlib.Path:
    name = pathlib.Path(config.dataset.removeprefix(MEMORY)).stem.replace("/", "_").replace(":", "_")
    name += "" if config.method == "auto" else f"-{config.method}"
    number = 1
    while (pathlib.Path("runs") / f"{name}-{number}").exists():
        number += 1
    return pathlib.Path("runs") / f"{name}-{number}"


def check(config: Experiment) -> pathlib.Path:
    """Returns the run folder, without changing anything.

    Raises:
        UserError: it holds a run and neither overwrite nor resume is set; it holds something else;
            or there is nothing to resume, or a run of another configuration.
    """
    if not config.run_dir:
        if config.resume or config.overwrite:
            flag = "resume" if config.resume else "overwrite"
            raise UserError(f"{flag} is set without run_dir; allowed: with the folder of a run")
        return _free_folder(config)
    folder = pathlib.Path(config.run_dir)
    check_folder("run_dir", folder, "a new folder, or that of a run")
    ours = (folder / CONFIG).is_file()
    if not ours and holds_files(folder, started=CONFIG):
        raise UserError(f"run_dir '{folder}' holds files that are no run; allowed: a new folder")
    if ours and config.overwrite:
        if not is_run(folder):
            what = f"a damaged {CONFIG}" if _is_damaged(folder) else f"a {CONFIG} of no run"
            raise UserError(f"run_dir '{folder}' holds {what}; allowed: a new folder")
        if pathlib.Path.cwd().is_relative_to(folder.resolve()):
            raise UserError(
                f"run_dir '{folder}' is the working folder; allowed with --overwrite: another"
            )
    if config.resume:
        if not ours:
            raise UserError(f"run_dir '{folder}' holds no run to resume; allowed: the folder of a run")
    elif ours and not config.overwrite:
        finished = (folder / RESULT).is_file()
        state = "a finished run" if finished else "an unfinished run"
        hint = "--overwrite" if finished else "--resume to continue it, --overwrite to replace it"
        raise UserError(f"run_dir '{folder}' holds {state}; allowed: a new folder, or {hint}")
    return folder


def is_run(folder: pathlib.Path) -> bool:
    """Tells whether a folder holds a run, by its configuration; other programs write such files, too."""
    try:
        fields = read_json(folder / CONFIG)
    except UserError:
        return False
    return isinstance(fields, dict) and set(fields) >= PROOF


def _is_damaged(folder: pathlib.Path) -> bool:
    try:
        json.loads((folder / CONFIG).read_bytes())
    except ValueError:
        return True
    return False


@contextlib.contextmanager
def claimed(folder: pathlib.Path, config: Experiment) -> Iterator[pathlib.Path]:
    """Makes a run's folder, keeps other processes out of it, and yields it.

    A run that is to be replaced is kept beside it, as ``.<name>.before``, until the new one is finished;
    if the new one has written nothing, it comes back. What killed processes have left is removed.

    Args:
        folder: from `check`.
        config: the settings as the user gave them; without ``run_dir`` the next free name is taken if
            another process has taken this one.

    Raises:
        UserError: another process is at work in it, or has made a run of it in between.
    """
    while not config.run_dir:
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            folder = _free_folder(config)
    made = not folder.exists() or not config.run_dir
    with contextlib.ExitStack() as stack:
        _lock(stack, folder)
        if config.run_dir:
            check(config)
        whole = folder.resolve()
        aside = whole.with_name(f".{whole.name}.before")
        replacing = config.overwrite and (folder / CONFIG).is_file()
        if replacing:
            if aside.exists():  # the last whole run; this one was never finished
                shutil.rmtree(folder)
            else:
                folder.rename(aside)
            logging.info("the run that was there is kept in %s until this one is finished", aside)
            _lock(stack, folder)
        for path in folder.rglob(".*"):
            if LEFT_BEHIND.fullmatch(path.name) and path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            yield folder
        finally:
            if not holds_files(folder) and (made or replacing):
                shutil.rmtree(folder)
                if replacing and aside.exists():
                    aside.rename(folder)
            elif (folder / RESULT).is_file() and aside.exists():
                shutil.rmtree(aside)


def _lock(stack: contextlib.ExitStack, folder: pathlib.Path) -> None:
    try:
        stack.enter_context(locked(folder, wait=False))
    except BlockingIOError:
        raise UserError(
            f"run_dir '{folder}' is in use by another process; allowed: another folder, or to wait"
        ) from None


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


def prepare(folder: pathlib.Path, config: Experiment, splits: Splits) -> None:
    """Writes configuration, labels and matrices into a claimed folder; checks them in a resumed run.

    Raises:
        UserError: a resumed run had other flags or other data, or its files are damaged.
    """
    arrays = splits.labels()
    if config.resume:
        _check_config(folder, config)
        if (folder / SPLIT).is_file():
            check_labels(folder, arrays, load_arrays(folder / SPLIT))
            _note_what_comes_afterwards(folder, config)
            return
    text = config.to_json()  # first: it marks the folder as a run
    write_atomically(folder / CONFIG, lambda file: file.write(text), mode="w")
    about = {
        "classes": splits.spec.class_names,
        "truth_known": splits.truth_known,
        "test_checked": splits.test_checked,
        "shape": splits.spec.shape,
    }
    text = json.dumps(about, indent=2) + "\n"
    write_atomically(folder / DATA, lambda file: file.write(text), mode="w")
    if splits.transition is not None:
        train = splits.train
        realised = realised_matrix(train.true_y, train.y, splits.spec.num_classes)
        np.savetxt(folder / "transition_matrix.csv", splits.transition, "%.6f", ",")
        np.savetxt(folder / "realised_matrix.csv", realised, "%.6f", ",")
    # Last: without it a resumed run begins here again.
    labels: dict[str, Any] = dict(arrays)
    write_atomically(folder / SPLIT, lambda file: np.savez_compressed(file, **labels))


def _note_what_comes_afterwards(folder: pathlib.Path, config: Experiment) -> None:
    before = read_json(folder / CONFIG)
    now = {name: getattr(config, name) for name in AFTERWARDS}
    if any(before.get(name, DEFAULTS[name]) != value for name, value in now.items()):
        text = json.dumps(before | now, indent=2) + "\n"
        write_atomically(folder / CONFIG, lambda file: file.write(text), mode="w")


def _check_config(folder: pathlib.Path, config: Experiment) -> None:
    if changed := differences(config, read_json(folder / CONFIG)):
        raise UserError(
            f"run_dir '{folder}' holds a run with other flags ({'; '.join(changed)}); allowed: the same"
        )


def check_labels(
    folder: pathlib.Path, arrays: dict[str, np.ndarray], saved: dict[str, np.ndarray]
) -> None:
    """Raises ``UserError`` if data has other examples or labels than a run was trained on.

    Args:
        folder: of the run.
        arrays: of the data, see `Splits.labels`.
        saved: of the run.
    """
    same = set(saved) == set(arrays) and all(np.array_equal(saved[k], v) for k, v in arrays.items())
    if not same:
        raise UserError(f"the data is not what '{folder}' was trained on; allowed: the same data")


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
