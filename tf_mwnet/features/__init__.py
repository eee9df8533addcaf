"""Features of a pretrained network, in place of the inputs: training then takes seconds.

A *backbone* maps an input to a vector. It is applied to each example once; what it gives is kept in a
folder, and every method, meta set, record, report and audit works on it as on any other data.

Examples:
    >>> import keras
    >>> from tf_mwnet import data, features
    >>> body = [keras.layers.Conv2D(8, 3), keras.layers.GlobalAveragePooling2D()]
    >>> network = keras.Sequential([keras.Input((8, 8, 3)), *body])
    >>> backbone = features.load(network, scaling="unit")
    >>> source = features.embed(data.load("digits"), backbone, folder="")
    >>> source.train.x.shape, source.train.raw.shape
    ((1797, 8), (1797, 8, 8, 1))
"""

from tf_mwnet.features.backbones import Backbone, load
from tf_mwnet.features.embedding import embed, given

__all__ = ["Backbone", "embed", "given", "load"]
