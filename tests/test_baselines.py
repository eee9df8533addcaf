"""The classical methods against numbers worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf
from small import fit, method_of, model_of
from test_methods import examples_of, prepared

import tf_mwnet
from tf_mwnet import UserError, losses, methods
from tf_mwnet.data import orders
from tf_mwnet.methods import mentornet, transition
from tf_mwnet.types import Examples, Head, Sampling

# softmax of these is (0.7, 0.2, 0.1).
LOGITS = tf.constant(np.log([[0.7, 0.2, 0.1]]) + 3)


def batch_of(values, labels=(0, 1, 2, 3), index=None):
    """A batch with given losses."""
    size = len(values)
    return Examples(
        tf.constant(values, tf.float32),
        tf.zeros([size, 4]),
        tf.constant(labels[:size]),
        tf.range(size, dtype=tf.int64) if index is None else tf.constant(index, tf.int64),
    )


@pytest.mark.parametrize(
    ("method", "label", "expected"),
    [
        ("focal", 0, 0.03210074),  # 0.3 ** 2 * 0.3566749
        ("focal", 2, 1.8650940),  # 0.9 ** 2 * 2.3025851
        ({"name": "focal", "gamma": 0}, 1, 1.6094379),
        ("gce", 1, 0.9655267),  # (1 - 0.2 ** 0.7) / 0.7
        ("sce", 0, 1.2356675),  # 0.1 * 0.3566749 + 4 * 0.3
        ({"name": "sce", "alpha": 1, "beta": 0.5}, 1, 3.2094379),  # 1.6094379 + 2 * 0.8
        # 0.1 * 0.3566749 - log(1e-4) * 0.3, the labels clipped as in the authors' code
        ({"name": "sce", "log_zero": float(np.log(1e-4))}, 0, 2.7987696),
        ("mae", 1, 1.6),
        ("bootstrap_hard", 1, 1.3588853),  # 0.8 * 1.6094379 + 0.2 * 0.3566749
        # 0.95 * 1.6094379 + 0.05 * (0.7 * 0.3566749 + 0.2 * 1.6094379 + 0.1 * 2.3025851)
        ("bootstrap_soft", 1, 1.5690573),
        ("mwnet --loss=focal", 0, 0.03210074),
        ("l2rw --loss=mae", 1, 1.6),
        ("mwnet", 1, 1.6094379),
    ],
)
def test_losses_by_hand(method, label, expected):
    method = methods.get(method)
    found = method.example_losses(LOGITS, tf.constant([label]))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)
    dense = method.example_losses(LOGITS, tf.one_hot([label], 3))
    np.testing.assert_allclose(dense, [expected], rtol=1e-6)


def test_class_balanced_focal_loss():
    """Cui et al., 2019: n = (2, 1), beta 0.5: 1 / (1 - 0.25), 1 / (1 - 0.5), scaled to (0.8, 1.2)."""
    method = methods.get({"name": "class_balanced", "class_sizes": (2, 1), "beta": 0.5, "loss": "focal"})
    logits, labels = tf.constant(np.log([[0.7, 0.3], [0.7, 0.3]])), tf.constant([0, 1])
    values = method.example_losses(logits, labels)
    np.testing.assert_allclose(values, [0.3**2 * 0.3566749, 0.7**2 * 1.2039728], rtol=1e-6)
    weights = method.example_weights(Examples(values, logits, labels, tf.range(2)))
    np.testing.assert_allclose(weights, [0.8 / 2, 1.2 / 2], rtol=1e-6)
    assert method.get_config()["loss"] == "focal"


def test_the_weight_net_sees_the_loss_that_is_trained_on(blobs):
    x, y, *_ = blobs
    model = model_of(methods.get("mwnet --loss=gce"))
    fit(model, blobs, epochs=1)
    logits, labels = tf.convert_to_tensor(model.classifier(x[:8])), tf.constant(y[:8])
    values = model.method.example_losses(logits, labels)
    np.testing.assert_allclose(values, losses.generalised_cross_entropy(logits, labels), rtol=1e-6)
    again = methods.get(model.method.get_config() | {"name": "mwnet"})
    assert again.loss == "gce"
    with pytest.raises(UserError, match="unknown loss 'hinge'; allowed: cross_entropy, mae, gce"):
        methods.get("mwnet --loss=hinge")
    with pytest.raises(UserError, match="method erm has no option 'loss'; allowed: none"):
        methods.get("erm --loss=focal")


@pytest.mark.parametrize("name", ["focal", "bootstrap_soft", "bootstrap_hard"])
def test_slopes_by_central_differences(name):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 3)), tf.constant([0, 1, 2, 0, 1])
    loss = getattr(losses, name)
    with tf.GradientTape() as tape:
        z = tf.constant(logits)
        tape.watch(z)
        total = tf.reduce_sum(loss(z, labels))
    slope = tape.gradient(total, z).numpy()
    for i, k in ((0, 0), (3, 2), (4, 1)):
        step = np.zeros_like(logits)
        step[i, k] = 1e-5
        high, low = (tf.reduce_sum(loss(tf.constant(logits + s * step), labels)) for s in (1, -1))
        np.testing.assert_allclose(slope[i, k], (high - low) / 2e-5, rtol=1e-6, atol=1e-9)


def test_focal_of_a_sure_prediction_has_a_finite_slope():
    z = tf.constant([[200.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = losses.focal(z, tf.constant([0]), 0.5)
    assert np.isfinite(tape.gradient(loss, z)).all()


def test_weights_by_class():
    sizes, batch = (60, 30, 20, 10), batch_of([1.0] * 4)
    found = methods.Proportion(sizes).example_weights(batch)
    np.testing.assert_allclose(found, np.array([0.5, 1, 1.5, 3]) / 4, rtol=1e-6)  # 120 / (4 n)
    effective = (1 - 0.99 ** np.array(sizes)) / 0.01  # 45.28, 26.03, 18.21, 9.56
    expected = 1 / effective / np.mean(1 / effective)
    found = methods.ClassBalanced(sizes, beta=0.99).example_weights(batch)
    np.testing.assert_allclose(found, expected / 4, rtol=1e-5)
    np.testing.assert_allclose(methods.ClassBalanced(sizes, beta=0).example_weights(batch), 0.25)
    assert methods.ClassBalanced(sizes).beta == 0.9999
    # Mean over the training set: (60 * 1 + 30 * 0.5 + 20 * 0 + 10 * 0.5) / 120 = 2 / 3.
    oracle = methods.WeightedOracle(sizes, (1.0, 0.5, 0.0, 0.5))
    np.testing.assert_allclose(
        oracle.example_weights(batch), np.array([1.5, 0.75, 0, 0.75]) / 4, rtol=1e-6
    )
    soft = batch._replace(labels=tf.constant([[0.5, 0.5, 0, 0]] * 4))
    np.testing.assert_allclose(
        methods.Proportion(sizes).example_weights(soft), [0.75 / 4] * 4, rtol=1e-6
    )
    with pytest.raises(UserError, match="a share in clean_share is 2"):
        methods.WeightedOracle(sizes, (1, 2, 0, 0))


def test_random_weights():
    made = method_of("random")
    seen = []
    for _ in range(400):
        made.observe(None)
        weights = made.example_weights(batch_of([1.0] * 4, index=[5, 17, 80, 5])).numpy()
        assert weights[0] == weights[3]  # the same row
        seen.append(weights)
    seen = np.array(seen)
    np.testing.assert_allclose(seen.sum(axis=1), np.where(seen.any(axis=1), 1, 0), rtol=1e-5)
    # A weight is 0 with probability 1/2; all four (three rows) with 1/8.
    assert 0.4 < (seen == 0).mean() < 0.6
    assert 0.07 < (~seen.any(axis=1)).mean() < 0.18
    again = method_of("random")
    again.observe(None)
    np.testing.assert_array_equal(
        again.example_weights(batch_of([1.0] * 4, index=[5, 17, 80, 5])), seen[0]
    )


def test_self_paced_learning():
    made = methods.SPL(start=0.5, grow=0.5, decay=0.9)
    batch = batch_of([4.0, 1.0, 3.0, 2.0])
    made.begin_epoch(0, 8)
    made.observe(batch)  # the age starts at the second smallest of four losses
    np.testing.assert_allclose(made.example_weights(batch), [0, 0.25, 0, 0.25])
    made.begin_epoch(2, 8)  # halfway to all: three of four
    made.observe(batch)
    np.testing.assert_allclose(made.age, 0.9 * 2 + 0.1 * 3, rtol=1e-6)
    np.testing.assert_allclose(made.example_weights(batch), [0, 0.25, 0, 0.25])
    made.age.assign(3)
    np.testing.assert_allclose(made.example_weights(batch), [0, 0.25, 0.25, 0.25])
    made.begin_epoch(4, 8)
    np.testing.assert_allclose(made.example_weights(batch), [0.25] * 4)


def test_hard_mining():
    made = methods.HardMining((90, 10, 80, 20))  # classes 1 and 3 are the minority
    batch = batch_of([5.0, 0.1, 6.0, 0.2, 1.0, 2.0], labels=(0, 1, 2, 3, 0, 2))
    np.testing.assert_allclose(made.example_weights(batch), [0.25, 0.25, 0.25, 0.25, 0, 0])
    none = batch_of([5.0, 6.0, 1.0], labels=(0, 2, 0))
    np.testing.assert_allclose(made.example_weights(none), [0, 1, 0])
    only = batch_of([5.0, 6.0], labels=(1, 3))
    np.testing.assert_allclose(made.example_weights(only), [0.5, 0.5])
    assert made.sampling == Sampling(batch_factor=5)
    with pytest.raises(UserError, match="hard_mining got 2 classes of 7 examples each"):
        methods.HardMining((7, 7))


def test_balanced_order():
    labels = np.array([0] * 90 + [2] * 9 + [5])
    batches = [b.numpy() for b in orders.balanced(labels, 12, (3, orders.BALANCED)).take(200)]
    for rows in batches:
        np.testing.assert_array_equal(np.bincount(labels[rows], minlength=6), [4, 0, 4, 0, 0, 4])
    counts = np.bincount(np.concatenate(batches), minlength=100)
    assert counts[99] == 800
    assert (np.abs(counts[90:99] - 800 / 9) < 40).all()  # four deviations of a binomial draw
    later = next(iter(orders.balanced(labels, 12, (3, orders.BALANCED), start_step=7)))
    np.testing.assert_array_equal(later, batches[7])


@pytest.mark.parametrize(("name", "size", "of_class_0"), [("resample", 12, 3), ("hard_mining", 36, 30)])
def test_sampling_in_fit(blobs, name, size, of_class_0):
    """30 examples of class 0 and two of each other; a batch of 12, and of 60, which is all 36."""
    x, y, _, _ = blobs
    rows = np.concatenate([np.flatnonzero(y == k)[: 30 if k == 0 else 2] for k in range(4)])
    model = model_of(name)
    observed = tf.Variable([0, 0], trainable=False)

    class Watch(type(model.method)):
        def observe(self, examples):
            zeros = tf.reduce_sum(tf.cast(examples.labels == 0, tf.int32))
            observed.assign([tf.shape(examples.labels)[0], zeros])

    model.method.__class__ = Watch
    model.fit(x[rows], y[rows], batch_size=12, epochs=2, steps_per_epoch=3, verbose=0)
    np.testing.assert_array_equal(observed, [size, of_class_0])
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
    with pytest.raises(UserError, match="the method cannot draw"):
        model.fit(data, verbose=0)


def test_examples_are_finite_for_all(blobs):
    for name, kind in methods.METHODS.items():
        if not kind.learns:
            made = prepared(name)
            batch = examples_of(made)
            made.observe(batch)
            weights = made.example_weights(batch).numpy()
            assert np.isfinite(weights).all(), name
            assert (weights >= 0).all(), name


# -------------------------------------------------------------------- two networks


def test_co_teaching_by_hand():
    made = method_of("co_teaching", forget_rate=0.4, warm_up=4)
    values = tf.constant([[1.0, 9.0], [2.0, 8.0], [3.0, 7.0], [4.0, 6.0], [5.0, 5.5]])
    batch = Examples(values, tf.zeros([5, 4]), tf.zeros([5], tf.int64), None)
    made.begin_epoch(0, 60)
    np.testing.assert_allclose(made.example_weights(batch), np.full((5, 2), 0.2), rtol=1e-6)
    made.begin_epoch(2, 60)  # 1 - min(2 / 4 * 0.4, 0.4) = 0.8: four of five
    expected = np.array([[0, 1], [1, 1], [1, 1], [1, 1], [1, 0]]) / 4
    np.testing.assert_allclose(made.example_weights(batch), expected, rtol=1e-6)
    made.begin_epoch(30, 60)  # three of five
    expected = np.array([[0, 1], [0, 1], [1, 1], [1, 0], [1, 0]]) / 3
    np.testing.assert_allclose(made.example_weights(batch), expected, rtol=1e-6)


def test_co_teaching_keeps_its_share_of_tied_losses():
    """Of 100 equal losses exactly 60 are kept, the first ones; the weights sum to 1."""
    made = method_of("co_teaching", forget_rate=0.4, warm_up=1)
    made.begin_epoch(5, 10)
    values = tf.ones([100, 2])
    batch = Examples(values, tf.zeros([100, 4]), tf.zeros([100], tf.int64), None)
    weights = made.example_weights(batch).numpy()
    np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(weights > 0, np.arange(100)[:, None] < [60, 60])


def test_hard_mining_takes_as_many_of_tied_losses():
    """Two minority examples, and two of four equal majority losses."""
    made = methods.HardMining((9, 1))
    labels = tf.constant([0, 1, 0, 0, 1, 0], tf.int64)
    batch = Examples(tf.ones([6]), tf.zeros([6, 2]), labels, None)
    np.testing.assert_allclose(made.example_weights(batch), np.array([1, 1, 1, 0, 1, 0]) / 4)


def test_co_teaching_trains_each_network_on_the_other_s_choice(blobs):
    """One step by hand with plain SGD: the gradients of the chosen halves."""
    x, y = blobs[0], tf.constant(blobs[1])
    model = model_of("co_teaching")
    model.compile(tf_mwnet.optimizers.SGD(0.1))
    peer = model.method.peer
    nets = (model.classifier, peer)
    model.method.forget_rate, model.method.warm_up = 0.5, 1
    losses_of = [losses.cross_entropy(net(x), y).numpy() for net in nets]
    expected = []
    for net, other in ((nets[0], losses_of[1]), (nets[1], losses_of[0])):
        chosen = np.argsort(other)[:60]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses.cross_entropy(net(x[chosen]), tf.gather(y, chosen)))
        slopes = tape.gradient(loss, net.trainable_variables)
        expected.append([v - 0.1 * g for v, g in zip(net.trainable_variables, slopes, strict=True)])
    # From the second epoch on half are left out: start there.
    model.fit(x, y, batch_size=120, initial_epoch=1, epochs=2, shuffle=False, verbose=0)
    for net, wanted in zip(nets, expected, strict=True):
        for found, value in zip(net.trainable_variables, wanted, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-6)


# -------------------------------------------------------------------- transition matrices


def test_forward_corrected_by_hand():
    matrix = np.array([[0.6, 0.3, 0.1], [0.2, 0.8, 0.0], [0.0, 0.5, 0.5]])
    made = methods.Forward(matrix)
    found = made.example_losses(tf.repeat(LOGITS, 3, axis=0), tf.constant([0, 1, 2]))
    # (0.7, 0.2, 0.1) T = (0.46, 0.42, 0.12)
    np.testing.assert_allclose(found, -np.log([0.46, 0.42, 0.12]), rtol=1e-5)
    clean = methods.Forward(np.eye(3)).example_losses(LOGITS, tf.constant([1]))
    np.testing.assert_allclose(clean, -np.log([0.2]), rtol=1e-4)
    for bad in ([[0.5, 0.4], [0, 1]], [[1.0, 0, 0]], [[1.5, -0.5], [0, 1]]):
        with pytest.raises(UserError, match="transition has the shape"):
            methods.Forward(bad)


def test_estimates_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    # Of the three predicted 0 two are labelled 0; the one predicted 1 is labelled 1.
    found = transition.confusion(p, np.array([0, 1, 1, 0]))
    np.testing.assert_allclose(found, [[2 / 3, 1 / 3], [0, 1]])
    np.testing.assert_allclose(transition.confusion(p[:2], np.array([0, 1])), [[0.5, 0.5], [0, 1]])
    given = np.arange(len(p)) % 2
    np.testing.assert_allclose(transition.anchors(p, given, 100), [[0.9, 0.1], [0.3, 0.7]])
    np.testing.assert_allclose(transition.anchors(p, given, 75), [[0.8, 0.2], [0.6, 0.4]])
    found = transition.mean_prediction(p, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(found, [[0.85, 0.15], [0.45, 0.55]])


@pytest.mark.parametrize("classes", [10, 100])
def test_anchors_are_of_their_class(classes):
    """A classifier that has learned 40 % flip noise: the estimated diagonal is 0.6 +- its own scatter.

    With 100 classes the 97th percentile of all examples lies outside of a class of one percent, where
    the diagonal would be 0.04 and no row would have its largest entry there.
    """
    rng = np.random.default_rng(0)
    true = np.arange(20_000) % classes
    noise = 0.6 * np.eye(classes) + 0.4 * np.roll(np.eye(classes), 1, axis=1)
    scatter = rng.dirichlet(np.ones(classes), len(true))
    sure = rng.uniform(0.7, 1, len(true))[:, None]
    p = sure * noise[true] + (1 - sure) * scatter
    given = np.array([rng.choice(classes, p=row) for row in noise[true]])
    estimated = transition.anchors(p, given)
    assert (estimated.argmax(axis=1) == np.arange(classes)).all()
    np.testing.assert_allclose(np.diag(estimated), 0.6, atol=0.08)


def test_s_model_starts_as_asked_for_and_learns(blobs):
    x, y, _, _ = blobs
    model = model_of("s_model")
    np.testing.assert_allclose(np.diag(model.method.transition()), 0.9, rtol=1e-5)
    wrong = np.random.default_rng(0).random(120) < 0.6
    noisy = np.where(wrong & (y == 0), 1, y)  # most of class 0 is called 1
    model.fit(x, noisy, batch_size=30, epochs=60, verbose=0)
    learned = model.method.transition().numpy()
    np.testing.assert_allclose(learned.sum(axis=1), 1, rtol=1e-5)
    assert np.abs(learned - transition.smoothed_identity(4, 0.1)).max() > 0.05
    matrix = np.full((4, 4), 0.1) + 0.6 * np.eye(4)
    given = methods.SModel("confusion", initial=matrix)
    given.prepare(Head("t", 4, 16, "softmax"))
    np.testing.assert_allclose(given.transition(), matrix, rtol=1e-5)
    with pytest.raises(UserError, match="'confusion' without initial"):
        methods.SModel("confusion")


# -------------------------------------------------------------------- trusted examples


def test_glc_by_hand():
    matrix = np.array([[0.6, 0.3, 0.1], [0.2, 0.8, 0.0], [0.0, 0.5, 0.5]])
    made = methods.GLC(matrix, num_untrusted=10)
    labels, index = tf.constant([0, 1, 0, 1]), tf.constant([9, 9, 10, 10], tf.int64)
    losses_by_row = made.example_losses(tf.repeat(LOGITS, 4, axis=0), labels, index)
    # (0.7, 0.2, 0.1) T = (0.46, 0.42, 0.12); rows from 10 on are trusted: no correction
    np.testing.assert_allclose(losses_by_row, -np.log([0.46, 0.42, 0.7, 0.2]), rtol=1e-5)
    batch = Examples(losses_by_row, LOGITS, labels, index)
    weights = made.example_weights(batch)
    np.testing.assert_allclose(weights, [0.25] * 4)
    np.testing.assert_allclose(made.label_weight(weights, batch), [0.25] * 4)


# -------------------------------------------------------------------- curricula


def test_self_paced_curriculum_is_learned():
    """v is 1 below the age and 0 above, for every label and at every time."""
    net = mentornet.mentor_net(5, seed=3)
    net.set_weights(mentornet.self_paced(5, seed=3))
    rng = np.random.default_rng(1)
    for age in (0.3, 1.0, 2.0, 3.5):
        loss = np.concatenate([rng.uniform(0, 0.8 * age, 50), rng.uniform(1.2 * age, 8, 50)])
        pair = np.stack([loss, loss - age], axis=1)
        v = tf.sigmoid(net([pair, rng.integers(5, size=100), rng.integers(100, size=100)])).numpy()
        np.testing.assert_allclose(v, loss <= age, atol=0.25)
        assert np.abs(v - (loss <= age)).mean() < 0.03


def test_mentornet_by_hand():
    made = method_of("mentornet", burn_in=0.18)
    made.prepare(Head("t", 4, 16, "softmax"))
    logits = np.zeros((4, 4), np.float32)
    # Losses of label 0: 1.386 at 0, log(1 + 3 e^-z) at z: 0.143, 0.0067, 3.06.
    logits[:, 0] = (0, 3, 6.1, -2)
    batch = batch_of([0.0] * 4, labels=(0, 0, 0, 0))._replace(logits=tf.constant(logits))
    made.begin_epoch(0, 50)
    made.observe(batch)
    np.testing.assert_allclose(made.example_weights(batch), [0.25] * 4)  # the burn-in
    np.testing.assert_allclose(made.age, np.log(1 + 3), rtol=1e-5)  # the third of four is at 0.7
    made.begin_epoch(9, 50)
    assert (made.burning.numpy(), made.percent.numpy()) == (0, 18)
    made.age.assign(1)
    np.testing.assert_allclose(made.example_weights(batch), [0, 0.25, 0.25, 0], atol=0.01)


def test_mentornet_drops_examples():
    made = method_of("mentornet", dropout=(0.5, 0.05, 0.9))
    made.prepare(Head("t", 4, 16, "softmax"))

    @tf.function
    def dropped():
        made.step.assign(made.step + 1)
        return made.example_weights(batch_of([0.0] * 4)) == 0

    # The authors' data-driven command: 0.5 for 17 hundredths, 0.05 for 78, 0.9 for 5.
    for epoch, rate in ((0, 0.5), (16, 0.5), (17, 0.05), (94, 0.05), (95, 0.9), (99, 0.9)):
        made.begin_epoch(epoch, 100)
        made.age.assign(5)
        assert abs(np.mean([dropped() for _ in range(300)]) - rate) < 0.05


@pytest.mark.parametrize(
    ("name", "burning", "percentages"),
    [("mentornet", [0, 0, 0, 0], [0, 17, 40, 99]), ("mentornet_dd", [1, 1, 0, 0], [0, 17, 18, 18])],
)
def test_schedules_of_both_mentornets(name, burning, percentages):
    """As in the authors' commands for the self-paced and for the data-driven curriculum."""
    made, seen = prepared(name), []
    for epoch in (0, 17, 40, 99):
        made.begin_epoch(epoch, 100)
        seen.append((int(made.burning.numpy()), int(made.percent.numpy())))
    assert seen == list(zip(burning, percentages, strict=True))
    dropout = (0.5, 0.05, 0.9) if name == "mentornet_dd" else (0, 0, 0)
    assert (made.percentile, made.dropout, made.decay) == (0.6 if any(burning) else 0.7, dropout, 0.5)


