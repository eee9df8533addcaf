"""Loads SavedModels by their signatures, and follows the versions below a folder."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_mwnet.errors import UserError, quoted
from tf_mwnet.export.serving import versions
from tf_mwnet.networks.weight_function import CARD

DEFAULT = "serving_default"  # signature of a request that names none


@dataclasses.dataclass(frozen=True)
class Signature:
    """One function of a SavedModel.

    Attributes:
        inputs, outputs: name -> shape and dtype; the first dimension is the batch.
        call: maps named tensors to named tensors.
    """

    inputs: Mapping[str, tf.TensorSpec]
    outputs: Mapping[str, tf.TensorSpec]
    call: Callable[..., Mapping[str, tf.Tensor]]

    def tensors(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Converts the inputs of a request to arrays of the signature's types and shapes.

        Args:
            values: input name -> nested lists or array, of the same number of rows each.

        Raises:
            UserError: an input is missing, unknown, or of another type or shape.
        """
        if set(values) != set(self.inputs):
            raise UserError(f"inputs are {quoted(values)}; allowed: {quoted(self.inputs)}")
        arrays = {name: _array(name, values[name], spec) for name, spec in self.inputs.items()}
        if len(rows := {len(x) for x in arrays.values()}) > 1:
            raise UserError(f"inputs have {quoted(map(str, sorted(rows)))} rows; allowed: equally many")
        return arrays

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes the outputs of arrays from `tensors`."""
        tensors = {name: tf.constant(x, self.inputs[name].dtype) for name, x in arrays.items()}
        return {name: y.numpy() for name, y in self.call(**tensors).items()}


def _array(name: str, value: Any, spec: tf.TensorSpec) -> np.ndarray:
    dtype = spec.dtype.as_numpy_dtype
    allowed = f"{spec.dtype.name} {['rows', *spec.shape[1:]]}"
    try:
        given = np.asarray(value)
        x = given.astype(dtype)
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"input '{name}' is no array of numbers; allowed: {allowed}") from None
    if not spec.shape.is_compatible_with(x.shape):
        raise UserError(f"input '{name}' has the shape {list(x.shape)}; allowed: {allowed}")
    if spec.dtype == tf.string and not all(isinstance(text, str | bytes) for text in x.ravel()):
        raise UserError(f"input '{name}' has a value that is no text; allowed: {allowed}")
    if spec.dtype.is_integer and not np.array_equal(x, given):
        raise UserError(f"input '{name}' has values beyond its type; allowed: {allowed}")
    if spec.dtype.is_floating and not np.isfinite(x).all():
        raise UserError(f"input '{name}' has a value that is not finite; allowed: {allowed}")
    return x


class Version:
    """A loaded SavedModel.

    Attributes:
        name, number: of the model.
        signatures: name -> `Signature`.
        card: content of ``model_card.json``, if there is one.
    """

    def __init__(self, name: str, number: int, folder: pathlib.Path) -> None:
        """Loads a SavedModel and tries each signature on one row.

        Raises:
            UserError: the SavedModel is damaged.
        """
        self.name, self.number = name, number
        if importlib.util.find_spec("tensorflow_text"):
            import tensorflow_text  # noqa: F401  operations of tokenizers
        try:
            self._loaded = tf.saved_model.load(str(folder))  # keeps the variables
            self.signatures = {
                key: Signature(f.structured_input_signature[1], f.structured_outputs, f)
                for key, f in self._loaded.signatures.items()
            }
            for signature in self.signatures.values():
                signature({k: _one_row(spec) for k, spec in signature.inputs.items()})
            path = folder / CARD
            self.card: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        except Exception as error:  # TensorFlow raises errors of many classes
            reason = " ".join(str(error).split())[:150]
            raise UserError(f"'{folder}' cannot be loaded ({reason}); allowed: a SavedModel") from error
        if DEFAULT not in self.signatures:
            found = quoted(self.signatures)
            raise UserError(f"'{folder}' has the signatures {found}; allowed: with {DEFAULT}")

    def signature(self, name: str = "") -> Signature:
        """Returns a signature by name.

        Raises:
            UserError: it is not there.
        """
        if (name or DEFAULT) not in self.signatures:
            raise UserError(f"signature is '{name}'; allowed: {quoted(self.signatures)}")
        return self.signatures[name or DEFAULT]


def _one_row(spec: tf.TensorSpec) -> np.ndarray:
    return np.zeros([n or 1 for n in spec.shape], spec.dtype.as_numpy_dtype)


def _stamp(folder: pathlib.Path) -> tuple[int, ...]:
    """Returns what changes if a SavedModel is written anew."""
    try:
        return tuple(
            p.stat().st_mtime_ns for p in sorted((folder, folder / "saved_model.pb")) if p.exists()
        )
    except OSError:
        return ()


def _found(root: pathlib.Path) -> dict[str, dict[int, pathlib.Path]]:
    if own := versions(root):
        return {root.absolute().name: own}
    there = {p.name: versions(p) for p in sorted(root.iterdir()) if p.is_dir()}
    return {name: found for name, found in there.items() if found}


def check(root: pathlib.Path) -> None:
    """Raises ``UserError`` if a folder has no model."""
    if not root.is_dir():
        raise UserError(f"models is '{root}'; allowed: a folder of <name>/<version>")
    if not _found(root):
        raise UserError(f"'{root}' has no model; allowed: a folder of <name>/<version>")


class Folder:
    """The models below a folder, ``<name>/<version>``, as they come and go.

    A new version is loaded beside the old ones and then takes their place, so that no request finds
    none. A version that cannot be loaded is left out, with one warning, and the others stay.

    Args:
        root: folder of models, or of the versions of one model.
        keep: number of versions of each model to serve, the newest ones. Labelled versions also stay.
        labels: model name -> label -> version.

    Raises:
        UserError: there is no model.
    """

    def __init__(
        self, root: pathlib.Path, keep: int = 2, labels: Mapping[str, Mapping[str, int]] | None = None
    ) -> None:
        self.root, self.keep, self.labels = root, keep, labels or {}
        self.models: dict[str, dict[int, Version]] = {}
        self._damaged: dict[pathlib.Path, tuple[int, ...]] = {}
        self._lock = threading.Lock()
        check(root)
        self.poll()
        for name, of_model in self.labels.items():
            for label, number in of_model.items():
                there = sorted(self.models.get(name, {}))
                if number not in there:
                    allowed = quoted(map(str, there)) or "one of a model that is there"
                    raise UserError(
                        f"label '{label}' of '{name}' is version {number}; allowed: {allowed}"
                    )

    def poll(self) -> None:
        """Loads versions that are new, and drops those that are gone or no longer among the newest."""
        with self._lock:
            found = _found(self.root)
            self.models = {name: self._versions(name, folders) for name, folders in found.items()}

    def _versions(self, name: str, folders: Mapping[int, pathlib.Path]) -> dict[int, Version]:
        served = dict(self.models.get(name, {}))
        labelled = set(self.labels.get(name, {}).values())
        wanted: dict[int, Version] = {}
        for number in sorted(folders, reverse=True):
            if len(wanted) >= self.keep and number not in labelled:
                continue
            if version := served.get(number) or self._load(name, number, folders[number]):
                wanted[number] = version
        for number in sorted(set(served) - set(wanted)):
            logging.info("%s: version %d is no longer served", name, number)
        return wanted

    def _load(self, name: str, number: int, folder: pathlib.Path) -> Version | None:
        stamp = _stamp(folder)
        if self._damaged.get(folder) == stamp:
            return None
        try:
            version = Version(name, number, folder)
        except UserError as error:
            self._damaged[folder] = stamp
            logging.warning("%s", error)
            return None
        logging.info("%s: version %d is served", name, number)
        return version

    def find(self, name: str, which: str = "") -> Version | None:
        """Returns a version of a model, by number or label, or the newest; None if there is none."""
        served = self.models.get(name)
        if not served:
            return None
        if not which:
            return served[max(served)]
        number = self.labels.get(name, {}).get(which)
        if number is None and which.isdecimal():
            number = int(which)
        return None if number is None else served.get(number)
