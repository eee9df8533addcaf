"""Loads a weight function from a SavedModel."""

from __future__ import annotations

import json
import pathlib

import tensorflow as tf

from tf_mwnet.errors import UserError
from tf_mwnet.files import WEIGHT_NETS, shipped
from tf_mwnet.networks import harmless

CARD = "model_card.json"


def version_folder(path: str | pathlib.Path) -> pathlib.Path:
    """Returns ``path`` if it is a SavedModel, else its subfolder with the highest version number.

    ``@name`` is a weight net that comes with the project.

    Raises:
        UserError: there is neither.
    """
    path = pathlib.Path(shipped(WEIGHT_NETS, str(path)))
    if (path / "saved_model.pb").is_file():
        return path
    numbered = [p for p in path.glob("[0-9]*") if p.name.isdecimal()]
    versions = [p for p in numbered if (p / "saved_model.pb").is_file()]
    if not versions:
        state = "holds no SavedModel" if path.exists() else "is not there"
        raise UserError(
            f"weight net '{path}' {state}; allowed: a SavedModel folder, or one of numbered versions"
        )
    return max(versions, key=lambda p: int(p.name))


class WeightFunction:
    """A weight function from a SavedModel: maps losses ``[n]`` to weights ``[n]``, both float32.

    With G > 1 groups of classes the weights are ``[n, G]``.

    Examples:
        From the root of the repository, which has some weight nets:

        >>> function = WeightFunction("saved_models/digits_flip2")
        >>> function(tf.constant([0.0, 1.0, 5.0])).shape, function.groups
        (TensorShape([3]), 1)

    Args:
        path: a SavedModel, or a folder of numbered versions, of which the newest is loaded.

    Attributes:
        path: the version's folder.
        groups: G.
        has_course: whether the file has the function over the course of its training, see
            `course.Course`.
        card: the model card; empty if there is none.
        normalised: whether training divided the weights by their sum over the batch.

    Raises:
        UserError: there is no SavedModel, it is damaged, it has another signature, or operations that
            no weight function needs, see `harmless.check`.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = version_folder(path)
        harmless.check(self.path)
        try:
            loaded = tf.saved_model.load(str(self.path))
            card = self.path / CARD
            self.card = dict(json.loads(card.read_text("utf-8"))) if card.is_file() else {}
        except Exception as error:  # damaged files raise many types
            reason = str(error).splitlines()[0]
            raise UserError(
                f"weight net '{self.path}' cannot be loaded: {reason}; allowed: a whole SavedModel"
            ) from error
        self._keep = loaded
        self._function = loaded.signatures.get("serving_default")
        self._check_signature()
        self._at_progress = loaded.signatures.get("at_progress")
        self.has_course = self._at_progress is not None
        self.normalised = bool(self.card.get("normalised", True))

    def _check_signature(self) -> None:
        inputs, outputs = {}, {}
        if self._function is not None:
            inputs = self._function.structured_input_signature[1]
            outputs = self._function.structured_outputs
        signature = [*inputs.items(), *outputs.items()]
        fits = [name for name, _ in signature] == ["loss", "weight"] and all(
            spec.dtype == tf.float32 and spec.shape.rank == 2 and spec.shape[0] is None
            for _, spec in signature
        )
        fits = fits and signature[0][1].shape[1] == 1 and signature[1][1].shape[1] is not None
        if not fits:
            shown = ", ".join(f"{n} {s.dtype.name}{s.shape}" for n, s in signature) or "none"
            raise UserError(
                f"weight net '{self.path}' has the signature: {shown}; allowed: serving_default with"
                " loss float32(None, 1) -> weight float32(None, 1), or (None, G) for G groups of classes"
            )
        self.groups = int(signature[1][1].shape[1])

    def __call__(self, loss: tf.Tensor, progress: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the weights of losses.

        Args:
            loss: ``[n]``, in nats.
            progress: completed share of the training, a scalar, 0 to 1: returns the weights of the same
                point in the function's own training, if the file has its course. None, or without a
                course: returns those of its end.
        """
        loss = loss[:, None]
        if progress is None or not self.has_course:
            weight = self._function(loss=loss)["weight"]
        else:
            progress = tf.fill(tf.shape(loss), tf.cast(progress, tf.float32))
            weight = self._at_progress(loss=loss, progress=progress)["weight"]
        return weight[:, 0] if self.groups == 1 else weight
