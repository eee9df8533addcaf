"""What people give to ``compile`` and ``fit``: right, or one line that says what is allowed."""

import keras
import numpy as np
import pytest
import small
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tf_mwnet
from tf_mwnet import ReweightedModel, UserError
from tf_mwnet.data import checks

L = keras.layers
SIZE, META = 60, 50


def blobs(size, seed, classes=3):
    rng = np.random.default_rng(seed)
    y = np.arange(size) % classes
    centre = np.random.default_rng(99).normal(0, 2, (classes, 8))
    return (centre[y] + rng.normal(0, 1, (size, 8))).astype("float32"), y


X, Y = blobs(SIZE, 0)
XM, YM = blobs(META, 1)
FIT = {"batch_size": 20, "verbose": 0}


def network(classes=3, end=None, seed=0):
    init = keras.initializers.GlorotUniform(seed)
    return keras.Sequential(
        [keras.Input((8,)), L.Dense(16, "relu", kernel_initializer=init),
         L.Dense(classes, end, kernel_initializer=init)]
    )  # fmt: skip


def model_of(classifier=None, method="mwnet", from_logits=True, **compiled):
    model = ReweightedModel(classifier or network(), method, from_logits=from_logits)
    model.compile(**({"optimizer": keras.optimizers.SGD(0.1)} | compiled))
    return model


def values(model):
    return [v.numpy() for v in model.classifier.variables]


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(values(one), values(two), strict=True))


# -------------------------------------------------------------------- labels

TOLD = [
    (Y + 1, "y: label 3 is out of range; allowed: 0 to 2"),
    (np.where(np.arange(SIZE) == 5, -1, Y), "y: label -1 is out of range; allowed: 0 to 2"),
    (np.where(np.arange(SIZE) < 20, np.nan, Y), r"y: label nan is no integer \(20 are none\)"),
    (np.array(list("abc"))[Y], "y: label 'a' is no integer; allowed: integers, 0 to 2"),
    (np.array([b"cat", b"dog", b"cow"])[Y], "y: label 'cat' is no integer"),
    (np.eye(4)[Y], r"shape \(60, 4\); allowed: \(60,\), or class probabilities \(60, 3\)"),
    (np.where(Y == 1, 0.9, 0.1), r"label 0.1 is no integer .* or shares of each class \(60, K\)"),
    (np.ones((SIZE, 3)), "labels of row 0 sum to 3; allowed: class probabilities"),
    (np.eye(3)[Y] * 2 - 1, "labels of row 0 sum to -1"),
    (Y[:5], "x has 60 examples and 5 labels"),
    ([[0], [1, 2]] * 30, "y: labels are no array"),
    (np.zeros((SIZE, 2, 2)), "y: labels have the shape"),
    (Y.astype(complex), "labels are of type complex128"),
]


@pytest.mark.parametrize(("labels", "message"), TOLD)
@pytest.mark.parametrize("method", ["mwnet", "rmnw"])
def test_labels_that_are_none(labels, message, method):
    meta = (XM, YM) if method == "mwnet" else None
    model = model_of(method=method)
    before = values(model)
    with pytest.raises(UserError, match=message):
        model.fit(X, labels, meta_data=meta, **FIT)
    assert all(np.array_equal(a, b) for a, b in zip(before, values(model), strict=True))


def test_weights_of_an_evaluation_are_refused():
    model, weights = model_of(), np.ones(META, np.float32)
    message = r"^evaluation got sample weights; allowed: \(x, y\), whose loss is the plain mean$"
    weighted = tf.data.Dataset.from_tensor_slices((XM, YM, weights)).batch(20)
    with pytest.raises(UserError, match=message):
        model.evaluate(XM, YM, sample_weight=weights, verbose=0)
    with pytest.raises(UserError, match=message):
        model.evaluate(weighted, verbose=0)
    before = values(model)
    with pytest.raises(UserError, match=message):
        model.fit(X, Y, meta_data=(XM, YM), validation_data=(XM, YM, weights), **FIT)
    assert all(np.array_equal(a, b) for a, b in zip(before, values(model), strict=True))
    with pytest.raises(UserError, match=message):
        model.fit(X, Y, meta_data=(XM, YM), validation_data=weighted, **FIT)
    model.fit(X, Y, meta_data=(XM, YM), validation_data=(XM, YM, None), **FIT)


