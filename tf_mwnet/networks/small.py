"""Small networks for small images."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_mwnet.errors import UserError
from tf_mwnet.networks.init import Seeds, batch_norm
from tf_mwnet.types import DataSpec


def small_cnn(
    spec: DataSpec,
    seed: int = 0,
    filters: tuple[int, ...] = (16, 32, 32),
    synchronized: bool = False,
) -> keras.Model:
    """Builds 3x3 convolutions with batch norm, global average pooling and one dense layer.

    2x2 max-pooling follows each convolution while the image has more than 4 pixels a side. With global
    pooling the network memorises wrong labels more slowly than with a large dense layer.

    Args:
        spec: the images.
        seed: seed of the initial values.
        filters: filters of each convolution.
        synchronized: see `init.batch_norm`.
    """
    return _cnn(spec, seed, filters, synchronized, halve=False, name="small_cnn")


def wide_cnn(spec: DataSpec, seed: int = 0, synchronized: bool = False) -> keras.Model:
    """Builds `small_cnn` with 32, 64, 128 and 128 filters, on images averaged over 2x2 pixels.

    With 242,000 parameters on 16x16 pixels of CIFAR it is cheap, and memorises 10,000 labels in some
    30 epochs, the wrong ones too.

    Args:
        spec: the images.
        seed: seed of the initial values.
        synchronized: see `init.batch_norm`.
    """
    return _cnn(spec, seed, (32, 64, 128, 128), synchronized, halve=True, name="wide_cnn")


def _cnn(
    spec: DataSpec, seed: int, filters: tuple[int, ...], synchronized: bool, halve: bool, name: str
) -> keras.Model:
    seeds = Seeds(seed)
    layers = [keras.Input(spec.shape)]
    size = min(spec.shape[:2])
    if halve:
        layers.append(keras.layers.AveragePooling2D(2))
        size //= 2
    for count in filters:
        layers += [seeds.conv(count, 3), batch_norm(synchronized), keras.layers.ReLU()]
        if size > 4:
            layers.append(keras.layers.MaxPooling2D(2))
            size //= 2
    layers += [keras.layers.GlobalAveragePooling2D(), seeds.dense(spec.num_classes)]
    return keras.Sequential(layers, name=name)


def lenet(spec: DataSpec, seed: int = 0) -> keras.Model:
    """Builds LeNet-5 (LeCun et al., 1998) with ReLU and max-pooling.

    Two 5x5 convolutions of 6 and 16 filters, and dense layers of 120 and 84.

    Args:
        spec: images of at least 12x12 pixels.
        seed: seed of the initial values.

    Raises:
        UserError: the images are smaller.
    """
    if min(spec.shape[:2]) < 12:
        raise UserError(f"lenet got images of {spec.shape}; allowed: at least 12x12 pixels")
    seeds = Seeds(seed)
    layers = [keras.Input(spec.shape)]
    layers += [seeds.conv(6, 5, use_bias=True, activation="relu"), keras.layers.MaxPooling2D(2)]
    layers += [
        keras.layers.Conv2D(16, 5, activation="relu", kernel_initializer=seeds.he_normal()),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        seeds.dense(120, activation="relu"),
        seeds.dense(84, activation="relu"),
        seeds.dense(spec.num_classes),
    ]
    return keras.Sequential(layers, name="lenet")


@keras.saving.register_keras_serializable(package="tf_mwnet")
class SigmoidLogits(keras.layers.Layer):
    """Converts one output z to the logits ``[0, z]`` of two classes, whose softmax is sigmoid(z).

    Examples:
        >>> SigmoidLogits()(tf.constant([[2.0]])).numpy().tolist()
        [[0.0, 2.0]]
    """

    def call(self, z: tf.Tensor) -> tf.Tensor:
        return keras.ops.pad(z, [[0, 0], [1, 0]])

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (shape[0], 2)


def lenet_sigmoid(spec: DataSpec, seed: int = 0) -> keras.Model:
    """Builds the LeNet of L2RW's released MNIST code, for two classes, with one sigmoid output.

    5x5 convolutions of 16, 32 and 64 filters, each with 3x3 max-pooling of stride 2, and a dense layer
    of 100; all weights start from a normal distribution of deviation 0.1 that is cut off at two
    deviations, biases from 0 (Ren et al., ICML 2018, ``mnist/reweight.py``).

    Args:
        spec: images of two classes.
        seed: seed of the initial values.

    Raises:
        UserError: there are more or fewer than two classes.
    """
    if spec.num_classes != 2:
        raise UserError(f"lenet_sigmoid got {spec.num_classes} classes; allowed: 2")
    seeds = Seeds(seed)

    def start() -> keras.initializers.Initializer:
        return keras.initializers.TruncatedNormal(stddev=0.1, seed=seeds())

    layers = [keras.Input(spec.shape)]
    for filters in (16, 32, 64):
        layers.append(
            keras.layers.Conv2D(
                filters, 5, padding="same", activation="relu", kernel_initializer=start()
            )
        )
        layers.append(keras.layers.MaxPooling2D(3, strides=2, padding="same"))
    dense = keras.layers.Dense(100, activation="relu", kernel_initializer=start())
    layers += [keras.layers.Flatten(), dense, keras.layers.Dense(1, kernel_initializer=start())]
    return keras.Sequential([*layers, SigmoidLogits()], name="lenet_sigmoid")


def linear(spec: DataSpec, seed: int = 0) -> keras.Model:
    """Builds multinomial logistic regression, one dense layer on the flattened input.

    Args:
        spec: inputs of any shape.
        seed: seed of the initial values.
    """
    layers = [keras.Input(spec.shape), keras.layers.Flatten(), Seeds(seed).dense(spec.num_classes)]
    return keras.Sequential(layers, name="linear")


def mlp(spec: DataSpec, seed: int = 0, hidden: tuple[int, ...] = (256,)) -> keras.Model:
    """Builds a multi-layer perceptron with ReLU on the flattened input.

    Args:
        spec: inputs of any shape.
        seed: seed of the initial values.
        hidden: sizes of the hidden layers.
    """
    seeds = Seeds(seed)
    layers = [keras.Input(spec.shape), keras.layers.Flatten()]
    layers += [seeds.dense(h, activation="relu") for h in hidden]
    return keras.Sequential([*layers, seeds.dense(spec.num_classes)], name="mlp")
