"""Applies a backbone to a data set, once."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_mwnet.data import cache
from tf_mwnet.data.images import LazyImages, rows_of
from tf_mwnet.data.progress import progress
from tf_mwnet.errors import UserError, check_signals, choose
from tf_mwnet.features import storage
from tf_mwnet.features.backbones import Backbone
from tf_mwnet.types import LabelledSet, Source

FOLDER = "~/.cache/tf_mwnet/features"
DTYPES = ("float32", "float16")
BATCH = 64
SEED = 17  # of the random views, which are a property of the features, not of a run


def embed(
    source: Source, backbone: Backbone, folder: str | None = None, dtype: str = "float32"
) -> Source:
    """Returns a source whose inputs are the features of a backbone, and whose raw inputs are kept.

    The features of each set are computed once for each backbone, preprocessing and data, and kept.

    Args:
        source: images ``[N, H, W, C]`` of 8 bits.
        backbone: from `backbones.load`.
        folder: where the features are kept; None for a folder below `FOLDER` that is named after data
            and backbone, "" to keep them in memory only.
        dtype: "float32" or "float16" of the files.

    Raises:
        UserError: the inputs are no such images; a feature is not a number; or the folder has features
            of another backbone or other data.
    """
    choose("feature_dtype", dtype, dict.fromkeys(DTYPES))
    sets = source.sets
    for name, part in sets.items():
        _check(f"{source.name} {name}", part, backbone)
    made: dict[str, np.ndarray | LazyImages]
    if folder == "":
        made = {name: _compute_all(part, backbone, dtype, name) for name, part in sets.items()}
    else:
        made = _kept(source.name, sets, backbone, folder, dtype)
    for name, x in made.items():
        check_features(f"{source.name} {name}", x, sets[name].ids)
        sets[name] = dataclasses.replace(sets[name], x=x, raw=sets[name].x)
    return _with_sets(source, sets, backbone)


def _check(name: str, part: LabelledSet, backbone: Backbone) -> None:
    shape = part.x.shape[1:]
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise UserError(
            f"{name}: inputs of shape {shape} with backbone '{backbone.name}'; allowed: grey or RGB"
            " images (H, W, C)"
        )
    if part.x.dtype != np.uint8:
        raise UserError(
            f"{name}: images of {part.x.dtype} with backbone '{backbone.name}'; allowed: uint8, 0 to 255"
        )


def check_features(name: str, x: np.ndarray | LazyImages, ids: np.ndarray) -> None:
    """Checks features, of up to 5,000 examples.

    Raises:
        UserError: one is not a finite number, or all are constant.
    """
    rows = np.unique(np.linspace(0, len(x) - 1, min(5000, len(x))).astype(np.int64))
    some = np.asarray(rows_of(x, rows), np.float32).reshape(len(rows), -1, x.shape[-1])
    if not (finite := np.isfinite(some).all(axis=(1, 2))).all():
        raise UserError(
            f"{name}: a feature of '{ids[rows[~finite][0]]}' is not finite; allowed: numbers"
        )
    constant = (some.min(axis=(0, 1)) == some.max(axis=(0, 1))).sum()
    if constant == x.shape[-1] and len(rows) > 1:
        raise UserError(f"{name}: all {constant} features are constant; allowed: ones that differ")
    if constant and len(rows) > 100:
        logging.info("%s: %d of %d features are constant", name, constant, x.shape[-1])


def _kept(
    name: str, sets: dict[str, LabelledSet], backbone: Backbone, folder: str | None, dtype: str
) -> dict[str, np.ndarray | LazyImages]:
    facts = _facts(name, sets, backbone, dtype)
    path = _folder(facts) if folder is None else pathlib.Path(folder).expanduser()
    with storage.alone(path):
        storage.begin(path, facts)
        todo = [k for k in sets if not (path / k / storage.FEATURES).is_file()]
        if todo:
            total = sum(len(part) for part in sets.values())
            logging.info("embedding %d examples with %s into %s", total, backbone.name, path)
        with progress(sum(len(sets[k]) for k in todo), "embedding", "images") as advance:
            for k in todo:
                shape = _shape(backbone)
                compute = _Compute(sets[k], backbone)
                storage.write(path / k, sets[k].ids, shape, dtype, compute, advance)
    return {k: storage.read(path / k, part.ids) for k, part in sets.items()}


def _facts(name: str, sets: Mapping[str, LabelledSet], backbone: Backbone, dtype: str) -> dict[str, Any]:
    about = {k: {"examples": len(part), "content": _content(part)} for k, part in sets.items()}
    return backbone.about() | {"dtype": dtype, "data": name, "sets": about}


def _folder(facts: Mapping[str, Any]) -> pathlib.Path:
    name = f"{facts['data']}-{facts['backbone']}"
    return cache.file_of(FOLDER, name, repr(sorted(facts.items()))).with_suffix("")


def folder_of(source: Source, backbone: Backbone, dtype: str) -> pathlib.Path:
    """Returns the folder that `embed` keeps the features of a source in by default.

    Args:
        source: the data, or what `embed` has made of it.
        backbone, dtype: see `embed`.
    """
    sets = {
        name: dataclasses.replace(part, x=part.originals, raw=None) for name, part in source.sets.items()
    }
    return _folder(_facts(source.name, sets, backbone, dtype))


def _content(part: LabelledSet) -> str:
    """Returns a digest of the ids and inputs of a set."""
    digest = hashlib.sha256("\n".join(map(str, part.ids)).encode())
    if isinstance(part.x, np.ndarray):
        digest.update(np.ascontiguousarray(part.x).data)
    else:
        digest.update(part.x.fingerprint().encode())
    return digest.hexdigest()[:16]


def _shape(backbone: Backbone) -> tuple[int, ...]:
    return (backbone.dim,) if backbone.views == 1 else (backbone.views, backbone.dim)


class _Compute:
    """Computes the features of rows of a set."""

    def __init__(self, part: LabelledSet, backbone: Backbone) -> None:
        self.part, self.backbone = part, backbone
        rng = np.random.default_rng(SEED)
        views = backbone.views - 1
        self.draws = rng.random((views, len(part), 4), np.float32) if views else None
        shape, dtype = part.x.shape[1:], tf.as_dtype(part.x.dtype)
        signature = [tf.TensorSpec([None, *shape], dtype), tf.TensorSpec([None, 4], tf.float32)]
        self.whole = tf.function(lambda x: backbone(x), input_signature=signature[:1])
        self.view = tf.function(lambda x, draws: backbone(x, draws), input_signature=signature)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        out = []
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            images = rows_of(self.part.x, some)
            views = [self.whole(images).numpy()]
            for draws in () if self.draws is None else self.draws:
                views.append(self.view(images, draws[some]).numpy())
            out.append(views[0] if self.draws is None else np.stack(views, axis=1))
            check_signals()
        return np.concatenate(out)


def _compute_all(part: LabelledSet, backbone: Backbone, dtype: str, name: str) -> np.ndarray:
    compute, out = _Compute(part, backbone), np.empty((len(part), *_shape(backbone)), dtype)
    with progress(len(part), f"embedding {name}", "images") as advance:
        for start in range(0, len(part), storage.CHUNK):
            rows = np.arange(start, min(start + storage.CHUNK, len(part)))
            out[rows] = compute(rows)
            advance(len(rows))
    return out


def given(source: Source, folder: str, encoder: Any = None) -> Source:
    """Returns a source whose inputs are features that were computed before, for its ids.

    Args:
        source: the data.
        folder: see `storage`.
        encoder: the backbone that they are of, if it is known.

    Raises:
        UserError: the folder has no features of an example, or of another backbone.
    """
    path = pathlib.Path(folder).expanduser()
    facts = storage.manifest(path)
    if encoder is not None and facts.get("fingerprint") != encoder.fingerprint:
        raise UserError(
            f"features '{folder}' are of backbone '{facts.get('backbone')}' {facts.get('size')}, not"
            f" '{encoder.name}' {list(encoder.size)}; allowed: the same backbone and preprocessing"
        )
    sets: dict[str, LabelledSet] = {}
    for name, part in source.sets.items():
        x = storage.read(path / name, part.ids)
        check_features(f"{source.name} {name}", x, part.ids)
        sets[name] = dataclasses.replace(part, x=x, raw=part.x)
    return _with_sets(source, sets, encoder)


def _with_sets(source: Source, sets: Mapping[str, LabelledSet], encoder: Any) -> Source:
    test, meta = sets.get("test"), sets.get("meta")
    return dataclasses.replace(source, encoder=encoder, train=sets["train"], test=test, meta=meta)
