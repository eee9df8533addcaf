"""Equal examples: in several sets of a split, or in the training set with several labels."""

from __future__ import annotations

import numpy as np
from absl import logging

from tf_mwnet.data.images import LazyImages
from tf_mwnet.data.known import keys_of
from tf_mwnet.types import LabelledSet


def keys(part: LabelledSet) -> np.ndarray | None:
    """Returns a key of each example's original input, bytes ``[N]``; equal inputs have equal keys.

    None for inputs on disk that nothing is known of, see `cache.keep`.
    """
    x = part.originals
    if isinstance(x, LazyImages):
        return None if x.known is None else x.known.keys
    return keys_of(x) if isinstance(x, np.ndarray) else None


def in_several_sets(
    train: LabelledSet, others: dict[str, LabelledSet], labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Finds training examples that should not be trained on.

    Args:
        train: the training set.
        others: name -> a set to keep apart from it.
        labels: of the training set, int ``[N]``.

    Returns:
        What they are -> bool ``[N]``: equal to an example of another set, by its name; "two labels",
        equal to a training example with another label; "again", equal to an earlier one with the same.
        Nothing for images on disk that nothing is known of.
    """
    own = keys(train)
    if own is None:
        return {}
    found: dict[str, np.ndarray] = {}
    for name, part in others.items():
        theirs = keys(part)
        if theirs is not None and part.originals.dtype == train.originals.dtype:
            found[name] = np.isin(own, theirs)
    _, first, group = np.unique(own, return_index=True, return_inverse=True)
    differs = np.zeros(len(first), bool)
    np.logical_or.at(differs, group, labels != labels[first][group])
    found["two labels"] = differs[group]
    found["again"] = ~differs[group] & (np.arange(len(own)) != first[group])
    return found


def without(
    train: LabelledSet, others: dict[str, LabelledSet], labels: np.ndarray, drop: bool, name: str
) -> np.ndarray:
    """Warns of equal examples; returns which training examples remain, bool ``[N]``.

    Args:
        train, others, labels: see `in_several_sets`.
        drop: whether to leave out those that are in another set, those with two labels, and copies.
        name: of the data, for messages.
    """
    found = in_several_sets(train, others, labels)
    kept = np.ones(len(train), bool)
    for what, rows in found.items():
        if not rows.any():
            continue
        kept &= ~(rows & drop)
        if what == "again" and not drop:
            continue  # an example that counts twice; no figure is wrong
        about = {
            "two labels": "are there again with another label",
            "again": "are copies of one with the same label",
        }.get(what, f"are also in the {what} set")
        shown = ", ".join(f"'{example}'" for example in train.ids[rows][:3])
        done = "; they are left out" if drop else "; --drop_duplicates leaves them out"
        count = int(rows.sum())
        logging.warning("%s: %d training examples %s, as %s%s", name, count, about, shown, done)
    return kept
