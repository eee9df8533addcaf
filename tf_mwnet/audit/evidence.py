"""Evidence about each label, from the record of a training or from one pass."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from tf_mwnet.data.images import rows_of
from tf_mwnet.data.texts import Texts
from tf_mwnet.errors import UserError
from tf_mwnet.files import load_arrays
from tf_mwnet.types import Images


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Evidence about the labels of N examples with K classes; NaN for an example that was not seen.

    Attributes:
        labels: given labels, int ``[N]``.
        probability: of the given label, ``[N]``, 0 to 1; this and the following are means over passes.
        votes: share of passes in which each class was predicted, ``[N, K]``.
        weight: example weight times batch size (1 is plain training), ``[N]``.
        loss: cross-entropy of the given label in nats, ``[N]``.
    """

    labels: np.ndarray
    probability: np.ndarray
    votes: np.ndarray
    weight: np.ndarray
    loss: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def known(self) -> np.ndarray:
        """Tells which examples were seen, bool ``[N]``."""
        return np.isfinite(self.probability)

    def take(self, rows: np.ndarray) -> Evidence:
        """Returns the evidence of the examples at ``rows``."""
        return Evidence(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


def join(parts: list[Evidence]) -> Evidence:
    """Concatenates the evidence of several sets."""
    names = [f.name for f in dataclasses.fields(Evidence)]
    return Evidence(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


def epoch_weight(share: float, agreement: float) -> float:
    """Computes the weight of an epoch: later epochs count more, those that have memorised labels less.

    ``share**2 * (1 - agreement)**3`` is smooth, so that no single epoch decides; docs/results.md has the
    measurements.

    Args:
        share: of the training that is done in the middle of the epoch, 0 to 1.
        agreement: share of examples whose given label was predicted; near 1, wrong labels have been
            memorised.
    """
    return share**2 * (1 - agreement) ** 3 + 1e-9


def recorded(folder: pathlib.Path, labels: np.ndarray, num_classes: int) -> Evidence:
    """Averages a run's record over its epochs, see `tf_mwnet.experiment.example_files`.

    The record of an example comes from the forward pass of the step that trains on it.

    Args:
        folder: ``examples`` of a trained method.
        labels: given labels of the training examples, ``[N]``.
        num_classes: K.

    Raises:
        UserError: the folder has no record, or the record of other examples.
    """
    paths = sorted(folder.glob("epoch_*.npz"))
    if not paths:
        raise UserError(f"'{folder}' has no weights of examples; allowed: the folder of a finished run")
    rows, size = np.arange(len(labels)), len(labels)
    sums = {name: np.zeros(size) for name in ("probability", "weight", "loss")}
    votes, total = np.zeros((size, num_classes), np.float32), np.zeros(size)
    for place, path in enumerate(paths):
        arrays = load_arrays(path)
        _check_record(path, arrays, size, num_classes)
        seen = np.isfinite(arrays["probability"][:size].astype(float))
        predicted = arrays["predicted"][:size]
        agreement = float((predicted == labels)[seen].mean()) if seen.any() else 0.0
        counts = seen * epoch_weight((place + 0.5) / len(paths), agreement)
        for name, total_of in sums.items():
            total_of += counts * np.where(seen, arrays[name][:size].astype(float), 0)
        votes[rows[seen], predicted[seen]] += counts[seen].astype(np.float32)
        total += counts
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {name: total_of / total for name, total_of in sums.items()}
        votes /= total[:, None].astype(np.float32)
    return Evidence(labels, votes=votes, **means)


def _check_record(
    path: pathlib.Path, arrays: dict[str, np.ndarray], size: int, num_classes: int
) -> None:
    names = ("probability", "weight", "loss", "predicted")
    whole = all(arrays.get(name, np.empty(0)).shape >= (size,) for name in names)
    if not whole or arrays["predicted"][:size].max(initial=0) >= num_classes:
        raise UserError(f"'{path}' has no record of {size} examples; allowed: as the run wrote it")


def held_out(probabilities: np.ndarray, labels: np.ndarray) -> Evidence:
    """Makes evidence of one pass: class probabilities ``[N, K]`` of a classifier on held-out data."""
    rows = np.arange(len(labels))
    given = probabilities[rows, labels].astype(float)
    votes = np.zeros(probabilities.shape, np.float32)
    votes[rows, probabilities.argmax(axis=1)] = 1
    loss = -np.log(np.maximum(given, np.finfo(np.float32).tiny))
    return Evidence(labels, given, votes, np.full(len(labels), np.nan), loss)


def classify(folder: pathlib.Path, x: np.ndarray | Images, batch: int = 500) -> np.ndarray:
    """Computes class probabilities ``[N, K]`` by a classifier that a run has exported.

    Args:
        folder: of the SavedModel.
        x: raw inputs, or for a classifier on features these.
        batch: inputs at a time.

    Raises:
        UserError: the export is missing or damaged.
    """
    probabilities = _outputs(
        folder, x, batch, "from_features" if x.ndim in (2, 3) else "", "serving_default"
    )
    assert probabilities is not None
    return probabilities


def hidden(folder: pathlib.Path, x: np.ndarray | Images, batch: int = 500) -> np.ndarray | None:
    """Computes the inputs of an exported classifier's last layer, ``[N, D]``; None if it has none.

    Arguments and errors: see `classify`.
    """
    return _outputs(folder, x, batch, "hidden")


def _outputs(
    folder: pathlib.Path, x: np.ndarray | Images, batch: int, *wanted: str
) -> np.ndarray | None:
    """Applies the first of the signatures that there is."""
    try:
        if isinstance(x, Texts):
            import tensorflow_text  # noqa: F401 (operations of the tokenizer)
        module = tf.saved_model.load(str(folder))
        names = [name for name in wanted if name in module.signatures]
        if not names and "serving_default" in module.signatures:
            return None
        serve = module.signatures[names[0]]
        (name,) = serve.structured_input_signature[1]
        (output,) = serve.structured_outputs
    except Exception as error:  # a damaged SavedModel raises many types
        raise UserError(f"'{folder}' cannot be loaded; allowed: as the run exported it") from error
    out = []
    for start in range(0, len(x), batch):
        part = np.arange(start, min(start + batch, len(x)))
        inputs = rows_of(x, part)
        if name == "features":
            inputs = inputs.astype(np.float32) if inputs.ndim == 2 else inputs[:, 0].astype(np.float32)
        out.append(serve(**{name: tf.constant(inputs)})[output].numpy())
    return np.concatenate(out)
