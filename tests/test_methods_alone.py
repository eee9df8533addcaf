"""Single methods: values by hand, and what does not fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from contract import examples_of
from small import method_of, model_of, network, subclassed_network

from tf_mwnet import ReweightedModel, UserError, losses, methods, types
from tf_mwnet.model import classifier_head, example_record

# -------------------------------------------------------------------- methods on their own terms


def test_rows_of_insw(blobs):
    x, y, xm, ym = blobs
    model = model_of("insw")
    with pytest.raises(UserError, match="made for 120 training examples and got 100"):
        model.fit(x[:100], y[:100], meta_data=(xm, ym), verbose=0)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
    with pytest.raises(UserError, match="a dataset without rows"):
        model.fit(data, meta_data=(xm, ym), verbose=0)


def test_insw_moves_the_rows_of_its_batch_only(blobs):
    """One step of SGD on phi, by hand: d softmax."""
    made = method_of("insw")
    made.phi.assign(np.random.default_rng(0).normal(size=120))
    batch = examples_of(made)
    rows = batch.index.numpy()
    phi = made.phi.numpy()[rows].astype(float)
    share = np.exp(phi) / np.exp(phi).sum()
    np.testing.assert_allclose(made.example_weights(batch), share, rtol=1e-5)
    gradient = np.random.default_rng(1).normal(size=6)
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build(made.trainable_variables)
    before = made.phi.numpy()
    after = made.learn(tf.constant(gradient, tf.float32), batch, optimizer)
    moved = share * (gradient - (share * gradient).sum())
    np.testing.assert_allclose(before[rows] - made.phi.numpy()[rows], moved, atol=1e-6)
    others = np.setdiff1d(np.arange(120), rows)
    np.testing.assert_array_equal(made.phi.numpy()[others], before[others])
    np.testing.assert_allclose(tf.reduce_sum(after), 1, rtol=1e-6)


def test_linear_weights_of_insw():
    """phi = 1, decay 2: max(1 / 2 - G, 1e-5) for the rows of the batch, then divided by their sum."""
    made = method_of("insw", form="linear", decay=2)
    assert not made.trainable_variables
    batch = examples_of(made)
    np.testing.assert_allclose(made.example_weights(batch), np.full(6, 1 / 6), rtol=1e-6)
    gradient = np.array([0.1, -0.3, 0.6, 0, -0.2, 0.5])
    after = made.learn(tf.constant(gradient, tf.float32), batch, None)
    moved = np.array([0.4, 0.8, 1e-5, 0.5, 0.7, 1e-5])
    np.testing.assert_allclose(made.phi.numpy()[batch.index.numpy()], moved, rtol=1e-4)
    np.testing.assert_allclose(after, moved / moved.sum(), rtol=1e-4)
    assert (np.delete(made.phi.numpy(), batch.index.numpy()) == 1).all()
    made.learn(tf.zeros(6), batch, None)
    np.testing.assert_allclose(
        made.phi.numpy()[batch.index.numpy()], np.maximum(moved / 2, 1e-5), rtol=1e-4
    )


@pytest.mark.parametrize("detach", [True, False])
def test_the_sum_of_cmwnet_s_weights_is_a_constant(detach):
    """d weight / d V by hand, for the table of V = 0.2, 0.5, 0.1: (dv_i - [detach not] w_i dS) / S."""
    made = method_of("cmwnet", groups=2, detach=detach)
    v = tf.constant([0.2, 0.5, 0.1], tf.float64)
    made.weigh = lambda examples: v
    gradient = np.array([1.0, -2.0, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(v)
        weights = made.example_weights(None)
    np.testing.assert_allclose(weights, [0.25, 0.625, 0.125])
    slope = tape.gradient(weights, v, output_gradients=tf.constant(gradient))
    shared = 0 if detach else 0.25 - 1.25 + 0.375
    np.testing.assert_allclose(slope, (gradient - shared) / 0.8)


def test_scale_groups():
    groups = methods.scale_groups((5000, 100, 4000, 50, 900, 1000), 3)
    np.testing.assert_array_equal(groups, [2, 0, 2, 0, 1, 1])
    np.testing.assert_array_equal(methods.scale_groups((7, 7), 1), [0, 0])
    with pytest.raises(UserError, match=r"groups is 3, .* have 2 distinct sizes; .*1 to 2"):
        methods.scale_groups((5, 5, 9, 9), 3)
    with pytest.raises(UserError, match="groups is 0"):
        methods.scale_groups((5, 9), 0)


def test_cmwnet_uses_the_function_of_the_class_s_group():
    made = method_of("cmwnet", normalise=False, groups=2)
    np.testing.assert_array_equal(made.group_of_class, [1, 0, 0, 0])
    batch = examples_of(made)
    table = made.weight_net(batch.losses[:, None]).numpy()
    expected = table[np.arange(6), [1, 0, 0, 0, 1, 0]] / 6
    np.testing.assert_allclose(made.example_weights(batch), expected, rtol=1e-6)
    soft = batch._replace(labels=tf.one_hot(batch.labels, 4))
    np.testing.assert_allclose(made.example_weights(soft), expected, rtol=1e-6)


def test_cmwnet_with_one_group_is_mwnet():
    one, plain = method_of("cmwnet", groups=1, seed=3), method_of("mwnet", seed=3)
    batch = examples_of(one)
    np.testing.assert_allclose(one.example_weights(batch), plain.example_weights(batch), rtol=1e-6)
    assert one.group_of_class is None
    assert one.weight_function(tf.constant([0.5, 2.0])).shape == (2,)


def test_mlc_objective_is_the_cross_entropy_with_soft_labels(blobs):
    model = model_of("mlc")
    x, y, _, _ = blobs
    outputs, features = model.forward(x, training=True)
    hidden = np.maximum(x @ model.classifier.layers[0].kernel.numpy(), 0)
    np.testing.assert_allclose(features, hidden, rtol=1e-4, atol=1e-5)
    made = model.method
    batch = types.Examples(made.example_losses(outputs, y), outputs, tf.constant(y), None, features)
    soft = made.targets(batch)
    np.testing.assert_allclose(tf.reduce_sum(soft, axis=1), 1, rtol=1e-5)
    objective = tf.reduce_sum(made.example_weights(batch) * batch.losses)
    expected = tf.reduce_mean(losses.cross_entropy(outputs, soft))
    np.testing.assert_allclose(objective, expected, rtol=1e-5)
    given = soft.numpy()[np.arange(120), y] / 120
    np.testing.assert_allclose(made.label_weight(made.example_weights(batch), batch), given, rtol=1e-5)


def test_mlc_learns_to_correct_labels(blobs):
    x, y, xm, ym = blobs
    wrong = np.arange(len(y)) % 3 == 0
    noisy = np.where(wrong, (y + 1) % 4, y)
    model = model_of("mlc", meta_lr=1e-3)
    model.fit(x, noisy, meta_data=(xm, ym), batch_size=30, epochs=100, verbose=0)
    outputs, features = model.forward(x, training=False)
    batch = types.Examples(tf.zeros([120, 4]), outputs, tf.constant(noisy), None, features)
    corrected = model.method.targets(batch).numpy().argmax(axis=1)
    assert (corrected == y).mean() > 0.9


# -------------------------------------------------------------------- what does not fit


def test_gdw_needs_a_softmax_head():
    for activation, fits in (("softmax", True), ("sigmoid", False)):
        net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation=activation)])
        if fits:
            ReweightedModel(net, "gdw", from_logits=False)
        else:
            with pytest.raises(UserError, match=r"gdw got .* ends in sigmoid; allowed: softmax"):
                ReweightedModel(net, "gdw", from_logits=False)


def test_one_output_is_no_classifier():
    net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    with pytest.raises(UserError, match="has 1 output; allowed: two or more"):
        ReweightedModel(net, "erm")


def test_mlc_needs_features():
    own = subclassed_network()
    with pytest.raises(UserError, match="MLC got classifier"):
        ReweightedModel(own, "mlc")
    ReweightedModel(own, "mwnet")


def test_a_claim_of_symmetry_is_checked_for_the_number_of_classes():
    @losses.claim_symmetric
    def sigmoid_of_margin(logits, labels):
        """Symmetric for two classes only."""
        target = losses.one_hot(labels, logits)
        margin = tf.reduce_sum((2 * target - 1) * logits, axis=1)
        return tf.sigmoid(-margin)

    def net(classes):
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(classes)])

    method = methods.RMNW(meta_loss=sigmoid_of_margin)
    ReweightedModel(net(2), method)
    with pytest.raises(UserError, match="_margin' claims to be symmetric, but its sum over 3"):
        ReweightedModel(net(3), method)


def test_head_of_networks(blobs):
    found = classifier_head.inspect(network(), from_logits=True)
    assert (found.num_classes, found.num_features, found.ending) == (4, 16, "softmax")


def test_head_of_what_does_not_end_in_a_dense_layer():
    """Squeeze and excitation before a 1x1 convolution, and a head that is a model of its own."""
    layers = keras.layers
    x = keras.Input((6, 6, 3))
    squeezed = layers.Dense(3, "sigmoid")(layers.GlobalAveragePooling2D()(x))
    maps = layers.Multiply()([x, layers.Reshape((1, 1, 3))(squeezed)])
    excited = keras.Model(x, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(maps)))
    vectors, head = keras.Input((7,)), keras.Sequential([keras.Input((5,)), layers.Dense(4)])
    nested = keras.Model(vectors, head(layers.Dense(5)(vectors)))
    for classifier in (excited, nested):
        found = classifier_head.inspect(classifier, from_logits=True)
        assert (found.num_classes, found.num_features) == (4, None)
        with pytest.raises(UserError, match="has no features"):
            classifier_head.forward(classifier, features=True)


def test_head_of_shared_layers_and_layers_behind_it():
    one = network()
    body, last = one.layers[:-1], one.layers[-1]
    more = [keras.layers.Dropout(0.5), last, keras.layers.Rescaling(2.0), keras.layers.Softmax()]
    other = keras.Sequential([keras.Input((6,)), *body, *more])
    assert classifier_head.last_dense(other) is classifier_head.last_dense(one) is last
    x = np.ones((2, 6), np.float32)
    features = keras.Sequential([keras.Input((6,)), *body])(x)
    np.testing.assert_allclose(classifier_head.forward(other, True)(x, False)[1], features, rtol=1e-6)
    scaled = keras.Model(one.inputs, one.outputs[0] / 3.0)
    assert classifier_head.last_dense(scaled) is last


def test_head_of_a_model_without_layers():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.kernel = self.add_weight(shape=(6, 4))

        def call(self, x):
            return keras.ops.matmul(x, self.kernel)

    own = Own()
    own(np.zeros((2, 6), np.float32))
    assert classifier_head.inspect(own, from_logits=False).ending == "Own"


def test_recorded_change_of_class_level_weights(blobs):
    """That from the weights before the step of the weight net to those of the real step, by -sign(G).

    A weight net that moves far in the step must not show in it.
    """
    x, y, xm, ym = blobs
    model = model_of("gdw", meta_lr=1.0)
    method, seen = model.method, {}
    learn, weigh = method.learn, method.example_weights

    def watched(gradient, examples, optimizer):
        seen["before"], seen["slope"], seen["labels"] = weigh(examples), gradient, examples.labels
        seen["after"] = learn(gradient, examples, optimizer)
        return seen["after"]

    method.learn = watched
    model.record_examples(len(x))
    model.run_eagerly = True
    model.fit(x, y, meta_data=(xm, ym), batch_size=120, shuffle=False, epochs=1, verbose=0)
    changes = example_record.class_changes(model.record)
    np.testing.assert_allclose(changes, 120 * (seen["after"] - seen["before"]), atol=1e-4)
    others = ~np.eye(4, dtype=bool)[seen["labels"].numpy()]
    slope = seen["slope"].numpy()[others]
    large = np.abs(slope) > 1e-4 * np.abs(slope).max()
    np.testing.assert_array_equal(np.sign(changes[others][large]), -np.sign(slope[large]))
