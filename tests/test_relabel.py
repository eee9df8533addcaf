"""Methods that change labels, or make wrong ones, against numbers worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf
from small import model_of
from test_methods import prepared

import tf_mwnet
from tf_mwnet import UserError, losses, methods
from tf_mwnet.data import bias
from tf_mwnet.methods import d2l, mlnt
from tf_mwnet.types import Examples, Outputs


def soft_batch(probabilities, labels, index, features=None):
    logits = tf.constant(np.log(probabilities), tf.float32)
    index = tf.constant(index, tf.int64)
    return Examples(-tf.nn.log_softmax(logits), logits, tf.constant(labels), index, features)


def test_lccn_posterior_by_hand():
    latent = [0] * 4 + [1] + [0] * 5
    made = methods.LCCN(num_examples=10, counts=[[5, 1], [1, 3]], latent=latent, alpha=1.0)
    batch = soft_batch([[0.7, 0.3], [0.2, 0.8]], [0, 0], [3, 4])
    # In the warm-up the matrix of the start, [[6/8, 2/8], [2/6, 4/6]]: 0.7 * 6/8 to 0.3 * 2/6 and
    # 0.2 * 6/8 to 0.8 * 2/6. Counts that have changed do not matter.
    made.counts.assign([[4.0, 2.0], [3.0, 1.0]])
    made.begin_epoch(0, 10)
    found = made.posterior(batch, made._current(batch))
    first, second = np.array([0.7 * 6 / 8, 0.3 * 2 / 6]), np.array([0.2 * 6 / 8, 0.8 * 2 / 6])
    np.testing.assert_allclose(found, [first / first.sum(), second / second.sum()], rtol=1e-5)
    made.counts.assign([[5.0, 1.0], [1.0, 3.0]])
    made.begin_epoch(5, 10)
    # Row 3 is latent 0, given 0: counts without it [[4, 1], [1, 3]]: 0.7 * 5/7 to 0.3 * 2/6.
    # Row 4 is latent 1, given 0: counts without it [[5, 1], [0, 3]]: 0.2 * 6/8 to 0.8 * 1/5.
    first, second = np.array([0.7 * 5 / 7, 0.3 * 2 / 6]), np.array([0.2 * 6 / 8, 0.8 / 5])
    found = made.posterior(batch, made._current(batch))
    np.testing.assert_allclose(found, [first / first.sum(), second / second.sum()], rtol=1e-5)


def test_lccn_starts_at_the_predictions():
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    estimated = methods.LCCN.estimate(Outputs(p, np.array([0, 0, 1, 1])))
    np.testing.assert_array_equal(estimated["latent"], [0, 1, 1, 0])
    assert estimated["counts"] == [[1, 1], [1, 1]]
    made = methods.LCCN(4, **estimated)
    batch = soft_batch(p[:2], [0, 0], [0, 1])
    np.testing.assert_array_equal(made.targets(batch), [[1, 0], [0, 1]])
    unknown = methods.LCCN(4, counts=estimated["counts"])  # as a saved configuration makes it
    np.testing.assert_array_equal(unknown.targets(batch), [[1, 0], [0, 1]])
    for arguments, message in (
        ({"counts": [[1, 1]]}, r"counts has the shape \(1, 2\)"),
        ({"counts": [[1, 0], [0, 3]], "latent": [0, 1]}, r"latent has the shape \(2,\)"),
    ):
        with pytest.raises(UserError, match=message):
            methods.LCCN(4, **arguments)


def gibbs(p, given, latent, counts, order, passes, rng, warm_up):
    """Algorithm 1 in NumPy, with the authors' matrix: renewed every 200 steps, each example counted."""
    latent, counts, step = latent.copy(), counts.copy(), 0
    first = matrix = (counts + 1) / (counts + 1).sum(axis=1, keepdims=True)
    for turn in range(passes):
        for rows in order:
            if step % 200 == 0:
                matrix = (counts + 1) / (counts + 1).sum(axis=1, keepdims=True)
            q = p[rows] * (first if turn < warm_up * passes else matrix)[:, given[rows]].T
            edges = np.cumsum(q / q.sum(axis=1, keepdims=True), axis=1)[:, :-1]
            drawn = (rng.random(len(rows))[:, None] >= edges).sum(axis=1)
            np.add.at(counts, (latent[rows], given[rows]), -1)
            np.add.at(counts, (drawn, given[rows]), 1)
            latent[rows] = drawn
            step += 1
    return latent


