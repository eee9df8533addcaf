"""Writes and reads data sets as TFRecord files of `tf.train.Example`, in TFX's layout.

    <folder>/dataset.json                                       shapes, classes, sizes, bias
    <folder>/Split-train/data_tfrecord-00000-of-00004.gz        also Split-test, Split-meta

The features of an example are ``id`` (bytes), ``label`` (int64), ``true_label`` (int64, if it is known)
and the input: ``image`` (a PNG file, for uint8 with one or three channels) or ``x`` (the array's bytes).
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tf_mwnet.data import cache as caches
from tf_mwnet.data import checks
from tf_mwnet.data.images import LazyImages, rows_of
from tf_mwnet.data.progress import progress
from tf_mwnet.data.texts import TEXT, Texts
from tf_mwnet.errors import UserError, check_range
from tf_mwnet.files import new_folder
from tf_mwnet.types import LabelledSet, Source

DATASET_JSON = "dataset.json"
SHARD = 5000  # examples in a file
COMPRESSED = "GZIP"
STRING = "string"  # dtype of texts
Task = tuple[LabelledSet, bool, pathlib.Path]  # arguments of `write_shard`
Facts = dict[str, Any]  # content of `DATASET_JSON`


def files_of(folder: pathlib.Path, split: str, shards: int) -> list[pathlib.Path]:
    """Returns the paths of a split's files."""
    names = [f"data_tfrecord-{i:05d}-of-{shards:05d}.gz" for i in range(shards)]
    return [folder / f"Split-{split}" / name for name in names]


def _is_image(shape: tuple[int, ...], dtype: str) -> bool:
    return dtype == "uint8" and len(shape) == 3 and shape[-1] in (1, 3)


def _example(x: np.ndarray | str, name: str, label: int, true_label: int | None) -> tf.train.Example:
    if isinstance(x, str):
        content = {TEXT: [x.encode()]}
    elif _is_image(x.shape, x.dtype.name):
        content = {"image": [tf.io.encode_png(x).numpy()]}
    else:
        content = {"x": [np.ascontiguousarray(x).tobytes()]}
    content["id"] = [name.encode()]
    numbers = {"label": label}
    if true_label is not None:
        numbers["true_label"] = true_label
    features = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=v)) for k, v in content.items()}
    for key, value in numbers.items():
        features[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value)]))
    return tf.train.Example(features=tf.train.Features(feature=features))


