"""The contract: what holds for every registered method."""

import copy
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import facts, fit, method_of, model_of, network, numpy_weights, subclassed_network

from tf_mwnet import ReweightedModel, UserError, losses, methods, optimizers, types
from tf_mwnet.model import classifier_head, example_record

every_method = pytest.mark.parametrize("method", methods.METHODS)
PARAMETERS = tuple((s, "float32") for s in ((6, 16), (16,), (16, 4), (4,)))
HEAD = types.Head("t", 4, 16, "softmax", PARAMETERS)
# Their weights sum to 1 by construction: they can not all be zero.
SUM_TO_ONE = ("insw", "mlc")


def examples_of(method, labels=(0, 1, 2, 3, 0, 1), dtype="float32", seed=0):
    """A batch as the model would hand it to the method."""
    rng = np.random.default_rng(seed)
    size = len(labels)
    logits = tf.constant(rng.normal(size=(size, 4)), dtype)
    labels = tf.constant(labels, tf.int64)
    losses = method.example_losses(logits, labels)
    if method.peer is not None:  # a second network's beside them
        losses = tf.stack([losses, losses[::-1]], axis=1)
    return types.Examples(
        losses,
        logits,
        labels,
        tf.constant(rng.permutation(120)[:size]),
        tf.constant(rng.normal(size=(size, 16)), dtype),
    )


def prepared(name):
    method = method_of(name)
    method.prepare(HEAD)
    return method


def learn(method, examples, gradient):
    optimizer = optimizers.Adam(1e-2) if method.trainable_variables else None
    if optimizer is not None:
        optimizer.build(method.trainable_variables)
    return method.learn(gradient, examples, optimizer)


# -------------------------------------------------------------------- on its own


@every_method
def test_configuration_round_trip(method):
    first = prepared(method)
    config = keras.saving.serialize_keras_object(first)
    second = methods.get(copy.deepcopy(config))
    second.prepare(HEAD)
    assert type(second) is type(first)
    again = keras.saving.serialize_keras_object(second)
    assert again["config"].keys() == config["config"].keys()
    for key, value in config["config"].items():
        assert again["config"][key] == value, key
    assert len(second.variables) == len(first.variables)
    second.set_weights(first.get_weights())
    batch = examples_of(first)
    np.testing.assert_array_equal(second.example_weights(batch), first.example_weights(batch))


@every_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes_and_types(method, dtype):
    method = prepared(method)
    batch = examples_of(method, dtype=dtype)
    assert batch.losses.shape in ((6,), (6, 4), (6, 2), (6, 9))
    weights = method.example_weights(batch)
    found = [batch.losses, weights]
    if method.learns:
        gradient = tf.constant(np.random.default_rng(1).normal(size=batch.losses.shape), dtype)
        found.append(learn(method, batch, gradient))
    for tensor in found:
        assert tensor.shape == batch.losses.shape
        assert tensor.dtype == dtype
        assert np.isfinite(tensor).all()
    assert method.label_weight(found[-1], batch).shape == (6,)
    curve = method.weight_function(tf.constant([0.0, 1.0, 2.0]))
    groups = () if method.group_of_class is None else (3,)
    assert curve is None or curve.shape == (3, *groups)


@every_method
def test_half_precision_logits_give_full_precision_losses(method):
    method = prepared(method)
    batch = examples_of(method, dtype="float16")
    assert batch.losses.dtype == tf.float32
    weights = method.example_weights(batch)
    assert weights.dtype == tf.float32
    np.testing.assert_allclose(
        weights, method.example_weights(examples_of(method)), rtol=2e-2, atol=2e-3
    )


@every_method
def test_zero_gradient(method):
    """Where the meta set says nothing, weights are finite, and those of l2rw are all zero."""
    method = prepared(method)
    if not method.takes_meta_batches:
        return
    batch = examples_of(method)
    before = method.example_weights(batch)
    after = learn(method, batch, tf.zeros_like(batch.losses))
    assert np.isfinite(after).all()
    np.testing.assert_allclose(after, before, atol=1e-6)


