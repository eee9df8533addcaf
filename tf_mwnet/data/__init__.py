"""Loads data, adds label noise and imbalance, splits it, and streams it in batches.

Examples:
    From arrays to the training, meta and test set of an experiment:

    >>> import numpy as np
    >>> from tf_mwnet import data
    >>> x = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8)
    >>> source = data.from_arrays(x, np.arange(300) % 3, name="squares")
    >>> splits = data.make_splits(source, data.BiasConfig(noise="flip", noise_rate=0.4, meta_size=30))
    >>> len(splits.train), len(splits.meta), len(splits.test)
    (195, 30, 75)
    >>> int(splits.corrupted.sum())  # wrong labels among the 195
    87
"""

from tf_mwnet.data.bias import NOISES, corrupt, realised_matrix, transition_matrix
from tf_mwnet.data.sources import from_arrays, load
from tf_mwnet.data.splits import BiasConfig, biased_source, make_splits
from tf_mwnet.data.streams import Augmentation, evaluation_stream, training_stream

__all__ = [
    "NOISES",
    "Augmentation",
    "BiasConfig",
    "biased_source",
    "corrupt",
    "evaluation_stream",
    "from_arrays",
    "load",
    "make_splits",
    "realised_matrix",
    "training_stream",
    "transition_matrix",
]