def _parts(part: LabelledSet, truth: bool, rows: np.ndarray) -> Iterator[bytes]:
    for chunk in np.array_split(rows, max(1, len(rows) // 500)):
        x = rows_of(part.x, chunk)
        for row, value in zip(chunk, x, strict=True):
            true = part.true_y[row] if truth else None
            yield _example(value, str(part.ids[row]), part.y[row], true).SerializeToString()


def write_shard(part: LabelledSet, truth: bool, path: pathlib.Path) -> int:
    """Writes examples to one file and returns their number.

    Args:
        part: the examples.
        truth: whether to write the true labels.
        path: the file.

    Raises:
        UserError: an image cannot be read.
    """
    with tf.io.TFRecordWriter(str(path), COMPRESSED) as writer:
        for content in _parts(part, truth, np.arange(len(part))):
            writer.write(content)
    return len(part)


def one_by_one(tasks: list[Task]) -> None:
    """Calls `write_shard` with each of ``tasks``, in this process."""
    with progress(len(tasks), "writing records", "files", least=5) as advance:
        for task in tasks:
            write_shard(*task)
            advance()


def write(
    source: Source,
    folder: str | pathlib.Path,
    shard: int = SHARD,
    each: Callable[[list[Task]], None] = one_by_one,
) -> pathlib.Path:
    """Writes a source to a folder, which appears once it is complete, and returns the folder.

    Examples:
        >>> import tempfile
        >>> from tf_mwnet import data
        >>> folder = write(data.load("digits"), tempfile.mkdtemp())
        >>> len(data.load("records", str(folder)).train)
        1797

    Args:
        source: the data.
        folder: a path that does not exist, or an empty folder.
        shard: examples in a file, at least 1.
        each: calls `write_shard` with each tuple of a list, in any order, in any process.

    Raises:
        UserError: ``folder`` is not empty, or an image cannot be read.
    """
    check_range("shard", shard, 1)
    folder = pathlib.Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"'{folder}' is there already; allowed: a new folder")
    truth = source.truth_known or source.trusted
    with new_folder(folder) as temporary:
        splits: dict[str, dict[str, int]] = {}
        tasks: list[Task] = []
        for split, part in (("train", source.train), ("meta", source.meta), ("test", source.test)):
            if part is None:
                continue
            splits[split] = {"examples": len(part), "shards": -(-len(part) // shard)}
            paths = files_of(temporary, split, splits[split]["shards"])
            paths[0].parent.mkdir()
            rows = np.array_split(np.arange(len(part)), len(paths))
            tasks += [(part.take(own), truth, path) for own, path in zip(rows, paths, strict=True)]
        each(tasks)
        text = json.dumps(_facts(source, splits, truth), indent=2) + "\n"
        (temporary / DATASET_JSON).write_text(text, "utf-8")
    return folder


def _facts(source: Source, splits: dict[str, dict[str, int]], truth: bool) -> Facts:
    return {
        "name": source.name,
        "shape": list(source.train.x.shape[1:]),
        "dtype": STRING if isinstance(source.train.x, Texts) else source.train.x.dtype.name,
        "classes": list(source.class_names),
        "superclass": None if source.superclass is None else source.superclass.tolist(),
        "true_labels": truth,
        "truth_known": source.truth_known,
        "trusted": source.trusted,
        "built_in": source.built_in,
        "splits": splits,
        "bias": source.bias,
        "transition": None if source.transition is None else source.transition.tolist(),
    }


def read_facts(folder: pathlib.Path) -> Facts:
    """Reads ``dataset.json``.

    Returns:
        Among others "name", "shape" and "dtype" of an input, "classes" (their names), "true_labels"
        (whether they are stored) and "splits" (split -> "examples", "shards").

    Raises:
        UserError: the file does not exist, is damaged, or lacks a field.
    """
    path = folder / DATASET_JSON
    if not path.is_file():
        raise UserError(
            f"'{folder}' holds no records; allowed: a folder with {DATASET_JSON} and TFRecord files"
        )
    try:
        facts = json.loads(path.read_text("utf-8"))
        missing = {"name", "shape", "dtype", "classes", "true_labels", "splits"} - set(facts)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"'{path}' cannot be read: {error}; allowed: as it was written") from error
    if missing:
        raise UserError(f"'{path}' lacks '{min(missing)}'; allowed: as it was written")
    return facts


def _stream(facts: Facts, paths: list[pathlib.Path], pixels: bool) -> tf.data.Dataset:
    shape, dtype = tuple(facts["shape"]), facts["dtype"]
    image = _is_image(shape, dtype)
    key = "image" if image else TEXT if dtype == STRING else "x"
    text, number = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)
    wanted = {"id": text, "label": number}
    if facts["true_labels"]:
        wanted["true_label"] = number
    if pixels:
        wanted[key] = text

    def parse(content: tf.Tensor) -> dict[str, tf.Tensor]:
        columns = tf.io.parse_single_example(content, wanted)
        if pixels and image:
            columns["x"] = tf.ensure_shape(tf.io.decode_png(columns.pop("image"), shape[-1]), shape)
        elif pixels and key == TEXT:
            columns["x"] = columns.pop(TEXT)
        elif pixels:
            columns["x"] = tf.reshape(tf.io.decode_raw(columns["x"], tf.as_dtype(dtype)), shape)
        return columns

    records = tf.data.TFRecordDataset([str(p) for p in paths], COMPRESSED)
    return records.map(parse, num_parallel_calls=tf.data.AUTOTUNE).batch(500).prefetch(2)


def batches(facts: Facts, paths: list[pathlib.Path], pixels: bool) -> Iterator[dict[str, np.ndarray]]:
    """Reads record files in batches of up to 500 examples.

    Args:
        facts: see `read_facts`.
        paths: the files.
        pixels: whether to read the inputs, too.

    Yields:
        Columns "id", "label", "x" (if ``pixels``) and "true_label" (if it is stored).

    Raises:
        UserError: a file is missing or damaged.
    """
    for path in paths:
        if not path.is_file():
            raise UserError(f"record file '{path}' is not there; allowed: all files of a split")
    try:
        yield from _stream(facts, paths, pixels).as_numpy_iterator()
    except tf.errors.OpError as error:  # a damaged file, or another kind of example
        reason = " ".join(str(error.message).split())[:150]
        raise UserError(
            f"records of '{paths[0].parent}' cannot be read ({reason}); allowed: as they were written"
        ) from None


def _load_split(
    facts: Facts, folder: pathlib.Path, split: str, cache: str, cache_dir: str
) -> LabelledSet:
    name, count = f"{facts['name']} {split}", facts["splits"][split]["examples"]
    shape, classes = (count, *facts["shape"]), len(facts["classes"])
    files = files_of(folder, split, facts["splits"][split]["shards"])
    parts = list(batches(facts, files, pixels=False))
    columns = {k: np.concatenate([c[k] for c in parts]) for k in parts[0]} if parts else {}
    have = len(columns.get("label", ()))
    if not have or have != count:
        raise UserError(
            f"'{folder}' has {have} examples in {split}; allowed: {count}, as it was written"
        )
    x: np.ndarray | LazyImages | Texts
    size = 0 if facts["dtype"] == STRING else int(np.prod(shape)) * np.dtype(facts["dtype"]).itemsize
    if facts["dtype"] == STRING:
        found = (text for batch in batches(facts, files, pixels=True) for text in batch["x"])
        x = Texts([text.decode() for text in found])
    elif cache == "disk" or (cache == "auto" and size > caches.IN_MEMORY):
        stamp = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        path = caches.file_of(cache_dir, name, repr(stamp))
        if not path.is_file():
            decoded = (batch["x"] for batch in batches(facts, files, pixels=True))
            caches.write_rows(path, decoded, shape, facts["dtype"], split)
        x = caches.read_rows(path)
    else:
        pixels = np.empty(shape, facts["dtype"])
        start = 0
        for batch in batches(facts, files, pixels=True):
            pixels[start : start + len(batch["x"])] = batch["x"]
            start += len(batch["x"])
        x = checks.inputs(name, pixels)
    y = checks.labels(name, columns["label"], count, classes)
    true = checks.labels(name, columns.get("true_label", columns["label"]), count, classes)
    ids = checks.ids(name, np.array([i.decode() for i in columns["id"]]), count)
    return LabelledSet(x, y, true, ids)


def _tuples(fields: dict[str, Any] | None) -> dict[str, Any] | None:
    return fields and {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def load_records(
    path: str, cache: str = "auto", cache_dir: str = "", blank_images: str = "refuse"
) -> Source:
    """Reads a data set written by `write`.

    Args:
        path: the folder.
        cache: "memory"; "disk" decodes once into a file; "auto" is "memory" up to `cache.IN_MEMORY`
            bytes a split and "disk" above. "none" is not possible: TFRecord files can only be read in
            order.
        cache_dir: the folder of cache files, see `cache.keep`.
        blank_images: see `checks.source`.

    Raises:
        UserError: the folder does not exist, a file is missing or damaged, or the data does not fit.
    """
    if cache == "none":
        raise UserError("cache is none with records; allowed: auto, memory, disk")
    folder = pathlib.Path(path).expanduser()
    facts = read_facts(folder)
    parts = {k: _load_split(facts, folder, k, cache, cache_dir) for k in facts["splits"]}
    if "train" not in parts:
        raise UserError(f"'{folder}' has no training examples; allowed: a split 'train'")
    superclass, matrix = facts.get("superclass"), facts.get("transition")
    return checks.source(
        Source(
            facts["name"],
            parts["train"],
            parts.get("test"),
            parts.get("meta"),
            tuple(facts["classes"]),
            None if superclass is None else np.asarray(superclass),
            bool(facts.get("truth_known")),
            bool(facts.get("trusted")),
            _tuples(facts.get("bias")),
            None if matrix is None else np.asarray(matrix, np.float64),
            built_in=bool(facts.get("built_in")),
        ),
        blank_images,
    )
