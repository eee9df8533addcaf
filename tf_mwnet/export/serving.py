"""Brings exported models to a server: tries them in a clean process, and copies them to a version."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
from absl import logging

from tf_mwnet.errors import UserError, check_range
from tf_mwnet.files import locked, new_folder, write_atomically

TIMEOUT = 300  # seconds for a model to load and answer
VERSION = re.compile(r"[1-9]\d*")
PUSHED = "pushed.json"
FINGERPRINT = "fingerprint.pb"
UNFINISHED = ".pushing."  # prefix of the name of an incomplete version

# Runs without this package and without Keras, as a server does.
CLIENT = """
import json, sys, time
import numpy as np

folder, requests, repeats = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
whole = requests["request"]
if whole.dtype.kind == "U":
    import tensorflow_text  # operations of tokenizers, which TensorFlow Serving has
sys.modules["tf_mwnet"] = sys.modules["keras"] = None
import tensorflow as tf

serve = tf.saved_model.load(folder).signatures["serving_default"]
(name, spec), = serve.structured_input_signature[1].items()
out = {"input": name, "dtype": spec.dtype.name, "latency_ms": {}}
for size in (1, len(whole)):
    part, seconds = tf.constant(whole[:size], spec.dtype), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        answer = {k: v.numpy() for k, v in serve(**{name: part}).items()}
        seconds.append(time.perf_counter() - start)
    times = 1000 * np.array(seconds[1:])
    out["latency_ms"][str(size)] = {"median": np.median(times), "p99": np.quantile(times, 0.99)}
(key, value), = answer.items()
out |= {"output": key, "shape": value.shape, "finite": bool(np.isfinite(value).all()),
        "low": float(value.min()), "high": float(value.max()),
        "row_sum": float(np.abs(value.sum(axis=1) - 1).max())}
print("ANSWER" + json.dumps(out))
"""


def ask(model: pathlib.Path, request: np.ndarray, repeats: int = 20) -> dict[str, Any]:
    """Loads a SavedModel in a clean process with TensorFlow only, and sends it requests.

    Args:
        model: folder of the SavedModel.
        request: rows for its one input, ``[N, ...]``, or texts ``[N]``; the first one alone is sent too.
        repeats: times each is sent, after one that is not counted.

    Returns:
        "input", "dtype", "output", "shape", "finite", "low", "high", "row_sum" (farthest from 1) of the
        answer, and "latency_ms": batch size -> "median", "p99".

    Raises:
        UserError: the model cannot be loaded, or does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "request.npz"
        np.savez(path, request=request.astype(str) if request.dtype == object else request)
        command = [sys.executable, "-P", "-c", CLIENT, str(model.absolute()), str(path), str(repeats)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, cwd=folder)
        except subprocess.TimeoutExpired:
            raise UserError(
                f"'{model}' gave no answer in {TIMEOUT} s; allowed: a model that does"
            ) from None
    for line in done.stdout.splitlines():
        if line.startswith("ANSWER"):
            return json.loads(line[len("ANSWER") :])
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    raise UserError(f"'{model}' does not answer ({reason[:150]}); allowed: a SavedModel as exported")


def check(model: pathlib.Path, request: np.ndarray, max_latency_ms: float = 0.0) -> dict[str, Any]:
    """Checks whether a classifier or weight function can be served: `ask`'s answers and "problems".

    Args:
        model: folder of the SavedModel.
        request: real inputs, or losses ``[N, 1]``.
        max_latency_ms: median allowed for one row; 0 for any.
    """
    check_range("max_latency_ms", max_latency_ms, 0)
    try:
        answer = ask(model, request)
    except UserError as error:
        return {"problems": [str(error)]}
    problems = []
    if not answer["finite"] or answer["low"] < 0 or answer["high"] > 1:
        problems.append(f"answers are {answer['low']:g} to {answer['high']:g}; allowed: 0 to 1")
    elif answer["output"] == "probabilities" and answer["row_sum"] > 1e-3:
        problems.append(f"probabilities add up to 1 +- {answer['row_sum']:g}; allowed: 0.001")
    median = answer["latency_ms"]["1"]["median"]
    if max_latency_ms and median > max_latency_ms:
        problems.append(f"an answer takes {median:.1f} ms; allowed: {max_latency_ms:g}")
    return answer | {"problems": problems}


# -------------------------------------------------------------------- pushing


def digest(path: pathlib.Path) -> str:
    """Computes the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: pathlib.Path) -> dict[str, str]:
    """Computes the SHA-256 of each file in a folder, by relative path, sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest(path) for path in paths}


def model_digest(folder: pathlib.Path) -> str:
    """Computes one SHA-256 for a SavedModel, without what pushing adds and a random number in it."""
    files = {k: v for k, v in digests(folder).items() if k not in (PUSHED, FINGERPRINT)}
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def versions(base: pathlib.Path) -> dict[int, pathlib.Path]:
    """Lists the versions of a model in a folder, ascending."""
    if not base.is_dir():
        return {}
    folders = [p for p in base.iterdir() if p.is_dir() and VERSION.fullmatch(p.name)]
    return {int(p.name): p for p in sorted(folders, key=lambda p: int(p.name))}


def push(model: pathlib.Path, base: pathlib.Path, facts: dict[str, Any]) -> pathlib.Path:
    """Copies a SavedModel to the next version, which appears complete; never replaces a version.

    A model that is the newest version already is not pushed again, so that an interrupted push can be
    repeated.

    Args:
        model: folder of the SavedModel.
        base: ``saved_models/<name>``.
        facts: further content of ``pushed.json``, next to the digest.

    Returns:
        ``saved_models/<name>/<version>``.

    Raises:
        UserError: there is no model, or ``base`` is a file.
    """
    if not (model / "saved_model.pb").is_file():
        raise UserError(f"'{model}' is no SavedModel; allowed: a folder with saved_model.pb")
    if base.exists() and not base.is_dir():
        raise UserError(f"'{base}' is a file; allowed: a folder of versions")
    own = model_digest(model)
    with locked(base, wait=True):
        there = versions(base)
        if there:
            newest = there[max(there)]
            if model_digest(newest) == own:
                logging.info("%s is the newest version already", newest)
                return newest
        for left in base.glob(f"{UNFINISHED}*"):  # of a push that was killed
            shutil.rmtree(left)
        target = base / str(max(there, default=0) + 1)
        with new_folder(target, UNFINISHED) as temporary:
            shutil.copytree(model, temporary, dirs_exist_ok=True)
            text = json.dumps({"digest": own} | facts, indent=2) + "\n"
            write_atomically(temporary / PUSHED, lambda file: file.write(text), mode="w")
        return target
