"""The contract of a method in a model: training, saving, types of numbers, awkward data."""

import os

import keras
import numpy as np
import pytest
from contract import CAN_BE_ZERO, FEWER
from small import fit, method_of, model_of, numpy_weights

from tf_mwnet import losses, methods
from tf_mwnet.model import example_record


def state(model):
    optimizers = [model.optimizer, model.meta_optimizer]
    own = [v for optimizer in optimizers if optimizer is not None for v in optimizer.variables]
    return [*model.variables, *own, model.record]


# The tests of one method go to one worker, where they share a model, whose step is traced once.
@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in methods.METHODS],
)
def compiled(request):
    """A model and the initial values of its state, for each method."""
    model = model_of(request.param)
    model.record_examples(120)
    return model, [v.numpy() for v in state(model)]


@pytest.fixture
def untrained(compiled):
    """Gives a method's model, put back to its initial values, each time it is called."""

    def put_back():
        model, initial = compiled
        for variable, value in zip(state(model), initial, strict=True):
            variable.assign(value)
        return model

    return put_back


def test_fit_evaluate_and_predict(blobs, untrained):
    _, _, xm, ym = blobs
    model = untrained()
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


def test_all_state_is_in_variables(blobs, untrained):
    """Once they have their first values again, a model trains as it did; so checkpoints are whole."""
    results = []
    for _ in range(2):
        model = untrained()
        fit(model, blobs, epochs=2, batch_size=24)
        results.append([v.numpy() for v in state(model)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_saved_model_goes_on(blobs, tmp_path, untrained):
    xm = blobs[2]
    model = untrained()
    fit(model, blobs, epochs=3, batch_size=24)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.method, type(model.method))
    predicted = model.predict(xm, verbose=0)
    np.testing.assert_allclose(loaded.classifier(xm), predicted, rtol=1e-4, atol=1e-6)
    for m in (model, loaded):  # optimizers and what is learned go on where they were
        fit(m, blobs, epochs=1, batch_size=24)
    for a, b in zip(numpy_weights(model), numpy_weights(loaded), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def resident_bytes():
    """Memory of this process; 0 where there is no /proc to ask."""
    if not os.path.exists("/proc/self/statm"):
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_step_is_traced_once(blobs, untrained):
    model = untrained()
    fit(model, blobs, epochs=1, batch_size=24)
    function, before = model.train_function, resident_bytes()
    fit(model, blobs, epochs=2, batch_size=24, steps_per_epoch=50)
    assert model.train_function is function
    # Below 1 MB; a step that is traced again each time leaves 3 MB.
    assert resident_bytes() - before < 10e6


def test_small_batches_and_an_absent_class(blobs, untrained):
    """Batches of one example, training data without classes 2 and 3, a meta set without class 0."""
    x, y, xm, ym = blobs
    model = untrained()
    fit(model, (x, y % 2, xm, 1 + ym % 3), epochs=1, batch_size=1)
    assert all(np.isfinite(a).all() for a in numpy_weights(model))
    rows = model.record.numpy()[:-1]
    seen = np.isfinite(rows[:, 0])
    assert seen.all() or model.method.sampling.balanced  # which draws with replacement
    assert seen.any()
    assert np.isfinite(rows[seen]).all()


MIXED = [pytest.param("mixed_float16", *each.values, marks=each.marks) for each in FEWER]
MIXED += [
    pytest.param("mixed_bfloat16", name, marks=pytest.mark.slow)
    for name in ("erm", "mwnet", "l2rw", "gdw", "mlc", "co_teaching")
]


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


@pytest.mark.parametrize("method", FEWER)
def test_double_precision(blobs, float64, method):
    x, y, xm, ym = blobs
    model = model_of(method)
    history = fit(model, (x.astype("float64"), y, xm.astype("float64"), ym), epochs=8).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert all(a.dtype == np.float64 for a in numpy_weights(model))


@pytest.mark.parametrize("method", CAN_BE_ZERO)
def test_all_zero_weights(method, blobs):
    """A weight net that says 0, and a meta set that says nothing: the classifier stays."""
    method = method_of(method, meta_loss=lambda logits, labels: 0 * losses.cross_entropy(logits, labels))
    model = model_of(method, meta_lr=1e-6)
    if hasattr(model.method, "weight_net"):
        bias = model.method.weight_net.layers[-1].bias
        bias.assign(-2000 * np.ones(bias.shape))
    before = model.classifier.get_weights()
    fit(model, blobs, epochs=1)
    for a, b in zip(model.classifier.get_weights(), before, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.isfinite(example_record.columns(model.record)["weight"]).all()