@every_method
def test_all_zero_weights(method, blobs):
    """A weight net that says 0, and a meta set that says nothing: the classifier stays."""
    if not method_of(method).takes_meta_batches:
        return
    if method in SUM_TO_ONE:
        made = prepared(method)
        np.testing.assert_allclose(tf.reduce_sum(made.example_weights(examples_of(made))), 1, rtol=1e-5)
        return
    method = method_of(method, meta_loss=lambda logits, labels: 0 * losses.cross_entropy(logits, labels))
    model = model_of(method, meta_lr=1e-6)
    if hasattr(model.method, "weight_net"):
        bias = model.method.weight_net.layers[-1].bias
        bias.assign(-2000 * tf.ones_like(bias))
    before = model.classifier.get_weights()
    fit(model, blobs, epochs=1)
    for a, b in zip(model.classifier.get_weights(), before, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.isfinite(example_record.columns(model.record)["weight"]).all()


@every_method
def test_batch_of_one_and_of_one_class(method):
    method = prepared(method)
    for labels in ((2,), (1, 1, 1)):
        batch = examples_of(method, labels)
        method.observe(batch)
        weights = method.example_weights(batch)
        assert np.isfinite(weights).all()
        if method.learns:
            assert np.isfinite(learn(method, batch, 0.1 * tf.ones_like(weights))).all()


@every_method
def test_missing_facts_are_named(method):
    needed = facts(method)
    if needed:
        with pytest.raises(UserError, match=f"'{method}' lacks {needed[0]}"):
            methods.get(method)


# -------------------------------------------------------------------- in the model


def resident_bytes():
    """Memory of this process; 0 where there is no /proc to ask."""
    if not os.path.exists("/proc/self/statm"):
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@every_method
def test_fit_evaluate_predict_save_and_go_on(blobs, tmp_path, method):
    x, y, xm, ym = blobs
    model = model_of(method)
    held_out = {"validation_data": (xm, ym), "validation_freq": 15}
    history = fit(model, blobs, epochs=15, batch_size=24, **held_out).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["val_accuracy"][-1] > 0.8
    logs = model.evaluate(xm, ym, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "accuracy"}
    predicted = model.predict(xm, verbose=0)
    assert predicted.shape == (20, 4)
    np.testing.assert_allclose((predicted.argmax(1) == ym).mean(), logs["accuracy"], atol=1e-6)
    np.testing.assert_allclose(model.classifier(xm), predicted, rtol=1e-4, atol=1e-6)
    exact = predicted.astype(np.float64)
    log_softmax = exact - np.log(np.exp(exact).sum(1, keepdims=True))
    np.testing.assert_allclose(logs["loss"], -log_softmax[np.arange(20), ym].mean(), atol=1e-6)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.method, type(model.method))
    np.testing.assert_allclose(loaded.classifier(xm), predicted, rtol=1e-4, atol=1e-6)
    for m in (model, loaded):  # optimizers and weight net go on where they were
        m.fit(x, y, meta_data=(xm, ym), batch_size=24, epochs=1, verbose=0)
    for a, b in zip(numpy_weights(model), numpy_weights(loaded), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    function, before = model.train_function, resident_bytes()
    fit(model, blobs, epochs=2, batch_size=24, steps_per_epoch=250)
    assert model.train_function is function
    # Below 1 MB as it is; a step traced anew each time would leave 3 MB a step.
    assert resident_bytes() - before < 10e6


MIXED = [("mixed_float16", name) for name in methods.METHODS]
MIXED += [("mixed_bfloat16", name) for name in ("erm", "mwnet", "l2rw", "gdw", "mlc", "co_teaching")]


@pytest.mark.parametrize(("policy", "method"), MIXED)
def test_mixed_precision(blobs, policy, method):
    keras.config.set_dtype_policy(policy)
    try:
        model = model_of(method)
        scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (policy == "mixed_float16")
        before = numpy_weights(model)
        history = fit(model, blobs, epochs=15).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    after = numpy_weights(model)
    assert all(np.isfinite(a).all() and a.dtype == np.float32 for a in after)
    names = [v.path for v in model.trainable_variables]
    # The mentor's sequences have one step: nothing comes back to its cells.
    still = {n for n, a, b in zip(names, after, before, strict=True) if not np.abs(a - b).max() > 0}
    assert all("recurrent_kernel" in name for name in still)


@every_method
def test_double_precision(blobs, float64, method):
    x, y, xm, ym = blobs
    model = model_of(method)
    history = fit(model, (x.astype("float64"), y, xm.astype("float64"), ym), epochs=8).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert all(a.dtype == np.float64 for a in numpy_weights(model))


@every_method
def test_small_batches_and_an_absent_class(blobs, method):
    """Batches of one example, training data without classes 2 and 3, a meta set without class 0."""
    x, y, xm, ym = blobs
    y, ym = y % 2, 1 + ym % 3
    model = model_of(method)
    fit(model, (x, y, xm, ym), epochs=1, batch_size=1)
    assert all(np.isfinite(a).all() for a in numpy_weights(model))
    rows = model.record.numpy()[:-1]
    seen = np.isfinite(rows[:, 0])
    assert seen.all() or model.method.sampling.balanced  # which draws with replacement
    assert seen.any()
    assert np.isfinite(rows[seen]).all()


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
