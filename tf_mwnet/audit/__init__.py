"""Finds the labels that look wrong: the function `audit`, and ``python -m tf_mwnet.audit``.

`tf_mwnet.audit` is the function. The package imports nothing before it is called, so that
``import tf_mwnet`` stays quick.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from tf_mwnet.experiment.runner import Result
    from tf_mwnet.types import Source

__all__ = ["audit"]


def audit(
    run: str | pathlib.Path | Result, method: str = "", source: Source | None = None
) -> pd.DataFrame:
    """Returns the labels of a run's training data, most suspicious first.

    Args:
        run: the folder of a finished run, or the result of `tf_mwnet.run`.
        method: the trained method whose record is used; by default the run's method.
        source: the data, needed for the folder of a run on data in memory.

    Returns:
        One row per example, by rising ``label_quality``: ``id``; ``set``, "train" or the name of the
        held-out set; ``given_label``; ``predicted_label``, the given one or a better one;
        ``label_quality``, 0 to 1; ``is_label_issue``; and means over the epochs of the training:
        ``weight`` (1 is plain training), ``loss`` in nats, ``probability`` of the given label.
        Where the truth is known, ``is_correct``. NaN for what was never measured. Held-out examples
        are judged by one pass of the final classifier and have no weight. Where neighbours were looked
        for (features, tables, small images), ``neighbour_agreement``, ``near_duplicate_of`` and what
        else `tf_mwnet.audit.judging.issues` lists.

    Raises:
        UserError: see `tf_mwnet.audit.examine.examine`.

    Examples:
        >>> labels = tf_mwnet.audit("runs/mine")
        >>> labels[labels.is_label_issue][["id", "given_label", "predicted_label"]]
    """
    from tf_mwnet.audit.examine import examine

    return examine(run, method, source).table
