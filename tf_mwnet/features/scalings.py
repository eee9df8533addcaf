"""What a backbone's pixels are scaled to, from 8-bit ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

# ImageNet's mean and deviation of RGB values from 0 to 1, which most of PyTorch's networks take.
IMAGENET = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
# Its mean of BGR values from 0 to 255, for weights that come from Caffe.
CAFFE = np.array([103.939, 116.779, 123.68], np.float32)
SIDE = 0.7  # of the smallest random part, in units of the image's

SCALINGS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "pixels": lambda x: x,
    "unit": lambda x: x / 255,
    "signed": lambda x: x / 127.5 - 1,
    "imagenet": lambda x: (x / 255 - IMAGENET[0]) / IMAGENET[1],
    "caffe": lambda x: x[..., ::-1] - CAFFE,
}
# Of the networks in `keras.applications`, by what their own preprocessing does.
OF_APPLICATIONS = {
    "ConvNeXt": "pixels",
    "DenseNet": "imagenet",
    "EfficientNet": "pixels",
    "Inception": "signed",
    "MobileNet": "signed",
    "MobileNetV3": "pixels",
    "NASNet": "signed",
    "ResNet": "caffe",
    "ResNet50V2": "signed",
    "ResNet101V2": "signed",
    "ResNet152V2": "signed",
    "VGG": "caffe",
    "Xception": "signed",
}


def of_application(name: str) -> str:
    """Returns the scaling of a network in `keras.applications`, by the longest name that fits."""
    fits = [start for start in OF_APPLICATIONS if name.startswith(start)]
    return OF_APPLICATIONS[max(fits, key=len)] if fits else "pixels"


def resized(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes images to ``[b, height, width, 3]``, float32; grey ones become RGB."""
    images = tf.cast(images, tf.float32)
    if images.shape[-1] == 1:
        images = tf.repeat(images, 3, axis=-1)
    if tuple(images.shape[1:3]) != size:
        shrinks = images.shape[1] > size[0] or images.shape[2] > size[1]
        images = tf.image.resize(images, size, antialias=shrinks)
    return images


def view(images: tf.Tensor, draws: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Cuts a random part of each image, mirrored or not, and resizes it.

    The part has 49 to 100 % of the area (Inception-style crops of a side of 0.7 to 1) and the image's
    shape; half of the images are mirrored. Large images are shrunk first, as whole ones are, to where
    the smallest part has the result's size: cutting does not filter what it shrinks.

    Args:
        images: ``[b, H, W, C]``.
        draws: uniform numbers, 0 to 1, ``[b, 4]``: side, place (2), mirror.
        size: height and width of the result.
    """
    side = SIDE + (1 - SIDE) * draws[:, 0]
    top, left = draws[:, 1] * (1 - side), draws[:, 2] * (1 - side)
    right = left + side
    mirror = draws[:, 3] < 0.5
    x1, x2 = tf.where(mirror, right, left), tf.where(mirror, left, right)
    boxes = tf.stack([top, x1, top + side, x2], axis=1)
    height, width = (
        min(has, math.ceil(n / SIDE)) for has, n in zip(images.shape[1:3], size, strict=True)
    )
    images = resized(images, (height, width))
    return tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), size)
