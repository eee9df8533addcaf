"""LiteRT, which runs TensorFlow Lite files."""

from __future__ import annotations

from typing import Any


def interpreter(**arguments: Any) -> Any:
    """Makes an interpreter of LiteRT, or, where it is not installed, TensorFlow's deprecated one.

    Args:
        arguments: ``model_path`` or ``model_content``.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        from tensorflow.lite.python.interpreter import Interpreter
    return Interpreter(**arguments)