def test_data_driven_mentornet():
    """It makes some trusted labels wrong, the same ones each time, and learns to leave them out."""
    made = methods.get({"name": "mentornet_dd", "num_untrusted": 50, "num_trusted": 70})
    made.prepare(Head("t", 4, 16, "softmax"))
    true = np.arange(120) % 4
    logits = tf.constant(2 * np.eye(4)[true], tf.float32)  # every label that is right has a loss of 0.34
    index = tf.range(120, dtype=tf.int64)
    batch = Examples(made.example_losses(logits, true), logits, tf.constant(true), index)
    label = made.labels(batch).numpy().argmax(axis=1)
    wrong = label != true
    np.testing.assert_array_equal(label[:50], true[:50])
    assert 0.25 < wrong[50:].mean() < 0.55
    assert len(set((label - true)[wrong] % 4)) == 3
    np.testing.assert_array_equal(made.labels(batch).numpy().argmax(axis=1), label)

    made.dropout = (0.0, 0.0, 0.0)
    made.begin_epoch(30, 60)
    made.age.assign(4)  # all losses are below it: the self-paced curriculum keeps them all
    before = made.example_weights(batch).numpy() * 120
    np.testing.assert_allclose(before.sum(axis=1), 1, atol=0.05)
    optimizer = tf_mwnet.optimizers.Adam(1e-2)
    optimizer.build(made.trainable_variables)
    learn = tf.function(lambda: made.learn(None, batch, optimizer))
    for _ in range(200):
        after = learn()
    v = after.numpy().sum(axis=1) * 120
    assert v[~wrong].min() > 0.9
    assert v[wrong].max() < 0.1
    np.testing.assert_array_equal(after.numpy().argmax(axis=1), label)
    kept = made.label_weight(after, batch).numpy() * 120
    np.testing.assert_allclose(kept, np.where(wrong, 0, v), atol=1e-6)
