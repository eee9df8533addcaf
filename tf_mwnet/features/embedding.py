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

from tf_mwnet.data import cache, equal
from tf_mwnet.data.images import LazyImages, rows_of
from tf_mwnet.data.progress import progress
from tf_mwnet.data.texts import Texts
from tf_mwnet.errors import UserError, check_signals, choose
from tf_mwnet.features import storage
from tf_mwnet.features.backbones import Backbone
from tf_mwnet.types import LabelledSet, Source

FOLDER = "~/.cache/tf_mwnet/features"
DTYPES = ("float32", "float16")
BATCH = 64
DIM = 31  # pixels up to here, in all images, are of another range
SEED = 17  # of the random views, which are a property of the features, not of a run


def embed(
    source: Source,
    backbone: Backbone,
    folder: str | None = None,
    dtype: str = "float32",
    strategy: tf.distribute.Strategy | None = None,
) -> Source:
    """Returns a source whose inputs are the features of a backbone, and whose raw inputs are kept.

    The features of each set are computed once for each backbone, preprocessing and data, and kept.
    Several processes that embed the same into one folder share the work.

    Args:
        source: images ``[N, H, W, C]`` of 8 bits, or `texts.Texts`.
        backbone: from `backbones.load`.
        folder: where the features are kept; None for a folder below `FOLDER` that is named after data
            and backbone, "" to keep them in memory only.
        dtype: "float32" or "float16" of the files.
        strategy: in whose scope the backbone was loaded: each batch is shared by its replicas.

    Raises:
        UserError: the inputs are not what the backbone takes; a feature is not a number, or too large
            for ``dtype``; or the folder has features of another backbone or other data.
    """
    choose("feature_dtype", dtype, dict.fromkeys(DTYPES))
    sets = source.sets
    for name, part in sets.items():
        _check(f"{source.name} {name}", part, backbone)
    made: dict[str, np.ndarray | LazyImages]
    if folder == "":
        made = {
            name: _compute_all(part, _Compute(part, backbone, strategy, dtype), dtype, name)
            for name, part in sets.items()
        }
    else:
        made = _kept(source.name, sets, backbone, folder, dtype, strategy)
    for name, x in made.items():
        check_features(f"{source.name} {name}", x, sets[name].ids)
        sets[name] = dataclasses.replace(sets[name], x=x, raw=sets[name].x)
    return _with_sets(source, sets, backbone)


def _check(name: str, part: LabelledSet, backbone: Backbone) -> None:
    takes, has = backbone.takes, "text" if isinstance(part.x, Texts) else "image"
    if takes != has:
        raise UserError(
            f"{name}: {has}s with backbone '{backbone.name}' of {takes}s; allowed: one of {has}s"
        )
    if has == "text":
        return
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
    if isinstance(part.x, np.ndarray) and (highest := int(part.x.max())) <= DIM:
        logging.warning(
            "%s: the largest pixel is %d; a backbone expects 0 to 255, and sees black", name, highest
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


def _check_values(x: np.ndarray, ids: np.ndarray, dtype: str) -> None:
    """Checks features as they are computed, float32, before they are kept in a type.

    Raises:
        UserError: one is not a finite number, or too large for the type.
    """
    largest = np.abs(x).reshape(len(x), -1).max(axis=1)
    limit = np.finfo(dtype).max
    if (fits := largest <= limit).all():  # NaN does not fit
        return
    row = int(np.argmin(fits))
    if not np.isfinite(largest[row]):
        raise UserError(f"a feature of '{ids[row]}' is not finite; allowed: numbers")
    value = x[row].flat[np.abs(x[row]).argmax()]
    raise UserError(
        f"a feature of '{ids[row]}' is {value:.6g} with feature_dtype={dtype}; allowed: -{limit:g} to"
        f" {limit:g}, or --feature_dtype=float32"
    )


def _kept(
    name: str,
    sets: dict[str, LabelledSet],
    backbone: Backbone,
    folder: str | None,
    dtype: str,
    strategy: tf.distribute.Strategy | None,
) -> dict[str, np.ndarray | LazyImages]:
    facts = _facts(name, sets, backbone, dtype)
    path = _folder(facts) if folder is None else pathlib.Path(folder).expanduser()
    storage.begin(path, facts)
    todo = [k for k in sets if not (path / k / storage.FEATURES).is_file()]
    if todo:
        total = sum(len(part) for part in sets.values())
        logging.info("embedding %d examples with %s into %s", total, backbone.name, path)
    with progress(sum(len(sets[k]) for k in todo), "embedding", f"{backbone.takes}s") as advance:
        for k in todo:
            compute = _Compute(sets[k], backbone, strategy, dtype)
            storage.write(path / k, sets[k].ids, _shape(backbone), dtype, compute, advance)
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
    if (keys := equal.keys(part)) is not None:
        digest.update(keys.tobytes())
    else:
        assert not isinstance(part.x, np.ndarray)
        digest.update(part.x.fingerprint().encode())
    return digest.hexdigest()[:16]


def _shape(backbone: Backbone) -> tuple[int, ...]:
    return (backbone.dim,) if backbone.views == 1 else (backbone.views, backbone.dim)


class _Compute:
    """Computes the features of rows of a set."""

    def __init__(
        self,
        part: LabelledSet,
        backbone: Backbone,
        strategy: tf.distribute.Strategy | None,
        dtype: str,
    ) -> None:
        self.part, self.backbone, self.strategy, self.dtype = part, backbone, strategy, dtype
        self.replicas = 1 if strategy is None else strategy.num_replicas_in_sync
        rng = np.random.default_rng(SEED)
        views = backbone.views - 1
        self.draws = rng.random((views, len(part), 4), np.float32) if views else None
        shape, dtype = part.x.shape[1:], tf.as_dtype(part.x.dtype)
        signature = [tf.TensorSpec([None, *shape], dtype), tf.TensorSpec([None, 4], tf.float32)]
        self.whole = tf.function(lambda x: backbone(x), input_signature=signature[:1])
        self.view = tf.function(lambda x, draws: backbone(x, draws), input_signature=signature)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        out, batch = [], BATCH * self.replicas
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            images = rows_of(self.part.x, some)
            views = [self._run(self.whole, images)]
            for draws in () if self.draws is None else self.draws:
                views.append(self._run(self.view, images, draws[some]))
            out.append(views[0] if self.draws is None else np.stack(views, axis=1))
            check_signals()
        made = np.concatenate(out)
        _check_values(made, self.part.ids[rows], self.dtype)
        return made

    def _run(self, function: Any, *arrays: np.ndarray) -> np.ndarray:
        """Applies a function to a batch, of which each replica takes a part."""
        strategy = self.strategy
        if strategy is None or not 1 < self.replicas <= len(arrays[0]):
            return function(*arrays).numpy()
        split = [np.array_split(x, self.replicas) for x in arrays]

        def parts(x: list[np.ndarray]) -> Any:
            return strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(x[context.replica_id_in_sync_group])
            )

        made = strategy.run(lambda *x: function(*x), args=[parts(x) for x in split])
        return np.concatenate([x.numpy() for x in strategy.experimental_local_results(made)])


def _compute_all(part: LabelledSet, compute: _Compute, dtype: str, name: str) -> np.ndarray:
    backbone = compute.backbone
    out = np.empty((len(part), *_shape(backbone)), dtype)
    with progress(len(part), f"embedding {name}", f"{backbone.takes}s") as advance:
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