def test_labels_of_every_set_are_checked():
    with pytest.raises(UserError, match="meta_data: label 3 is out of range"):
        model_of().fit(X, Y, meta_data=(XM, YM + 1), **FIT)
    with pytest.raises(UserError, match="validation_data: label 3 is out of range"):
        model_of().fit(X, Y, meta_data=(XM, YM), validation_data=(XM, YM + 1), **FIT)
    data = tf.data.Dataset.from_tensor_slices((X, np.where(np.arange(SIZE) == 45, 7, Y))).batch(20)
    with pytest.raises(UserError, match=r"^y: label 7 is out of range; allowed: 0 to 2$"):
        model_of().fit(data, meta_data=(XM, YM), verbose=0)
    with pytest.raises(UserError, match=r"^meta_data: label 7 is out of range"):
        model_of().fit(X, Y, meta_data=data, **FIT)


@pytest.mark.parametrize(
    "labels",
    [Y.tolist(), Y.astype(float), Y.astype(np.uint8), Y[:, None], tf.constant(Y), Y.astype(np.int16)],
)
def test_labels_of_every_form_are_the_same(labels):
    one, two = model_of(), model_of()
    one.fit(X, Y, meta_data=(XM, YM), **FIT)
    two.fit(X, labels, meta_data=(XM, YM), **FIT)
    assert same(one, two)
    truth = model_of(network(2)), model_of(network(2))
    truth[0].fit(X, (Y > 0).astype(int), meta_data=(XM, YM > 0), **FIT)
    truth[1].fit(X, Y > 0, meta_data=(XM, YM > 0), **FIT)
    assert same(*truth)


LABELS = st.one_of(
    st.lists(
        st.one_of(st.integers(-2, 4), st.floats(-1, 3), st.booleans(), st.text(max_size=2)), max_size=4
    ),
    st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=1, max_size=4),
    st.lists(st.none(), max_size=3),
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(labels=LABELS)
def test_any_labels_are_converted_without_a_change_or_refused(labels):
    refused = ""
    try:
        found = checks.targets("y", labels, len(labels), 3)
    except UserError as error:
        refused = str(error)
    if refused:
        assert "\n" not in refused
        assert "allowed: " in refused
    elif found.ndim == 1:
        assert found.dtype == np.int64
        assert ((found >= 0) & (found <= 2)).all()
        np.testing.assert_array_equal(found, np.asarray(labels, float).reshape(-1))
    else:
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-2)
        np.testing.assert_allclose(found, labels)


# -------------------------------------------------------------------- inputs


