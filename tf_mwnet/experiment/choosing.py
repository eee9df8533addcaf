"""``--method=auto``: the method that the tables of docs/which_method.md say is best for the data."""

from __future__ import annotations

import numpy as np

from tf_mwnet.config import Experiment
from tf_mwnet.data.splits import select_classes
from tf_mwnet.types import Source

LONG_TAIL = 10.0  # times as many examples in the largest class as in the smallest


def imbalance(config: Experiment, source: Source) -> float:
    """Returns the size of the largest training class over that of the smallest, as labelled; at least 1.

    Args:
        config: the settings, of which those about classes and their sizes count.
        source: the data.
    """
    if config.imbalance_factor != 1:
        return config.imbalance_factor
    kept = select_classes(source, config.classes)
    given = np.bincount(kept.train.y, minlength=len(kept.class_names))
    sizes = np.array(config.class_counts) if config.class_counts else given
    return float(sizes.max() / max(1, sizes.min()))


def choose_method(clean: bool, noisy: bool, ratio: float) -> tuple[str, str]:
    """Chooses a method by what is known of the data.

    Args:
        clean: whether there are examples whose labels are known to be right.
        noisy: whether wrong labels have been put in.
        ratio: see `imbalance`.

    Returns:
        Its name, and why.
    """
    if ratio >= LONG_TAIL and not noisy:
        why = f"the largest class has {ratio:.0f} times as many examples as the smallest"
        return "logit_adjustment", why
    if clean:
        return "mwnet", "there are examples whose labels are known to be right"
    return "elr", "no label is known to be right"
