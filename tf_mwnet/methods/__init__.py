"""The methods and their names.

A method is found by name, by a dict ``{"name": ..., **arguments}``, or is an object already.
"""

from __future__ import annotations

import keras

from tf_mwnet.errors import UserError, choose
from tf_mwnet.methods.base import Method
from tf_mwnet.methods.erm import ERM
from tf_mwnet.methods.frozen import FrozenWeights
from tf_mwnet.methods.gdw import GDW
from tf_mwnet.methods.l2rw import L2RW
from tf_mwnet.methods.mwnet import MNW, RMNW, MWNet, batch_weights

METHODS: dict[str, type[Method]] = {
    "mwnet": MWNet,
    "l2rw": L2RW,
    "mnw": MNW,
    "rmnw": RMNW,
    "gdw": GDW,
    "erm": ERM,
}


def get(method: str | dict | Method) -> Method:
    """Returns a method.

    Args:
        method: a name in `METHODS`, ``{"name": name, **constructor arguments}``, a serialised
            Keras object, or a `Method`.

    Raises:
        UserError: the name is unknown, or the value is of another type.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, str):
        return choose("method", method, METHODS)()
    if isinstance(method, dict) and "class_name" in method:
        return keras.saving.deserialize_keras_object(method)
    if isinstance(method, dict) and "name" in method:
        arguments = {k: v for k, v in method.items() if k != "name"}
        return choose("method", method["name"], METHODS)(**arguments)
    raise UserError(f"method is {method!r}; allowed: a name, a dict with 'name', or a Method")


__all__ = [
    "ERM",
    "GDW",
    "L2RW",
    "METHODS",
    "MNW",
    "RMNW",
    "FrozenWeights",
    "MWNet",
    "Method",
    "batch_weights",
    "get",
]