@pytest.mark.parametrize("noise", ["flip2", "uniform"])
def test_lccn_finds_the_labels_that_the_authors_procedure_finds(noise):
    """20,000 labels, 40 % noise, and a classifier that knows the classes and some of the noise."""
    rng = np.random.default_rng(0)
    size, classes, passes = 20_000, 10, 20
    true = rng.integers(classes, size=size)
    matrix = bias.transition_matrix(noise, 0.4, classes, rng)
    given = bias.corrupt(true, matrix, rng)
    sure = rng.beta(8, 2, size)[:, None]
    p = sure * np.eye(classes)[true] + (1 - sure) * matrix[true]
    order = np.arange(size).reshape(-1, 500)
    made = methods.LCCN(size, **methods.LCCN.estimate(Outputs(p, given)))
    logits = tf.constant(np.log(p + 1e-12), tf.float32)
    observe = tf.function(
        lambda rows: made.observe(
            Examples(tf.zeros([500, 1]), tf.gather(logits, rows), tf.gather(given, rows), rows, None)
        )
    )
    for turn in range(passes):
        made.begin_epoch(turn, passes)
        for rows in order:
            observe(tf.constant(rows))
    latent = p.argmax(axis=1)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (latent, given), 1)
    theirs = gibbs(p, given, latent, counts, order, passes, rng, made.warm_up)
    right = (made.latent.numpy() == true).mean()
    assert (given == true).mean() < 0.65
    assert right == pytest.approx((theirs == true).mean(), abs=0.005)
    assert right > 0.92  # 0.60 and 0.64 where latent labels start at the given ones and stay there
    kept = np.zeros((classes, classes))
    np.add.at(kept, (made.latent.numpy(), given), 1)
    np.testing.assert_array_equal(made.counts, kept)


