"""Sources -> bias -> splits -> streams."""

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
