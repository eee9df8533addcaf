"""Checks the examples that a user gives to ``fit``, as arrays or as batches of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet.data import checks
from tf_mwnet.data.images import LazyImages
from tf_mwnet.errors import UserError
from tf_mwnet.types import Batch

SPARSE = {
    "RaggedTensor": "x.to_tensor()",
    "SparseTensor": "tf.sparse.to_dense(x)",
    "csr_matrix": "x.toarray()",
    "csr_array": "x.toarray()",
}


def inputs(name: str, x: Any, parts: int = 0) -> Any:
    """Converts inputs to arrays, or to a tuple or dictionary of arrays.

    Args:
        name: of the set, for messages.
        x: an array ``[N, ...]`` or what `numpy.asarray` takes; or for a classifier with several inputs a
            list, tuple or dictionary of them.
        parts: number of the classifier's inputs; 0 if unknown.

    Raises:
        UserError: a part is sparse or ragged, or has NaN or infinite values.
    """
    if isinstance(x, LazyImages):
        return x
    if isinstance(x, dict):
        return {key: inputs(f"{name} '{key}'", part) for key, part in x.items()}
    several = isinstance(x, tuple) or (isinstance(x, list) and parts > 1)
    if several and all(np.ndim(part) > 0 for part in x if not _sparse(part)):
        return tuple(inputs(f"{name} {i}", part) for i, part in enumerate(x))
    if kind := _sparse(x):
        raise UserError(f"{name} is a {kind}; allowed: dense arrays ({SPARSE.get(kind, 'x.toarray()')})")
    if isinstance(x, Iterator) or (hasattr(x, "__iter__") and not hasattr(x, "__len__")):
        raise UserError(
            f"{name} is a {type(x).__name__}; allowed: arrays, a tf.data.Dataset or a"
            " keras.utils.PyDataset"
        )
    try:
        array = np.asarray(x)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} is no array ({error}); allowed: examples of one shape") from None
    if array.dtype.kind == "O":
        raise UserError(
            f"{name} is a {type(x).__name__} of objects; allowed: arrays of numbers or texts"
        )
    if array.dtype.kind not in "biufSU" or array.dtype == np.longdouble:
        raise UserError(f"{name} is of type {array.dtype}; allowed: numbers of up to 64 bits, or texts")
    if array.ndim == 0:
        raise UserError(f"{name} is a single number; allowed: arrays (N, ...)")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        rows = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        raise UserError(
            f"{name} has NaN or infinite values in row {int(np.flatnonzero(rows)[0])} and"
            f" {int(rows.sum()) - 1} more; allowed: finite numbers"
        )
    return array


def _sized(x: Any) -> bool:
    return hasattr(x, "__len__")


def fit_to(name: str, x: Any, expected: Sequence[keras.KerasTensor]) -> None:
    """Raises ``UserError`` if the only input of a classifier has another shape, or is of texts.

    Args:
        name: of the set, for messages.
        x: an array ``[N, ...]``; nothing is checked of several.
        expected: the classifier's inputs, none if they are unknown.
    """
    if len(expected) != 1 or not isinstance(x, np.ndarray):
        return
    shape, want = x.shape[1:], tuple(expected[0].shape[1:])
    # Keras adds or removes a last axis of one.
    forms = [shape, (*shape, 1), *([shape[:-1]] if shape[-1:] == (1,) else [])]
    if not any(
        len(form) == len(want) and all(b in (None, a) for a, b in zip(form, want, strict=True))
        for form in forms
    ):
        raise UserError(f"{name} has examples of the shape {shape}; allowed: {want}, of the classifier")
    if x.dtype.kind in "SU" and expected[0].dtype != "string":
        raise UserError(f"{name} has texts; allowed: numbers, which the classifier takes")


def _sparse(x: Any) -> str:
    kind = type(x).__name__
    sparse = kind in SPARSE or type(x).__module__.startswith("scipy.sparse")
    return kind if sparse else ""


def labelled(
    name: str,
    x: Any,
    y: Any,
    num_classes: int | None,
    expected: Sequence[keras.KerasTensor] = (),
) -> tuple[Any, np.ndarray, int]:
    """Checks examples; returns inputs, labels and their number.

    Args:
        name: of the set, for messages.
        x: see `inputs`.
        y: see `checks.targets`.
        num_classes: K, or None if it is not known.
        expected: the classifier's inputs, none if they are unknown.

    Raises:
        UserError: something is missing, of another size, or not allowed.
    """
    if x is None or y is None:
        raise UserError(f"{name} has no labels; allowed: arrays x and y, or a dataset of (x, y)")
    x = inputs(name, x, len(expected))
    fit_to(name, x, expected)
    sizes = {len(part) if np.ndim(part) else 1 for part in tf.nest.flatten(x)}
    if len(sizes) != 1 or 0 in sizes:
        raise UserError(f"{name} has parts of {sorted(sizes)} examples; allowed: one size above 0")
    size = sizes.pop()
    shape = getattr(y, "shape", None)
    given = (shape[0] if len(shape) else 1) if shape is not None else len(y) if _sized(y) else 1
    if given != size:
        raise UserError(f"{name} has {size} examples and {given} labels; allowed: one label for each")
    return x, checks.targets("y" if name == "x" else name, y, size, num_classes), size


def batches(name: str, dataset: tf.data.Dataset, num_classes: int | None) -> tf.data.Dataset:
    """Converts a dataset of batches ``(x, y)`` to one of `Batch`, whose labels are checked as they come.

    Raises:
        UserError: it has no batch, or other elements.
    """
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        count = len(spec) if isinstance(spec, tuple) else 1
        raise UserError(f"{name} gives elements of {count} parts; allowed: (x, y)")
    if any(not isinstance(s, tf.TensorSpec) for s in tf.nest.flatten(spec)):
        kinds = {type(s).__name__ for s in tf.nest.flatten(spec)} - {"TensorSpec"}
        raise UserError(f"{name} gives a {kinds.pop()}; allowed: dense tensors")
    unknown = any(s.shape.rank is None for s in tf.nest.flatten(spec))
    unknown = unknown or (spec[1].shape.rank == 2 and spec[1].shape[1] is None)
    if dataset.cardinality() == tf.data.UNKNOWN_CARDINALITY or unknown:
        first = next(iter(dataset), None)
    else:
        first = None if dataset.cardinality() == 0 else spec
    if first is None:
        raise UserError(f"{name} has no batch; allowed: one or more")
    shapes = tf.nest.map_structure(_batch_shape, first)
    if any(shape.rank == 0 for shape in tf.nest.flatten(shapes)):
        raise UserError(f"{name} gives single examples; allowed: batches, as of dataset.batch(100)")
    label = shapes[1]
    dense = label.rank == 2 and label[1] not in (None, 1)
    dtype = tf.float32 if dense else tf.int64

    def check(y: np.ndarray) -> np.ndarray:
        checked = checks.targets("y" if name == "x" else name, y, len(y), num_classes)
        return checked.astype(dtype.as_numpy_dtype)

    def convert(x: Any, y: tf.Tensor) -> Batch:
        x = tf.nest.map_structure(tf.ensure_shape, x, shapes[0])
        y = tf.numpy_function(check, [y], dtype, stateful=False)
        y = tf.ensure_shape(y, [label[0], label[1]] if dense else [label[0]])
        size = tf.shape(tf.nest.flatten(x)[0])[0]
        return Batch(x, y, tf.fill([size], tf.constant(-1, tf.int64)))

    return dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _batch_shape(part: tf.Tensor | tf.TensorSpec) -> tf.TensorShape:
    """Returns a part's shape, of a batch of any size if it was looked at."""
    shape = part.shape
    if isinstance(part, tf.TensorSpec) or not shape.rank:
        return shape
    return tf.TensorShape([None, *shape[1:]])


def from_py_dataset(data: keras.utils.PyDataset) -> tf.data.Dataset:
    """Converts a Keras dataset of batches, in its order; ``on_epoch_end`` is called after each pass."""
    first = data[0]
    count = data.num_batches

    def specified(part: Any) -> tf.TensorSpec:
        array = np.asarray(part)
        return tf.TensorSpec([None, *array.shape[1:]], array.dtype)

    def each() -> Iterator[Any]:
        for number in range(count):
            yield tf.nest.map_structure(np.asarray, _tuples(data[number]))
        data.on_epoch_end()

    signature = tf.nest.map_structure(specified, _tuples(first))
    dataset = tf.data.Dataset.from_generator(each, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def _tuples(element: Any) -> Any:
    """Converts lists to tuples, as `tf.data` would stack the parts of a list."""
    if isinstance(element, (tuple, list)):
        return tuple(_tuples(part) for part in element)
    return element