def test_inputs_that_are_none():
    for x, message in (
        (tf.ragged.constant([[1.0], [2.0, 3.0]]), r"RaggedTensor; allowed: dense arrays \(x.to_tensor"),
        (tf.sparse.from_dense(X), r"SparseTensor; allowed: dense arrays \(tf.sparse.to_dense"),
        ((row for row in X), "x is a generator; allowed: arrays, a tf.data.Dataset"),
        ([{"a": 1}] * SIZE, "of objects; allowed: arrays of numbers"),
        (np.where(np.arange(8) == 2, np.nan, X), "NaN or infinite values in row 0 and 59 more"),
        (None, "x has no labels"),
    ):
        with pytest.raises(UserError, match=message):
            model_of().fit(x, Y, meta_data=(XM, YM), **FIT)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": X[:, :5]}, r"x has examples of the shape \(5,\); allowed: \(8,\), of the classifier"),
        ({"x": X[:, 0]}, r"x has examples of the shape \(\)"),
        ({"meta_data": (XM[:, :5], YM)}, r"meta_data has examples of the shape \(5,\)"),
        ({"validation_data": (XM[:, :5], YM)}, r"validation_data has examples of the shape \(5,\)"),
        ({"x": X.astype(str)}, "x has texts; allowed: numbers"),
        ({"x": X.astype(np.longdouble)}, "allowed: numbers of up to 64 bits"),
        ({"x": np.full((60, 8), np.datetime64("2020-01-01"))}, "x is of type datetime64"),
        ({"x": np.float32(1)}, "x is a single number"),
        ({"y": np.int64(1)}, "x has 60 examples and 1 labels"),
        ({"batch_size": 2.5}, "batch_size is 2.5; allowed: an integer"),
        ({"meta_batch_size": "3"}, "meta_batch_size is '3'; allowed: an integer"),
        ({"epochs": 1.5}, "epochs is 1.5; allowed: an integer"),
        ({"epochs": -1}, "epochs is -1; allowed: at least 0"),
        ({"seed": None}, "seed is None; allowed: an integer"),
        ({"seed": 2**70}, "seed is 1180591620717411303424"),
    ],
)
def test_arguments_that_do_not_fit(given, message):
    with pytest.raises(UserError, match=message):
        model_of().fit(**{"x": X, "y": Y, "meta_data": (XM, YM), **FIT, **given})


def test_a_last_axis_of_one_may_be_missing():
    """As in Keras."""
    grey = keras.Sequential([keras.Input((4, 2, 1)), L.Flatten(), L.Dense(3)])
    model_of(grey).fit(X.reshape(60, 4, 2), Y, meta_data=(XM.reshape(50, 4, 2, 1), YM), **FIT)


def test_several_inputs_in_every_form():
    def two():
        a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
        out = L.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(0))
        return keras.Model([a, b], out(L.Concatenate()([a, b])))

    trained = []
    for x, xm in (([X, 2 * X], [XM, 2 * XM]), ((X, 2 * X), (XM, 2 * XM))):
        model = model_of(two())
        model.fit(x, Y, meta_data=(xm, YM), validation_data=(xm, YM), **FIT)
        trained.append(model)
    assert same(*trained)


def test_a_list_of_examples():
    one, two = model_of(), model_of()
    one.fit(X, Y, meta_data=(XM, YM), **FIT)
    two.fit(X.tolist(), Y, meta_data=([*XM], YM), **FIT)
    assert same(one, two)


class Batches(keras.utils.PyDataset):
    """Three batches; counts the epochs."""

    def __init__(self):
        super().__init__()
        self.ended = 0

    def __len__(self):
        return 3

    def __getitem__(self, number):
        rows = slice(20 * number, 20 * number + 20)
        return X[rows], Y[rows]

    def on_epoch_end(self):
        self.ended += 1


def test_a_keras_dataset():
    data, one, two = Batches(), model_of(), model_of()
    one.fit(X, Y, meta_data=(XM, YM), epochs=2, shuffle=False, **FIT)
    two.fit(data, meta_data=(XM, YM), meta_batch_size=20, epochs=2, verbose=0, shuffle=False)
    assert same(one, two)
    assert data.ended == 2


def test_datasets_of_unknown_form():
    def load(i):
        return tf.numpy_function(lambda k: (X[k * 20 : k * 20 + 20], Y[k * 20 : k * 20 + 20]), [i],
                                 [tf.float32, tf.int64])  # fmt: skip

    one, two = model_of(), model_of()
    one.fit(X, Y, meta_data=(XM, YM), shuffle=False, **FIT)
    two.fit(tf.data.Dataset.range(3).map(load), meta_data=(XM, YM), meta_batch_size=20, verbose=0,
            shuffle=False)  # fmt: skip
    assert same(one, two)
    probabilities = tf.data.Dataset.from_tensor_slices((X, np.eye(3, dtype="float32")[Y])).batch(20)
    loose = probabilities.map(lambda a, b: (a, tf.py_function(lambda v: v, [b], tf.float32)))
    three, four = model_of(), model_of()
    three.fit(probabilities, meta_data=(XM, YM), verbose=0)
    four.fit(loose, meta_data=(XM, YM), verbose=0)
    assert same(three, four)


