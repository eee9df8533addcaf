"""The meta gradient through every kind of Keras layer: equal to finite differences, or refused."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mwnet import UserError
from tf_mwnet.meta import check_differentiable, weight_gradient

L = keras.layers
IMAGE, SEQUENCE, VECTOR = (6, 6, 4), (5, 4), (6,)


@keras.saving.register_keras_serializable()
class Attention(L.Layer):
    """Of a sequence to itself."""

    def __init__(self, heads=False):
        super().__init__()
        self.inner = L.MultiHeadAttention(2, 3) if heads else L.Attention()

    def call(self, x):
        return self.inner(x, x) if isinstance(self.inner, L.MultiHeadAttention) else self.inner([x, x])


@tf.custom_gradient
def own_softsign(x):
    """What is within such a function needs no derivative of its derivative."""

    def gradient(upstream):
        return upstream / (1 + tf.abs(x)) ** 2

    resized = tf.image.resize(tf.reshape(x, [1, -1, 1, 1]), [1, 1]) * 0
    return tf.nn.softsign(x) + tf.cast(tf.reduce_sum(resized), x.dtype), gradient


ACTIVATIONS = sorted(
    name
    for name, f in inspect.getmembers(keras.activations, inspect.isfunction)
    if name not in ("get", "serialize", "deserialize", "glu", "threshold")  # with arguments: below
)
LAYERS = {
    **{name: (lambda name=name: L.Activation(name), VECTOR) for name in ACTIVATIONS},
    **{name: (lambda name=name: getattr(L, name)(), VECTOR)
       for name in ("LeakyReLU", "PReLU", "ELU", "ReLU", "Softmax")},
    **{f"{kind}Pooling{d}D": (lambda kind=kind, d=d: getattr(L, f"{kind}Pooling{d}D")(2), shape)
       for kind in ("Max", "Average") for d, shape in ((1, SEQUENCE), (2, IMAGE))},
    **{f"Global{kind}Pooling{d}D": (lambda k=kind, d=d: getattr(L, f"Global{k}Pooling{d}D")(), shape)
       for kind in ("Max", "Average") for d, shape in ((1, SEQUENCE), (2, IMAGE))},
    **{f"Adaptive{kind}Pooling2D": (lambda k=kind: getattr(L, f"Adaptive{k}Pooling2D")(2), IMAGE)
       for kind in ("Max", "Average") if hasattr(L, "AdaptiveMaxPooling2D")},
    **{f"{name} of {len(shape)}": (lambda name=name: getattr(L, name)(), shape)
       for name in ("BatchNormalization", "LayerNormalization", "UnitNormalization")
       for shape in (VECTOR, SEQUENCE, IMAGE)},
    "GroupNormalization": (lambda: L.GroupNormalization(2), IMAGE),
    "RMSNormalization": (lambda: L.RMSNormalization(), VECTOR),
    # SpectralNormalization is not here: its own gradient takes the singular vectors for constants.
    "glu": (lambda: L.Lambda(keras.activations.glu, output_shape=(3,)), VECTOR),
    "threshold": (lambda: L.Activation(lambda x: keras.activations.threshold(x, 0.1, 0.0)), VECTOR),
    "softsign with a gradient of its own": (lambda: L.Activation(own_softsign), VECTOR),
    "softsign by hand": (lambda: L.Activation(lambda x: x / (1 + abs(x))), VECTOR),
    **{f"Resizing {kind}": (lambda kind=kind: L.Resizing(4, 5, kind), IMAGE)
       for kind in ("bilinear", "nearest", "bicubic")},
    **{f"UpSampling2D {kind}": (lambda kind=kind: L.UpSampling2D(2, interpolation=kind), IMAGE)
       for kind in ("nearest", "bilinear", "bicubic")},
    "UpSampling1D": (lambda: L.UpSampling1D(2), SEQUENCE),
    **{name: (lambda name=name: getattr(L, name)(3, use_cudnn=False) if name != "SimpleRNN"
              else L.SimpleRNN(3), SEQUENCE) for name in ("LSTM", "GRU", "SimpleRNN")},
    "Bidirectional": (lambda: L.Bidirectional(L.GRU(3, use_cudnn=False)), SEQUENCE),
    "ConvLSTM1D": (lambda: L.ConvLSTM1D(2, 3), (3, 5, 2)),
    "Rescaling": (lambda: L.Rescaling(0.5), VECTOR),
    "Attention": (lambda: Attention(), SEQUENCE),
    "MultiHeadAttention": (lambda: Attention(True), SEQUENCE),
    "Conv1D": (lambda: L.Conv1D(3, 3), SEQUENCE),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(3), IMAGE),
    "SeparableConv2D": (lambda: L.SeparableConv2D(3, 3), IMAGE),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(3, 3), IMAGE),
    "Cropping2D": (lambda: L.Cropping2D(1), IMAGE),
    "ZeroPadding2D": (lambda: L.ZeroPadding2D(1), IMAGE),
    "CenterCrop": (lambda: L.CenterCrop(3, 3), IMAGE),
    "Dropout": (lambda: L.Dropout(0.3, seed=1), VECTOR),
    "SpatialDropout2D": (lambda: L.SpatialDropout2D(0.3, seed=1), IMAGE),
    "GaussianDropout": (lambda: L.GaussianDropout(0.3, seed=1), VECTOR),
    "GaussianNoise": (lambda: L.GaussianNoise(0.3, seed=1), VECTOR),
    "AlphaDropout": (lambda: L.AlphaDropout(0.3, seed=1), VECTOR),
    "TimeDistributed": (lambda: L.TimeDistributed(L.Dense(3)), SEQUENCE),
    "RepeatVector": (lambda: L.RepeatVector(2), VECTOR),
    "EinsumDense": (lambda: L.EinsumDense("abc,cd->abd", (5, 3)), SEQUENCE),
}  # fmt: skip


def network(make, shape):
    """A trained layer, the layer in question, and a trained layer, in double precision."""
    keras.utils.set_random_seed(1)
    first = L.Conv2D(4, 1) if shape == IMAGE else L.Dense(shape[-1])
    layers = [keras.Input(shape), first, make(), L.Flatten(), L.Dense(3)]
    model = keras.Sequential(layers)
    for v in model.trainable_variables:
        v.assign(np.random.default_rng(len(v.path)).normal(0.1, 0.5, v.shape))
    return model


@pytest.fixture(autouse=True)
def double():
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def compared(model, shape):
    """The meta gradient of three weights, and its finite differences."""
    rng = np.random.default_rng(0)
    x, xm = (tf.constant(rng.normal(size=(3, *shape))) for _ in range(2))
    y, ym = tf.constant([0, 1, 2]), tf.constant([1, 2, 0])
    parameters = [v.value for v in model.trainable_variables]
    state = [v.value for v in model.non_trainable_variables]
    names = [layer.name for layer in model.layers]

    def losses(parameters, x, y):
        logits, _ = model.stateless_call(parameters, state, x, training=True)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)

    def virtual_gradient(weights):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            each = losses(parameters, x, y)
        found = tape.gradient(each, parameters, output_gradients=weights)
        found = [tf.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
        check_differentiable([weights], found, names)
        return found

    def meta_loss(virtual):
        return tf.reduce_mean(losses(virtual, xm, ym))

    @tf.function(autograph=False)
    def gradient(weights):
        return weight_gradient(virtual_gradient, weights, parameters, tf.constant(0.5, tf.float64),
                               meta_loss)[0]  # fmt: skip

    @tf.function(autograph=False)
    def loss(weights):
        moved = zip(parameters, virtual_gradient(weights), strict=True)
        return meta_loss([p - 0.5 * g for p, g in moved])

    weights = np.array([0.5, 1.0, 1.5])
    step = 1e-5 * np.eye(3)
    differences = [(loss(weights + h) - loss(weights - h)) / 2e-5 for h in step]
    return gradient(tf.constant(weights)).numpy(), np.array(differences)


# TensorFlow has no derivative of their derivative. Bilinear resizing would drop its terms in silence.
REFUSED = {
    "softsign": r"'activation.*\(SoftsignGrad\).*allowed: another activation",
    "Resizing bilinear": r"'resizing.*\(ResizeBilinearGrad\).*allowed: resizing before the first",
    "Resizing nearest": r"'resizing.*\(ResizeNearestNeighborGrad\)",
    "Resizing bicubic": r"'resizing.*\(ResizeBicubicGrad\)",
    "UpSampling2D bilinear": r"'up_sampling2d.*\(ResizeBilinearGrad\)",
    "UpSampling2D bicubic": r"'up_sampling2d.*\(ResizeBicubicGrad\)",
}


QUICK = {*REFUSED, "gelu", "Softmax", "MaxPooling2D", "BatchNormalization of 3", "LSTM", "Attention"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in LAYERS]
)
def test_the_meta_gradient_through_a_layer(name):
    make, shape = LAYERS[name]
    model = network(make, shape)
    if name in REFUSED:
        with pytest.raises(UserError, match=REFUSED[name]):
            compared(model, shape)
    else:
        ours, differences = compared(model, shape)
        np.testing.assert_allclose(ours, differences, rtol=1e-5, atol=1e-7 * np.abs(ours).max())
        assert np.abs(ours).max() > 1e-9


def fitted(layer, method="mwnet", eager=False):
    from tf_mwnet import ReweightedModel

    model = keras.Sequential([keras.Input(IMAGE), L.Conv2D(4, 1), layer, L.Flatten(), L.Dense(3)])
    model = ReweightedModel(model, method)
    model.compile("sgd", run_eagerly=eager)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, *IMAGE)).astype("float32"), np.arange(6) % 3
    model.fit(x, y, meta_data=(x, y), batch_size=3, verbose=0)
    return model


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("kind", ["bilinear", "lanczos3"])
def test_fit_names_the_layer(kind, eager):
    """In one line, also in single precision and without a graph; plain training needs no such thing."""
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    with pytest.raises(UserError, match=r"^layer 'mine': TensorFlow has no second derivative \("):
        fitted(L.Resizing(4, 4, kind, name="mine"), eager=eager)
    fitted(L.Resizing(4, 4, kind), "erm", eager)
    before = keras.Sequential([keras.Input((8, 8, 4)), L.Resizing(6, 6, kind), L.Conv2D(2, 3)])
    assert before.output_shape == (None, 4, 4, 2)


@pytest.mark.parametrize("make", [L.LSTM, L.GRU])
def test_recurrent_layers_do_without_cudnn(make, monkeypatch):
    """On a GPU Keras takes cuDNN's kernel, whose derivative has none."""
    import sys

    from tf_mwnet import ReweightedModel
    from tf_mwnet.types import Batch

    monkeypatch.setattr(
        sys.modules["keras.src.backend.tensorflow.rnn"], "cudnn_ok", lambda *a, **k: True
    )
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")

    def model_of(layer, method):
        model = keras.Sequential([keras.Input(SEQUENCE), layer, L.Dense(3)])
        model = ReweightedModel(model, method)
        model.compile("sgd")
        return model

    unknown = tf.fill([3], tf.constant(-1, tf.int64))
    batch = Batch(tf.zeros([3, *SEQUENCE]), tf.constant([0, 1, 2]), unknown)
    data = {"train": batch, "meta": batch}
    model = model_of(L.Bidirectional(make(3)), "mwnet")
    tf.function(lambda: model.train_step(data), autograph=False).get_concrete_function()
    assert model.classifier.layers[0].forward_layer.use_cudnn is False
    plain = model_of(make(3), "erm")
    assert plain.classifier.layers[0].use_cudnn == "auto"
    with pytest.raises(UserError, match=r"layer '.*' has use_cudnn=True.*allowed: False or 'auto'"):
        model_of(make(3, use_cudnn=True), "mwnet")
