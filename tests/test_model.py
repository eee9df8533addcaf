"""`ReweightedModel` as a Keras user uses it."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import fit, model_of, network, numpy_weights

import tf_mwnet
from tf_mwnet import ReweightedModel, UserError, methods, optimizers
from tf_mwnet.data import meta_sets
from tf_mwnet.model import example_record


def test_erm_is_plain_keras_training(blobs):
    x, y, _, _ = blobs
    ours, theirs = model_of("erm"), network()
    ours.fit(x, y, batch_size=30, epochs=3, shuffle=False, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(optimizers.SGD(0.1, momentum=0.9), loss)
    theirs.fit(x, y, batch_size=30, epochs=3, shuffle=False, verbose=0)
    for a, b in zip(ours.classifier.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_weights_learn_to_leave_out_wrong_labels(blobs):
    x, y, xm, ym = blobs
    wrong = np.arange(len(y)) % 3 == 0
    noisy = np.where(wrong, (y + 1) % 4, y)
    model = model_of(meta_lr=3e-3)
    model.fit(x, noisy, meta_data=(xm, ym), batch_size=30, epochs=60, verbose=0)
    weight = example_record.columns(model.record)["weight"]
    assert weight[wrong].mean() < 0.5 * weight[~wrong].mean()


def test_datasets_for_training_and_meta_set(blobs):
    x, y, xm, ym = blobs
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(30)
    meta = tf.data.Dataset.from_tensor_slices((xm, ym)).batch(10)
    from_data, from_arrays = model_of(), model_of()
    from_data.fit(train, meta_data=meta, epochs=2, verbose=0)
    fit(from_arrays, blobs, epochs=2, batch_size=30, meta_batch_size=10, shuffle=False)
    for a, b in zip(numpy_weights(from_data), numpy_weights(from_arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_dataset_after_arrays(blobs):
    x, y, xm, ym = blobs
    model = model_of()
    fit(model, blobs, epochs=1)
    seen = model.record.numpy()[:-1].copy()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(40)
    model.fit(data, meta_data=(xm, ym), epochs=1, verbose=0)
    np.testing.assert_array_equal(model.record.numpy()[:-1], seen)


def test_one_hot_labels_give_the_same_step(blobs):
    x, y, xm, ym = blobs
    eye = np.eye(4, dtype=np.float32)
    sparse, dense = model_of(), model_of()
    fit(sparse, blobs, epochs=2)
    dense.fit(x, eye[y], meta_data=(xm, eye[ym]), batch_size=32, epochs=2, verbose=0)
    for a, b in zip(numpy_weights(sparse), numpy_weights(dense), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, 4), ({"batch_size": 24}, 5), ({"steps_per_epoch": 7}, 7)],
)
def test_steps_per_execution(blobs, settings, steps):
    """Keras would take more steps where several at once do not divide those of an epoch."""
    one, four = model_of(), model_of()
    four.compile(optimizers.SGD(0.1, momentum=0.9), optimizers.Adam(1e-2), steps_per_execution=4)
    for model in (one, four):
        fit(model, blobs, epochs=2, **settings)
        fit(model, blobs, epochs=1, **settings)
        assert int(model.optimizer.iterations.numpy()) == 3 * steps
    for a, b in zip(numpy_weights(one), numpy_weights(four), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_steps_of_a_dataset_that_several_at_once_do_not_divide(blobs):
    x, y, xm, ym = blobs
    model = model_of()
    model.compile(optimizers.SGD(0.1), optimizers.Adam(1e-2), steps_per_execution=4)
    endless = tf.data.Dataset.from_tensor_slices((x, y)).batch(20).repeat()
    given = {"meta_data": (xm, ym), "verbose": 0}
    with pytest.raises(
        UserError, match="steps_per_epoch is 6 with steps_per_execution 4; allowed: a mul"
    ):
        model.fit(endless, steps_per_epoch=6, **given)
    model.fit(endless, steps_per_epoch=8, **given)
    assert int(model.optimizer.iterations.numpy()) == 8
    model.fit(endless.take(6), **given)  # which ends by itself
    assert int(model.optimizer.iterations.numpy()) == 14


def test_half_precision_weight_gradient_agrees(blobs):
    """One step of the weight net in mixed_float16 is that of float32 to half precision."""
    moved = {}
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            model = ReweightedModel(network(), "mwnet")
            pair = optimizers.SGD(0.1), keras.optimizers.SGD(1.0)
            if policy == "mixed_float16":  # low enough not to overflow, so that no step is left out
                pair = [keras.optimizers.LossScaleOptimizer(o, initial_scale=128) for o in pair]
            model.compile(*pair)
            before = [v.numpy() for v in model.method.trainable_variables]
            fit(model, blobs, epochs=1, batch_size=120)
            after = [v.numpy() for v in model.method.trainable_variables]
        finally:
            keras.config.set_dtype_policy("float32")
        moved[policy] = np.concatenate([np.ravel(a - b) for a, b in zip(after, before, strict=True)])
    size = np.abs(moved["float32"]).max()
    assert size > 1e-6
    np.testing.assert_allclose(moved["mixed_float16"], moved["float32"], atol=0.05 * size)


def test_probabilities_instead_of_logits(blobs):
    logits, probabilities = model_of(), model_of(from_logits=False)
    fit(logits, blobs)
    fit(probabilities, blobs)
    for a, b in zip(numpy_weights(logits), numpy_weights(probabilities), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_optimizers_hold_their_own_variables_only(blobs):
    model = model_of()
    fit(model, blobs, epochs=1)
    assert len(model.classifier.trainable_variables) == 4
    assert len(model.method.trainable_variables) == 4
    assert len(model.optimizer.momentums) == 4
    assert len(model.meta_optimizer._momentums) == 4


def test_batch_norm_moves_once_a_step(blobs):
    x, y, xm, ym = blobs
    model = model_of(bn=True)
    kernel, bias = (v.numpy() for v in model.classifier.layers[0].variables)
    model.fit(x, y, meta_data=(100 + xm, ym), batch_size=120, epochs=1, verbose=0, shuffle=False)
    hidden = x @ kernel + bias
    layer = model.classifier.layers[1]
    np.testing.assert_allclose(layer.moving_mean, 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * hidden.var(0), rtol=1e-4)


def test_dropout_seed_moves_once_a_step(blobs):
    weighted, plain = model_of(dropout=0.5), model_of("erm", dropout=0.5)
    for model in (weighted, plain):
        fit(model, blobs, epochs=2)
    states = [m.classifier.layers[2].seed_generator.state.numpy() for m in (weighted, plain)]
    np.testing.assert_array_equal(*states)


def test_regularisers_count_in_the_real_step_only(blobs):
    x, y, xm, ym = blobs
    results = []
    for l2 in (0.0, 0.5):
        regulariser = keras.regularizers.L2(l2)
        init = keras.initializers.HeNormal(0)
        net = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(4, kernel_initializer=init, kernel_regularizer=regulariser),
            ]
        )
        model = ReweightedModel(net, "mwnet")
        model.compile(optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
        start = net.get_weights()[0]
        model.fit(x, y, meta_data=(xm, ym), batch_size=120, epochs=1, verbose=0)
        results.append((net.get_weights()[0], model.method.get_weights()))
    (without, theta), (penalised, same_theta) = results
    np.testing.assert_allclose(penalised, without - 0.1 * 2 * 0.5 * start, rtol=1e-4, atol=1e-6)
    for a, b in zip(theta, same_theta, strict=True):
        np.testing.assert_array_equal(a, b)


def test_frozen_layers_stay(blobs):
    net = network()
    net.layers[0].trainable = False
    model = ReweightedModel(net)
    model.compile(optimizers.SGD(0.1), optimizers.Adam(1e-2))
    before = net.layers[0].get_weights()
    fit(model, blobs)
    for a, b in zip(net.layers[0].get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_embeddings_with_sparse_gradients():
    rng = np.random.default_rng(0)
    words = rng.integers(1, 20, size=(60, 5))
    y = (words[:, 0] > 10).astype(int)
    net = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(20, 8),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    model = ReweightedModel(net, "mwnet")
    model.compile(optimizers.SGD(0.5, momentum=0.9, l2=1e-4), optimizers.Adam(1e-2))
    history = model.fit(words, y, meta_data=(words[:20], y[:20]), epochs=20, batch_size=20, verbose=0)
    assert history.history["loss"][-1] < 0.3


def test_callbacks_see_the_losses(blobs):
    seen = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs)))
    fit(model_of(), blobs, epochs=2, callbacks=[callback, keras.callbacks.TerminateOnNaN()])
    assert [set(logs) for logs in seen] == [{"loss", "accuracy", "weighted_loss", "meta_loss"}] * 2


def test_all_zero_weights_leave_the_classifier_alone(blobs):
    model = model_of(meta_lr=1e-6)
    last = model.method.weight_net.layers[-1]
    last.bias.assign([-2000.0])
    before = model.classifier.get_weights()
    fit(model, blobs, epochs=1)
    for a, b in zip(model.classifier.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    values = tf.constant([0.0, 0.0])
    np.testing.assert_array_equal(methods.batch_weights(values, normalise=True), [0, 0])
    np.testing.assert_allclose(methods.batch_weights(tf.constant([1.0, 3.0]), True), [0.25, 0.75])
    np.testing.assert_allclose(methods.batch_weights(tf.constant([1.0, 3.0]), False), [0.5, 1.5])


def test_virtual_step_follows_the_learning_rate(blobs):
    """G is proportional to the step size, so a weight net under SGD moves ten times as far."""
    moved = []
    for rate in (1e-3, 1e-4):
        drop = keras.optimizers.schedules.PiecewiseConstantDecay([100], [rate, 1.0])
        model = ReweightedModel(network(), "mwnet")
        model.compile(optimizers.SGD(drop), keras.optimizers.SGD(1.0))
        before = model.method.get_weights()
        fit(model, blobs, epochs=1, batch_size=120)
        after = model.method.get_weights()
        moved.append(
            np.abs(np.concatenate([np.ravel(a - b) for a, b in zip(after, before, strict=True)])).max()
        )
    np.testing.assert_allclose(moved[0] / moved[1], 10, rtol=0.05)


def test_without_a_meta_set(blobs, caplog):
    """A method for noisy meta sets takes one out of the training set, balanced over classes."""
    x, y, _, _ = blobs
    given, drawn = model_of("rmnw"), model_of("rmnw")
    (x_left, y_left), (x_meta, y_meta) = meta_sets.hold_out_meta(x, y, seed=0)
    assert (len(x_left), len(x_meta)) == (108, 12)
    np.testing.assert_array_equal(np.bincount(y_meta), [3] * 4)
    both = np.concatenate([x_left, x_meta])
    assert len(np.unique(both, axis=0)) == 120
    given.fit(x_left, y_left, meta_data=(x_meta, y_meta), batch_size=32, epochs=2, verbose=0)
    drawn.fit(x, y, batch_size=32, epochs=2, verbose=0)
    for a, b in zip(numpy_weights(given), numpy_weights(drawn), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "taking 3 examples of each class" in caplog.text
    dense = meta_sets.hold_out_meta({"x": x}, np.eye(4)[y], seed=0)
    np.testing.assert_array_equal(dense[1][0]["x"], x_meta)
    with pytest.raises(UserError, match="meta set is 2, 1 of class 0, which has 1 examples"):
        meta_sets.hold_out_meta(x[:3], np.array([0, 1, 1]), seed=0)


def test_bad_use(blobs):
    x, y, xm, ym = blobs
    model = model_of()
    with pytest.raises(UserError, match="MWNet needs meta_data"):
        model.fit(x, y, verbose=0)
    with pytest.raises(UserError, match="sample_weight"):
        model.fit(x, y, meta_data=(xm, ym), sample_weight=np.ones(120), verbose=0)
    with pytest.raises(UserError, match=r"sizes|examples"):
        model.fit(x, y[:5], meta_data=(xm, ym), verbose=0)
    with pytest.raises(UserError, match="loss"):
        model.compile("sgd", loss="mse")
    with pytest.raises(UserError, match="softmax"):
        ReweightedModel(network(softmax=True), "mwnet")
    with pytest.raises(UserError, match="not built"):
        ReweightedModel(keras.Sequential([keras.layers.Dense(2)]), "erm")
    with pytest.raises(UserError, match=r"unknown method 'mwnt'.*mwnet"):
        ReweightedModel(network(), "mwnt")


def test_public_names_exist():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", tf_mwnet.__version__)
    for name in tf_mwnet.__all__:
        assert getattr(tf_mwnet, name) is not None
    with pytest.raises(AttributeError):
        tf_mwnet.nothing  # noqa: B018