def test_datasets_that_train_nothing():
    empty = tf.data.Dataset.from_tensor_slices((XM, YM)).batch(80, drop_remainder=True)
    single = tf.data.Dataset.from_tensor_slices((X, Y))
    for x, meta, message in (
        (X, empty, "meta_data has no batch"),
        (empty, (XM, YM), "x has no batch"),
        (empty.filter(lambda a, b: True), (XM, YM), "x has no batch"),
        (single, (XM, YM), "x gives single examples; allowed: batches"),
        (single.batch(20).map(lambda a, b: {"x": a}), (XM, YM), "elements of 1 parts"),
    ):
        with pytest.raises(UserError, match=message):
            model_of().fit(x, Y if x is X else None, meta_data=meta, **FIT)


# -------------------------------------------------------------------- orders


@pytest.fixture
def seen(monkeypatch):
    """The first input of each training and meta example that a step sees."""
    from tf_mwnet.model import train_step

    rows = {"train": [], "meta": []}
    original = train_step.train_step

    def spy(model, data, learning=True):
        for part in data:
            tf.py_function(
                lambda v, part=part: rows[part].append(v.numpy()[:, 0].copy()), [data[part].x], []
            )
        return original(model, data, learning)

    monkeypatch.setattr(train_step, "train_step", spy)
    return rows


TRAIN = tf.data.Dataset.from_tensor_slices((X, Y)).batch(20)
META_SETS = {
    "arrays": (XM, YM),
    "dataset": tf.data.Dataset.from_tensor_slices((XM, YM)).batch(10),
    "unknown length": tf.data.Dataset.from_tensor_slices((XM, YM)).batch(10).filter(lambda a, b: True),
    "without an end": tf.data.Dataset.from_tensor_slices((XM, YM)).repeat().batch(10),
}


@pytest.mark.parametrize("meta", META_SETS)
@pytest.mark.parametrize(
    "data",
    [(X, Y), (TRAIN, None), (TRAIN.filter(lambda a, b: True), None)],
    ids=["x", "known", "unknown"],
)
@pytest.mark.parametrize("loop", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_whole_meta_set_is_used(seen, meta, data, loop):
    """Also if each epoch begins the training set anew; 5 x 3 steps take 150 = 3 x 50 meta examples."""
    model = model_of()
    for epochs in [1] * 5 if loop else [5]:
        model.fit(*data, meta_data=META_SETS[meta], meta_batch_size=10, epochs=epochs, **FIT)
    drawn = np.concatenate(seen["meta"])
    assert len(drawn) == 150
    _, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(counts, [3] * META)


def test_a_second_fit_goes_on(seen, tmp_path):
    """Five epochs are five epochs, in one call, in five, or after loading."""

    def start():
        return model_of(optimizer=tf_mwnet.optimizers.SGD(0.1, momentum=0.9))

    one, two, three = start(), start(), start()
    one.fit(X, Y, meta_data=(XM, YM), epochs=4, **FIT)
    for epoch in range(4):
        two.fit(X, Y, meta_data=(XM, YM), initial_epoch=epoch, epochs=epoch + 1, **FIT)
    three.fit(X, Y, meta_data=(XM, YM), epochs=2, **FIT)
    three.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    loaded.fit(X, Y, meta_data=(XM, YM), epochs=2, **FIT)
    assert same(one, two)
    assert same(one, loaded)
    orders = np.split(np.concatenate(seen["train"][:12]), 4)
    assert len({order.tobytes() for order in orders}) == 4
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.sort(X[:, 0]))


