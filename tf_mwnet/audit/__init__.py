"""Which labels are wrong: `audit`, also as ``python -m tf_mwnet.audit``.

The package itself can be called: ``tf_mwnet.audit("runs/mine")`` is its function `audit`.
"""

from __future__ import annotations

import pathlib
import sys
import types

import pandas as pd

from tf_mwnet.audit.examine import Audit, examine
from tf_mwnet.experiment import Result
from tf_mwnet.types import Source

__all__ = ["Audit", "audit", "examine"]


def audit(
    run: str | pathlib.Path | Result, method: str = "", source: Source | None = None
) -> pd.DataFrame:
    """The labels of a run's training data, those that look wrong first.

    Args:
        run: the folder of a finished run, or what `tf_mwnet.run` gave back.
        method: the method of the run to go by; that of the run by default.
        source: the data, for the folder of a run on data in memory.

    Returns:
        A row per example, in order of rising ``label_quality``: ``id``; ``set``, "train" or what it
        was held out for; ``given_label``; ``predicted_label``, the given one or a better one;
        ``label_quality``, 0 to 1; ``is_label_issue``; and means over the epochs of the training:
        ``weight`` (1 is plain training), ``loss`` in nats, ``probability`` of the given label.
        Where the truth is known, ``is_correct``. NaN for what was never looked at. Examples held out
        are judged by one look of the final classifier and have no weight.

    Raises:
        UserError: see `examine`.
    """
    return examine(run, method, source).table


class _Callable(types.ModuleType):
    __call__ = staticmethod(audit)


sys.modules[__name__].__class__ = _Callable
