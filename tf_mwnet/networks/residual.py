"""Residual networks for 32x32 images, and ResNet-18 for large ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tf_mwnet.errors import UserError
from tf_mwnet.networks.init import Seeds, batch_norm
from tf_mwnet.types import DataSpec


@keras.saving.register_keras_serializable(package="tf_mwnet")
class PaddedShortcut(layers.Layer):
    """A shortcut without parameters: subsamples the pixels and adds channels of zeros on both sides.

    He et al. (CVPR 2016), option A.

    Examples:
        >>> PaddedShortcut(filters=32, strides=2)(tf.ones([1, 8, 8, 16])).shape
        TensorShape([1, 4, 4, 32])

    Args:
        filters: output channels, at least those of the input.
        strides: step between the pixels that are kept.
    """

    def __init__(self, filters: int, strides: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters, self.strides = filters, strides

    def call(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.nn.avg_pool2d(x, 1, self.strides, "VALID")  # a strided slice takes ten times as long
        extra = self.filters - x.shape[-1]
        return ops.pad(x, [[0, 0], [0, 0], [0, 0], [extra // 2, extra - extra // 2]])

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        size = [None if s is None else -(-s // self.strides) for s in shape[1:3]]
        return (shape[0], *size, self.filters)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"filters": self.filters, "strides": self.strides}


def resnet32(
    spec: DataSpec, seed: int = 0, blocks: int = 5, width: int = 16, synchronized: bool = False
) -> keras.Model:
    """Builds ResNet-32 for CIFAR (He et al., CVPR 2016, section 4.2): 0.46 M parameters.

    Three stages of ``blocks`` basic blocks, ``6 blocks + 2`` layers, with parameter-free shortcuts.

    Args:
        spec: the images.
        seed: seed of the initial values.
        blocks: blocks of a stage; 5 for ResNet-32, 3 for ResNet-20, 1 for ResNet-8.
        width: filters of the first stage; each stage doubles them.
        synchronized: see `init.batch_norm`.
    """
    seeds = Seeds(seed)

    def norm(x: keras.KerasTensor) -> keras.KerasTensor:
        return batch_norm(synchronized)(x)

    x = inputs = keras.Input(spec.shape)
    x = layers.ReLU()(norm(seeds.conv(width, 3)(x)))
    for stage in range(3):
        filters = width * 2**stage
        for block in range(blocks):
            strides = 2 if stage > 0 and block == 0 else 1
            shortcut = PaddedShortcut(filters, strides)(x) if strides > 1 else x
            x = layers.ReLU()(norm(seeds.conv(filters, 3, strides)(x)))
            x = norm(seeds.conv(filters, 3)(x))
            x = layers.ReLU()(layers.add([x, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, seeds.dense(spec.num_classes)(x), name=f"resnet{6 * blocks + 2}")


def wrn28_10(
    spec: DataSpec,
    seed: int = 0,
    blocks: int = 4,
    widen: int = 10,
    dropout: float = 0.0,
    synchronized: bool = False,
) -> keras.Model:
    """Builds WRN-28-10 (Zagoruyko and Komodakis, BMVC 2016): pre-activation, 36.5 M parameters.

    Args:
        spec: the images.
        seed: seed of the initial values and of dropout.
        blocks: blocks of a stage; the depth is ``6 blocks + 4``.
        widen: factor on the widths 16, 32 and 64.
        dropout: dropout rate between the two convolutions of a block, 0 to 1.
        synchronized: see `init.batch_norm`.
    """
    seeds = Seeds(seed)

    def activate(x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.ReLU()(batch_norm(synchronized)(x))

    x = inputs = keras.Input(spec.shape)
    x = seeds.conv(16, 3)(x)
    for stage in range(3):
        filters = 16 * widen * 2**stage
        for block in range(blocks):
            strides = 2 if stage > 0 and block == 0 else 1
            before = activate(x)
            shortcut = x if x.shape[-1] == filters else seeds.conv(filters, 1, strides)(before)
            x = activate(seeds.conv(filters, 3, strides)(before))
            if dropout:
                x = layers.Dropout(dropout, seed=seeds())(x)
            x = layers.add([seeds.conv(filters, 3)(x), shortcut])
    x = layers.GlobalAveragePooling2D()(activate(x))
    name = f"wrn{6 * blocks + 4}_{widen}"
    return keras.Model(inputs, seeds.dense(spec.num_classes)(x), name=name)


def resnet34(spec: DataSpec, seed: int = 0, width: int = 64, synchronized: bool = False) -> keras.Model:
    """Builds ResNet-34 for 32x32 images: 21.3 M parameters.

    The stages of He et al. (CVPR 2016, table 1), of 3, 4, 6 and 3 basic blocks with 1x1 projections,
    behind a 3x3 convolution without pooling, as in ELR's code. The initial values are He's.

    Args:
        spec: the images.
        seed: seed of the initial values.
        width: filters of the first stage; each stage doubles them.
        synchronized: see `init.batch_norm`.
    """
    seeds = Seeds(seed)
    x = inputs = keras.Input(spec.shape)
    x = layers.ReLU()(batch_norm(synchronized)(seeds.conv(width, 3)(x)))
    x = _basic_stages(x, seeds, (3, 4, 6, 3), width, synchronized)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, seeds.dense(spec.num_classes)(x), name="resnet34")


def preact_resnet18(
    spec: DataSpec, seed: int = 0, width: int = 64, synchronized: bool = False
) -> keras.Model:
    """Builds PreAct ResNet-18 for 32x32 images (He et al., ECCV 2016): 11.2 M parameters.

    Four stages of two pre-activation blocks behind a 3x3 convolution with batch norm. As in CMW-Net's
    code every shortcut begins behind a block's first activation, and the features are not normalised
    at the end. The initial values are He's.

    Args:
        spec: the images.
        seed: seed of the initial values.
        width: filters of the first stage; each stage doubles them.
        synchronized: see `init.batch_norm`.
    """
    seeds = Seeds(seed)

    def activate(x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.ReLU()(batch_norm(synchronized)(x))

    x = inputs = keras.Input(spec.shape)
    x = activate(seeds.conv(width, 3)(x))
    for stage in range(4):
        filters = width * 2**stage
        for block in range(2):
            strides = 2 if stage > 0 and block == 0 else 1
            before = activate(x)
            shortcut = seeds.conv(filters, 1, strides)(before) if strides > 1 else before
            x = activate(seeds.conv(filters, 3, strides)(before))
            x = layers.add([seeds.conv(filters, 3)(x), shortcut])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, seeds.dense(spec.num_classes)(x), name="preact_resnet18")


def _basic_stages(
    x: keras.KerasTensor, seeds: Seeds, blocks: Sequence[int], width: int, synchronized: bool
) -> keras.KerasTensor:
    """Applies stages of so many basic blocks each, with 1x1 projections (option B)."""

    def norm(x: keras.KerasTensor) -> keras.KerasTensor:
        return batch_norm(synchronized)(x)

    for stage, count in enumerate(blocks):
        filters = width * 2**stage
        for block in range(count):
            strides = 2 if stage > 0 and block == 0 else 1
            shortcut = norm(seeds.conv(filters, 1, strides)(x)) if strides > 1 else x
            x = layers.ReLU()(norm(seeds.conv(filters, 3, strides)(x)))
            x = norm(seeds.conv(filters, 3)(x))
            x = layers.ReLU()(layers.add([x, shortcut]))
    return x


def resnet18(spec: DataSpec, seed: int = 0, width: int = 64, synchronized: bool = False) -> keras.Model:
    """Builds ResNet-18 for large images (He et al., CVPR 2016, table 1): 11.2 M parameters.

    A 7x7 convolution and max-pooling, four stages of two basic blocks, 1x1 projections (option B). The
    initial values are random.

    Args:
        spec: images of at least 32x32 pixels.
        seed: seed of the initial values.
        width: filters of the first stage; each stage doubles them.
        synchronized: see `init.batch_norm`.

    Raises:
        UserError: the images are smaller.
    """
    if min(spec.shape[:2]) < 32:
        raise UserError(f"resnet18 got images of {spec.shape}; allowed: at least 32x32 pixels")
    seeds = Seeds(seed)
    x = inputs = keras.Input(spec.shape)
    x = layers.ReLU()(batch_norm(synchronized)(seeds.conv(width, 7, 2)(x)))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = _basic_stages(x, seeds, (2, 2, 2, 2), width, synchronized)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, seeds.dense(spec.num_classes)(x), name="resnet18")