def test_a_part_of_an_epoch_goes_on_too(seen):
    model = model_of()
    for _ in range(3):
        model.fit(X, Y, meta_data=(XM, YM), steps_per_epoch=2, **FIT)
    for half in np.split(np.concatenate(seen["train"]), 2):
        np.testing.assert_array_equal(np.sort(half), np.sort(X[:, 0]))
    model.fit(X, Y, meta_data=(XM, YM), batch_size=30, verbose=0)  # a whole pass, whatever was before
    np.testing.assert_array_equal(np.sort(np.concatenate(seen["train"][6:])), np.sort(X[:, 0]))


# -------------------------------------------------------------------- compile and callbacks


def test_gradient_accumulation_is_the_mean_of_two_batches():
    """Two steps with a pause are one with twice the batch; with plain training, that is exact."""
    one = model_of(method="erm")
    one.fit(X, Y, batch_size=40, steps_per_epoch=1, shuffle=False, verbose=0)
    slow = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    two = model_of(method="erm", optimizer=slow)
    two.fit(X, Y, batch_size=20, steps_per_epoch=2, shuffle=False, verbose=0)
    for a, b in zip(values(one), values(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    slow = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    three = model_of(optimizer=slow)
    history = three.fit(X, Y, meta_data=(XM, YM), epochs=20, **FIT).history
    assert history["accuracy"][-1] > 0.8


def test_callbacks_and_metrics_in_every_form():
    class Counted(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1

    for form in (
        lambda c: c,
        lambda c: [c],
        lambda c: (c,),
        lambda c: keras.callbacks.CallbackList([c]),
    ):
        counted = Counted()
        model = model_of(metrics="accuracy")
        history = model.fit(X, Y, meta_data=(XM, YM), epochs=2, callbacks=form(counted), **FIT).history
        assert counted.epochs == 2
        assert len(history["accuracy"]) == 2
    metric = keras.metrics.SparseCategoricalAccuracy(name="mine")
    history = model_of(metrics=metric).fit(X, Y, meta_data=(XM, YM), **FIT).history
    assert "mine" in history


def test_one_optimizer_for_both_is_refused():
    both = keras.optimizers.Adam()
    with pytest.raises(UserError, match="optimizer and meta_optimizer are one object; allowed: two"):
        model_of(optimizer=both, meta_optimizer=both)


def test_a_layer_that_is_frozen_later():
    model = model_of()
    model.fit(X, Y, meta_data=(XM, YM), **FIT)
    first = model.classifier.layers[0]
    before, last = first.kernel.numpy(), model.classifier.layers[1].kernel.numpy()
    first.trainable = False
    model.fit(X, Y, meta_data=(XM, YM), **FIT)
    np.testing.assert_array_equal(first.kernel.numpy(), before)
    assert not np.array_equal(model.classifier.layers[1].kernel.numpy(), last)
    first.trainable = True
    model.fit(X, Y, meta_data=(XM, YM), **FIT)  # the optimizer still knows it
    assert not np.array_equal(first.kernel.numpy(), before)
    classifier = network()
    classifier.layers[0].trainable = False
    model = model_of(classifier)
    classifier.layers[0].trainable = True
    with pytest.raises(
        UserError, match=rf"layer '{classifier.layers[0].name}' is trained since compile"
    ):
        model.fit(X, Y, meta_data=(XM, YM), **FIT)


def test_train_on_batch_is_a_step_of_fit():
    one, two = model_of(), model_of()
    one.fit(X[:20], Y[:20], meta_data=(XM, YM), meta_batch_size=META, shuffle=False, **FIT)
    logs = two.train_on_batch(X[:20], Y[:20], meta_data=(XM, YM), return_dict=True)
    for a, b in zip(values(one), values(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert set(logs) == {"accuracy", "loss", "weighted_loss", "meta_loss"}
    with pytest.raises(UserError, match="MWNet needs meta_data"):
        two.train_on_batch(X[:20], Y[:20])
    assert len(model_of(method="erm").train_on_batch(X[:20], Y[:20])) == 3


@pytest.mark.parametrize(
    ("method", "made_for"), [("elr", {"num_classes": 3}), ("sop", {"num_classes": 3}), ("random", {})]
)
def test_a_batch_alone_does_not_say_which_examples_it_has(method, made_for):
    model = model_of(method=small.method_of(method, **made_for))
    with pytest.raises(UserError, match=r"keeps numbers of each example.*allowed: fit"):
        model.train_on_batch(X[:20], Y[:20])


def test_export_after_fit(tmp_path):
    model = model_of()
    model.fit(X, Y, meta_data=(XM, YM), **FIT)
    model.export(tmp_path / "served", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "served")
    served = loaded.serve(X)
    np.testing.assert_allclose(served, model.classifier.predict(X, verbose=0), atol=1e-5)


# -------------------------------------------------------------------- what a classifier returns


def inside():
    return keras.Sequential([keras.Input((8,)), network(end="softmax")])


def by_operation():
    x = keras.Input((8,))
    return keras.Model(x, keras.ops.softmax(L.Dense(3)(x)))


def behind_it():
    x = keras.Input((8,))
    return keras.Model(x, L.Reshape((3,))(L.Activation("softmax")(L.Dense(3)(x))))


class Own(keras.Model):
    def __init__(self, end):
        super().__init__()
        self.dense = L.Dense(3, end)

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize("make", [inside, by_operation, behind_it])
def test_a_softmax_that_is_hidden(make):
    with pytest.raises(UserError, match="its outputs are above 0 and sum to 1; allowed: logits"):
        ReweightedModel(make(), "mwnet")
    model_of(make(), from_logits=False).fit(X, Y, meta_data=(XM, YM), **FIT)
    with pytest.raises(UserError, match=r"returns values from -.* with from_logits=False"):
        ReweightedModel(network(), "mwnet", from_logits=False)


def test_a_softmax_of_a_model_without_known_inputs():
    for end, from_logits, message in (
        ("softmax", True, "sum to 1"),
        (None, False, "returns values from"),
    ):
        classifier = Own(end)
        classifier(X[:1])
        with pytest.raises(UserError, match=message):
            model_of(classifier, from_logits=from_logits).fit(X, Y, meta_data=(XM, YM), **FIT)


def test_two_outputs_are_refused():
    x = keras.Input((8,))
    with pytest.raises(UserError, match="has 2 outputs; allowed: one"):
        ReweightedModel(keras.Model(x, [L.Dense(3)(x), L.Dense(3)(x)]), "mwnet")


def test_fit_before_compile(blobs):
    x, y, *_ = blobs
    layers = [keras.Input((6,)), keras.layers.Dense(4)]
    model = tf_mwnet.ReweightedModel(keras.Sequential(layers), "erm")
    with pytest.raises(UserError, match="the model is not compiled; allowed: compile"):
        model.fit(x, y)
    with pytest.raises(UserError, match="the model is not compiled"):
        model.train_on_batch(x[:10], y[:10])


class Subclassed(keras.Model):
    """As people write one; its ``call`` has no argument ``training``."""

    def __init__(self):
        super().__init__()
        init = keras.initializers.GlorotUniform
        self.first = L.Dense(16, "relu", kernel_initializer=init(0))
        self.norm = L.BatchNormalization()
        self.last = L.Dense(3, kernel_initializer=init(1))

    def call(self, x):
        return self.last(self.norm(self.first(x)))


@pytest.mark.parametrize("method", ["mwnet", "l2rw", "gdw"])
def test_a_call_without_training(method):
    """It is in training mode in the virtual step, too: a functional model learns the same."""
    one = Subclassed()
    one(X[:2])
    inputs = keras.Input((8,))
    other = keras.Model(inputs, Subclassed().call(inputs))
    for a, b in zip(other.variables, one.variables, strict=True):
        a.assign(b)
    models = [model_of(classifier, method, ema=0.5) for classifier in (one, other)]
    for model in models:
        model.fit(X, Y, meta_data=(XM, YM), epochs=2, **FIT)
    np.testing.assert_allclose(*[m.evaluate(X, Y, verbose=0) for m in models], rtol=1e-5)
    for a, b in zip(*map(values, models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(*[m.method.variables for m in models], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
