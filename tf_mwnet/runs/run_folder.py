"""The folder of a run: what may be written into it, and what a resumed run checks."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging

from tf_mwnet.config import AFTERWARDS, DEFAULTS, Experiment
from tf_mwnet.data import realised_matrix
from tf_mwnet.data.sources import MEMORY
from tf_mwnet.errors import UserError
from tf_mwnet.files import (
    check_folder,
    holds_files,
    load_arrays,
    locked,
    read_json,
    write_atomically,
)
from tf_mwnet.runs.saved_run import CONFIG, DATA, RESULT, SPLIT, differences
from tf_mwnet.types import Splits

# Fields that every version has written into a run's configuration.
PROOF = {"dataset", "method", "epochs", "batch_size", "data_seed", "run_dir"}
# Temporary files and folders of `files.write_atomically` and `files.new_folder`, after a kill.
LEFT_BEHIND = re.compile(r"\..+\.[a-z0-9_]{8}")


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
