"""The configuration of a model as Keras saves it."""

from __future__ import annotations

from typing import Any, Self

import keras

from tf_mwnet.methods.base import Method
from tf_mwnet.model.evaluated import Evaluated


class Saved(Evaluated):
    """A model that is saved with its classifier, its method, and what it was compiled with."""

    classifier: keras.Model
    method: Method
    _resolved_compile: dict[str, Any]

    def final_classifier(self) -> keras.Model:
        """Returns the classifier that is evaluated."""
        raise NotImplementedError

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Exports the classifier as `keras.Model.export` does."""
        return self.final_classifier().export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "method": keras.saving.serialize_keras_object(self.method),
            "from_logits": self.from_logits,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        for part in ("classifier", "method"):
            config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)

    def get_compile_config(self) -> dict[str, Any]:
        if not self.compiled:
            return {}
        return keras.saving.serialize_keras_object(self._resolved_compile)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
