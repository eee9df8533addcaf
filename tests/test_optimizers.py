import keras
import numpy as np
import pytest

from tf_mwnet.optimizers import SGD, Adam


def steps(optimizer, gradients, start):
    variable = keras.Variable(np.array(start), dtype="float32")
    optimizer.build([variable])
    seen = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(np.array(gradient, "float32"))], [variable])
        seen.append(variable.numpy().copy())
    return np.array(seen)


def test_sgd_momentum_and_coupled_l2_by_hand():
    # w0 = 1, g = 0.5 each time, l2 = 0.1, m = 0.9, lr = 0.1:
    # v1 = 0.5 + 0.1 * 1 = 0.6,                     w1 = 1 - 0.06 = 0.94
    # v2 = 0.9 * 0.6 + 0.5 + 0.1 * 0.94 = 1.134,    w2 = 0.94 - 0.1134 = 0.8266
    found = steps(SGD(0.1, momentum=0.9, l2=0.1), [[0.5], [0.5]], [1.0])
    np.testing.assert_allclose(found[:, 0], [0.94, 0.8266], rtol=1e-6)


def test_sgd_step_size_is_outside_the_velocity():
    # lr drops from 1 to 0.1 after the first step: v2 = 0.9 * 1 + 0 = 0.9, so w falls by 0.09;
    # Keras's SGD, which keeps lr in the velocity, would take off 0.9.
    drop = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.1])
    ours = steps(SGD(drop, momentum=0.9), [[1.0], [0.0]], [2.0])
    np.testing.assert_allclose(ours[:, 0], [1.0, 0.91], rtol=1e-6)
    theirs = steps(keras.optimizers.SGD(drop, momentum=0.9), [[1.0], [0.0]], [2.0])
    np.testing.assert_allclose(theirs[:, 0], [1.0, 0.1], rtol=1e-5)


def test_sgd_nesterov_by_hand():
    # v1 = 1, step = g + 0.5 v1 = 1.5; v2 = 0.5 + 1 = 1.5, step = 1 + 0.75 = 1.75
    found = steps(SGD(0.1, momentum=0.5, nesterov=True), [[1.0], [1.0]], [0.0])
    np.testing.assert_allclose(found[:, 0], [-0.15, -0.325], rtol=1e-6)


def test_sgd_nesterov_with_coupled_l2_by_hand():
    # w0 = 1, g = 0.5, l2 = 0.1, m = 0.9, lr = 0.1; d = g + l2 w, v <- m v + d, step = d + m v:
    # d1 = 0.6, v1 = 0.6, step 1.14, w1 = 0.886; d2 = 0.5886, v2 = 1.1286, step 1.60434, w2 = 0.725566
    seen = steps(SGD(0.1, momentum=0.9, nesterov=True, l2=0.1), [[0.5], [0.5]], [1.0])
    np.testing.assert_allclose(seen[:, 0], [0.886, 0.725566], rtol=1e-6)


def test_sgd_without_momentum_or_l2_is_plain():
    found = steps(SGD(0.5), [[1.0, 2.0]], [0.0, 0.0])
    np.testing.assert_allclose(found[0], [-0.5, -1.0])


def test_adam_l2_goes_through_the_preconditioner():
    # Gradient 0, l2 > 0: the first Adam step has size lr whatever l2 is.
    found = steps(Adam(0.01, l2=0.1), [[0.0]], [1.0])
    np.testing.assert_allclose(found[0], [0.99], rtol=1e-5)
    plain = steps(keras.optimizers.Adam(0.01, epsilon=1e-8), [[0.3], [-0.1]], [1.0])
    np.testing.assert_allclose(steps(Adam(0.01), [[0.3], [-0.1]], [1.0]), plain, rtol=1e-6)


@pytest.mark.parametrize("optimizer", [SGD(0.2, momentum=0.8, l2=0.3), Adam(0.02, l2=0.1)])
def test_configuration_round_trip(optimizer):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(copy) is type(optimizer)
    assert copy.get_config() == optimizer.get_config()


def test_variables_can_be_left_out_of_l2():
    optimizer = SGD(1.0, l2=0.5)
    kernel = keras.Variable(np.ones(1), dtype="float32", name="kernel")
    bias = keras.Variable(np.ones(1), dtype="float32", name="bias")
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build([kernel, bias])
    zero = keras.ops.zeros(1)
    optimizer.apply([zero, zero], [kernel, bias])
    np.testing.assert_allclose([kernel.numpy()[0], bias.numpy()[0]], [0.5, 1.0])
