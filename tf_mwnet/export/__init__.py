"""Trained parts as files: SavedModels with model cards, serving, TensorFlow Lite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_mwnet.export.saved_models import (
        export_classifier,
        export_weight_net,
        library_versions,
        model_card,
    )

__all__ = ["export_classifier", "export_weight_net", "library_versions", "model_card"]


def __getattr__(name: str) -> Any:
    # On first use, so that the commands in this package hide TensorFlow's notes before it is imported.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tf_mwnet.export import saved_models

    return getattr(saved_models, name)