def test_local_intrinsic_dimensionality():
    """Points on a line, in a plane, in five dimensions: the estimate is near that number."""
    rng = np.random.default_rng(0)
    for dimensions in (1, 2, 5):
        points = np.zeros((2000, 7))
        points[:, :dimensions] = rng.uniform(size=(2000, dimensions))
        found = d2l.local_intrinsic_dimensionality(tf.constant(points), 50).numpy().mean()
        assert abs(found - dimensions) < 0.2 * dimensions
    # By hand: three points on a line at 0, 1, 3, two neighbours each.
    found = d2l.local_intrinsic_dimensionality(tf.constant([[0.0], [1.0], [3.0]]), 2)
    expected = [-2 / np.log(1 / 3), -2 / np.log(1 / 2), -2 / np.log(2 / 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_d2l_turns_where_dimensionality_rises():
    made = methods.D2L(window=3, start=0)
    batch = soft_batch([[0.7, 0.3], [0.2, 0.8]], [1, 1], [0, 1])
    for epoch, lid in enumerate([5.0, 4.0, 3.0, 2.9, 6.0]):
        made.begin_epoch(epoch, 10)
        np.testing.assert_array_equal(made.targets(batch), [[0, 1], [0, 1]])
        made.total.assign(2 * lid)
        made.batches.assign(2)
    made.begin_epoch(5, 10)  # 6 is above the mean of 4, 3, 2.9 by more than two deviations
    share = np.exp(-0.5 * 6.0 / 2.9)
    np.testing.assert_allclose(made.targets(batch), [[1 - share, share], [0, 1]], rtol=1e-5)
    made.total.assign(3.0)
    made.batches.assign(1)
    made.begin_epoch(6, 10)
    share = np.exp(-0.6 * 3.0 / 2.9)
    np.testing.assert_allclose(made.targets(batch), [[1 - share, share], [0, 1]], rtol=1e-5)


def test_d2l_turns_on_a_steady_rise_after_its_first_epochs():
    made = methods.D2L()
    for epoch in range(12):
        made.begin_epoch(epoch, 20)
        assert made.turned.numpy() == (epoch == 11)  # after eleven: five, the window, and one
        made.total.assign(3 + 0.1 * epoch)
        made.batches.assign(1)


# -------------------------------------------------------------------- joint optimization


def one_step(model, blobs):
    """Parameters before and after one step on all 120 examples, with SGD 0.1 and the meta set unused."""
    x, y, _, _ = blobs
    model.compile(tf_mwnet.optimizers.SGD(0.1))
    before = [tf.constant(v.numpy()) for v in model.classifier.trainable_variables]
    model.fit(x, y, batch_size=120, epochs=2, initial_epoch=1, shuffle=False, verbose=0)
    return before, [v.numpy() for v in model.classifier.trainable_variables]


def logits_at(model, parameters, x):
    return model.classifier.stateless_call(parameters, [], x, training=True)[0]


def test_joint_optimization_steps_along_its_objective(blobs):
    x, y, _, _ = blobs
    model = model_of("joint_optimization")
    own = np.random.default_rng(0).dirichlet(np.ones(4), 120)
    own[:40] = 0  # these keep the given label
    model.method.labels.assign(own)
    model.method.warm_up = 1.0
    before, after = one_step(model, blobs)
    q = np.where(np.arange(120)[:, None] < 40, np.eye(4)[y], own)
    share = np.array([60, 30, 20, 10]) / 120
    with tf.GradientTape() as tape:
        tape.watch(before)
        p = tf.nn.softmax(logits_at(model, before, x))
        label = -tf.reduce_mean(tf.reduce_sum(q * tf.math.log(p), axis=1))  # KL, but for a constant
        prior = tf.reduce_sum(share * tf.math.log(share / tf.reduce_mean(p, axis=0)))
        entropy = -tf.reduce_mean(tf.reduce_sum(p * tf.math.log(p), axis=1))
        objective = label + 1.2 * prior + 0.8 * entropy
    for v, g, found in zip(before, tape.gradient(objective, before), after, strict=True):
        np.testing.assert_allclose(found, v - 0.1 * g, rtol=1e-4, atol=1e-6)


def test_joint_optimization_averages_predictions():
    made = methods.JointOptimization(num_examples=4, class_sizes=(2, 2), average=2, warm_up=0.5)
    for epoch, p in enumerate(([0.9, 0.1], [0.6, 0.4], [0.2, 0.8])):
        made.begin_epoch(epoch, 6)
        made.observe(soft_batch([p, [0.5, 0.5]], [0, 0], [1, 2 if epoch == 1 else 0]))
    expected = [[0.5, 0.5], [0.4, 0.6], [0.5, 0.5], [0, 0]]  # of the last two epochs; row 3 unseen
    np.testing.assert_allclose(made.averaged(), expected, atol=1e-6)
    batch = soft_batch([[0.7, 0.3]] * 2, [0, 0], [1, 3])
    np.testing.assert_allclose(made.targets(batch), [[1, 0], [1, 0]])
    made.begin_epoch(3, 6)  # half of the epochs: now the labels change
    np.testing.assert_allclose(made.targets(batch), [[0.4, 0.6], [1, 0]], atol=1e-6)
    later = methods.JointOptimization(
        num_examples=4,
        class_sizes=(2, 2),
        **methods.JointOptimization.estimate(Outputs(None, None, method=made)),
    )
    later.begin_epoch(5, 6)
    np.testing.assert_allclose(later.targets(batch), [[0.4, 0.6], [1, 0]], atol=1e-6)
    weights = later.example_weights(batch).numpy()
    np.testing.assert_allclose(weights[:, 2:], 0)  # the second half has the first term alone
    np.testing.assert_allclose(later.label_weight(weights, batch), [0.2, 0.5], atol=1e-6)
    with pytest.raises(UserError, match=r"labels has the shape \(3, 2\)"):
        methods.JointOptimization(4, (2, 2), labels=np.zeros((3, 2)))


def test_joint_optimization_corrects_labels(blobs):
    x, y, _, _ = blobs
    noisy = np.where(np.arange(120) % 3 == 0, (y + 1) % 4, y)
    model = model_of(methods.JointOptimization(120, (30, 30, 30, 30)))
    model.compile(tf_mwnet.optimizers.SGD(0.1))
    model.fit(x, noisy, batch_size=30, epochs=30, verbose=0)
    assert (model.method.averaged().argmax(axis=1) == y).mean() > 0.9


# -------------------------------------------------------------------- MLNT


def test_neighbours():
    points = tf.constant([[0.0], [1.0], [3.0], [3.5]])
    found = mlnt.neighbours(points[:3], points, 2)
    np.testing.assert_array_equal(found, [[1, 2], [0, 2], [3, 1]])
    assert mlnt.neighbours(points, points, 10).shape == (4, 3)
    np.testing.assert_array_equal(mlnt.neighbours(points[:1], points[:1], 10), [[0]])


def test_synthetic_labels():
    """Half of the labels come from a neighbour, which here has the label of the other group."""
    made = methods.MLNT(num_examples=40, neighbours=1)
    place = np.arange(40)
    features = tf.constant(np.stack([place // 2, 0.1 * (place % 2)], axis=1), tf.float32)
    batch = soft_batch(np.full((40, 4), 0.25), place % 2, place, features)
    found = []
    for _ in range(20):
        made.observe(batch)
        found.append(made.synthetic(batch).numpy().argmax(axis=2))
    changed = np.array(found) != place % 2
    assert changed.shape == (20, 10, 40)
    np.testing.assert_array_equal(changed.sum(axis=2), 20)
    assert (np.abs(changed.mean(axis=(0, 1)) - 0.5) < 0.15).all()
    assert len(np.unique(changed.reshape(200, 40), axis=0)) == 200


def test_ramp():
    made = methods.MLNT(num_examples=4)
    found = []
    for epoch in (0, 9, 10, 25, 40, 99):
        made.begin_epoch(epoch, 100)
        found.append((float(made.ramp), float(made.kept)))
    low, half = np.exp(-5), np.exp(-5 / 4)
    expected = [(0, 0.99), (0, 0.99), (low, 0.99), (half, 0.99), (1, 0.999), (1, 0.999)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(("per_class", "second_order"), [(True, True), (False, False)])
def test_mlnt_step(blobs, per_class, second_order):
    """One step against the equations: two copies, the teacher is the classifier as it was."""
    x, y, _, _ = blobs
    terms = {"per_class": per_class, "second_order": second_order}
    model = model_of(methods.MLNT(num_examples=120, copies=2, warm_up=0.0, ramp_up=0.5, **terms))
    seen = []
    kind = type(model.method)

    class Watch(kind):
        def synthetic(self, examples):
            found = kind.synthetic(self, examples)
            tf.py_function(lambda v: seen.append(v.numpy()), [found], [])
            return found

    model.method.__class__ = Watch
    before, after = one_step(model, blobs)
    size = 120

    def entropy(parameters, labels):
        return tf.reduce_mean(losses.cross_entropy(logits_at(model, parameters, x), tf.constant(labels)))

    def slope(parameters, loss):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            value = loss(parameters)
        return tape.gradient(value, parameters)

    teacher = tf.nn.softmax(logits_at(model, before, x))

    def consistency(parameters):
        apart = tf.math.log(teacher) - tf.nn.log_softmax(logits_at(model, parameters, x))
        return tf.reduce_sum(teacher * apart) / size / (4 if per_class else 1)

    total = slope(before, lambda w: entropy(w, y))
    assert seen[0].shape == (2, size, 4)
    for labels in seen[0]:

        def after_step(w, labels=labels):
            inner = slope(w, lambda w: entropy(w, labels))
            inner = inner if second_order else [tf.stop_gradient(g) for g in inner]
            return consistency([v - 0.1 * g for v, g in zip(w, inner, strict=True)])

        total = [a + 0.5 * b for a, b in zip(total, slope(before, after_step), strict=True)]
    plain = slope(before, lambda w: entropy(w, y))
    for v, g, found, alone in zip(before, total, after, plain, strict=True):
        np.testing.assert_allclose(found, v - 0.1 * g, rtol=1e-4, atol=1e-7)
        assert np.abs(g - alone).max() > 1e-5


def test_teacher_follows():
    made = prepared("mlnt")
    values = [tf.fill(v.shape, 2.0) for v in made.teacher]
    made.begin_epoch(0, 60)  # not in use yet: as the classifier
    made.observe(None)
    made._follow(values)
    np.testing.assert_allclose(made.teacher[0], 2.0)
    made.begin_epoch(10, 60)
    made.step.assign(1000)
    made._follow([0 * v for v in values])
    np.testing.assert_allclose(made.teacher[0], 2 * 0.99, rtol=1e-6)
