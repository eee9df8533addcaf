"""CMW-Net-SL against a NumPy port of its authors' step, and meta sets that are drawn anew."""

from __future__ import annotations

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from runs import assert_same, cut_after, final_variables
from scipy.special import expit, log_softmax, softmax
from small import fit, method_of, network, numpy_weights
from test_streams import splits_of

import tf_mwnet
from tf_mwnet import ReweightedModel, main, methods, networks, optimizers, types
from tf_mwnet.data import orders, shares, streams
from tf_mwnet.errors import Interrupted
from tf_mwnet.experiment import build, resolve
from tf_mwnet.methods import Method
from tf_mwnet.model import inputs, mixing
from tf_mwnet.model.meta_draws import MetaDraws

K, B, M = 4, 8, 6
SIZES = (60, 30, 20, 10)
# Sums of powers of two: Keras keeps these in single precision.
LR, META_LR, BETA_1, BETA_2 = 2**-4, 2**-7, 1 - 2**-3, 1 - 2**-10
EPSILON = 1e-20  # Keras adds it before it corrects the second moment, PyTorch after that


# -------------------------------------------------------------------- the authors' step


def forward(w, x):
    before = x @ w[0] + w[1]
    return before, np.maximum(before, 0), np.maximum(before, 0) @ w[2] + w[3]


def backward(w, x, slope):
    """The gradient of the parameters from that of the logits."""
    before, hidden, _ = forward(w, x)
    inner = (slope @ w[2].T) * (before > 0)
    return [x.T @ inner, inner.sum(0), hidden.T @ slope, slope.sum(0)]


def along(w, x, direction):
    """The derivative of the logits along a direction of the parameters."""
    before, hidden, _ = forward(w, x)
    moved = (x @ direction[0] + direction[1]) * (before > 0)
    return moved @ w[2] + hidden @ direction[2] + direction[3]


class Authors:
    """``warmup`` of section4/Feature-independent_Label_Noise/cmwn.py, with a small classifier."""

    def __init__(self, classifier, net, groups, ema):
        self.w = [v.numpy() for v in classifier.trainable_variables]
        self.v = [v.numpy() for v in net.trainable_variables]
        self.average = [w.copy() for w in self.w]
        self.velocity = [np.zeros_like(w) for w in self.w]
        self.first, self.second = ([np.zeros_like(v) for v in self.v] for _ in range(2))
        self.groups, self.ema, self.turn = groups, ema, 0

    def function(self, cost, group):
        hidden = np.maximum(cost[:, None] * self.v[0] + self.v[1], 0)
        return expit((hidden @ self.v[2] + self.v[3])[np.arange(len(cost)), group])

    def function_gradient(self, cost, group, slope):
        hidden = np.maximum(cost[:, None] * self.v[0] + self.v[1], 0)
        value = self.function(cost, group)
        out = np.zeros((len(cost), self.v[2].shape[1]))
        out[np.arange(len(cost)), group] = slope * value * (1 - value)
        inner = (out @ self.v[2].T) * (hidden > 0)
        return [cost[None] @ inner, inner.sum(0), hidden.T @ out, out.sum(0)]

    def step(self, x, y, mix, meta_x, meta_y, meta_mix):
        (share, other), (meta_share, meta_other) = mix, meta_mix
        target, size = np.eye(K)[y], len(y)
        pseudo = softmax(forward(self.average, x)[2], axis=1)
        mixed = share * x + (1 - share) * x[other]
        logits = forward(self.w, mixed)[2]
        cost = -log_softmax(logits, axis=1)[np.arange(size), y]
        costs, groups = (cost, cost[other]), (self.groups[y], self.groups[y][other])

        def slopes():
            one, two = (self.function(c, g) for c, g in zip(costs, groups, strict=True))
            kept = one[:, None] * target + (1 - one)[:, None] * pseudo
            partner = two[:, None] * target[other] + (1 - two)[:, None] * pseudo[other]
            return (softmax(logits, axis=1) - share * kept - (1 - share) * partner) / size

        virtual = [w - LR * g for w, g in zip(self.w, backward(self.w, mixed, slopes()), strict=True)]
        meta_mixed = meta_share * meta_x + (1 - meta_share) * meta_x[meta_other]
        meta_target = np.eye(K)[meta_y]
        both = meta_share * meta_target + (1 - meta_share) * meta_target[meta_other]
        out = softmax(forward(virtual, meta_mixed)[2], axis=1)
        moved = along(self.w, mixed, backward(virtual, meta_mixed, (out - both) / len(meta_y)))
        of_one = -LR * share / size * ((pseudo - target) * moved).sum(1)
        of_two = -LR * (1 - share) / size * ((pseudo - target)[other] * moved).sum(1)
        pairs = zip(costs, groups, (of_one, of_two), strict=True)
        parts = [self.function_gradient(c, g, s) for c, g, s in pairs]
        self.adam([a + b for a, b in zip(*parts, strict=True)])
        for i, g in enumerate(backward(self.w, mixed, slopes())):
            self.velocity[i] = 0.9 * self.velocity[i] + g + 5e-4 * self.w[i]
            self.w[i] = self.w[i] - LR * self.velocity[i]
            self.average[i] = self.ema * self.average[i] + (1 - self.ema) * self.w[i]
        return -log_softmax(forward(self.average, x)[2], axis=1)[np.arange(size), y]

    def adam(self, gradients):
        self.turn += 1
        for i, g in enumerate(gradients):
            g = g + 1e-4 * self.v[i]
            self.first[i] = BETA_1 * self.first[i] + (1 - BETA_1) * g
            self.second[i] = BETA_2 * self.second[i] + (1 - BETA_2) * g**2
            first = self.first[i] / (1 - BETA_1**self.turn)
            second = self.second[i] / (1 - BETA_2**self.turn)
            self.v[i] = self.v[i] - META_LR * first / (np.sqrt(second) + EPSILON)


def step(model, x, y, meta_x, meta_y):
    """Takes one step, on examples that are counted from 0."""
    train = inputs.batch(x, y)._replace(index=tf.range(B, dtype=tf.int64))
    model.build_metrics(train.y)
    model.train_step({"train": train, "meta": inputs.batch(meta_x, meta_y)})


@pytest.mark.parametrize("groups", [1, 3])
def test_steps_are_its_authors(groups, float64, rng):
    net = networks.weight_net((100,), dtype="float64", outputs=groups)
    method = methods.CMWNetSL(SIZES, 120, groups=groups, weight_net=net)
    classifier = network()
    model = ReweightedModel(classifier, method)
    model.compile(
        optimizers.SGD(LR, momentum=0.9, l2=5e-4),
        optimizers.Adam(META_LR, l2=1e-4, beta_1=BETA_1, beta_2=BETA_2, epsilon=EPSILON),
        mixup=1.0, meta_mixup=1.0, mixup_seed=3, ema=0.75,
    )  # fmt: skip
    group_of_class = np.zeros(K, int) if groups == 1 else method.group_of_class
    assert len(set(group_of_class)) == groups
    authors = Authors(classifier, method.weight_net, group_of_class, 0.75)
    start = [v.copy() for v in authors.v]
    for number in range(4):
        x, meta_x = rng.normal(size=(B, 6)), rng.normal(size=(M, 6))
        y, meta_y = rng.integers(0, K, B), rng.integers(0, K, M)
        mixes = [mixing.draw(1.0, n, 3, number, of_meta=n == M) for n in (B, M)]
        mix, meta_mix = [(float(m.share), m.partner.numpy()) for m in mixes]
        assert mix[0] != meta_mix[0]
        authors.step(x, y, mix, meta_x, meta_y, meta_mix)
        step(model, x, y, meta_x, meta_y)
    expected = [*authors.w, *authors.v, *authors.average]
    found = [*classifier.trainable_variables, *method.trainable_variables, *model.averages.values]
    for own, theirs in zip(found, expected, strict=True):
        # Shares of mixup are drawn in single precision, which both take as they are.
        np.testing.assert_allclose(own.numpy(), theirs, rtol=0, atol=1e-9)
    assert max(np.abs(a - b).max() for a, b in zip(authors.v, start, strict=True)) > 0.01


# -------------------------------------------------------------------- the method


def examples(method, logits, labels, index, averaged=None):
    z = tf.constant(logits)
    averaged = None if averaged is None else tf.constant(averaged)
    values = method.example_losses(z, tf.constant(labels))
    return types.Examples(values, z, tf.constant(labels), tf.constant(index), None, averaged)


def test_weights_by_hand(float64, rng):
    method = methods.CMWNetSL(SIZES, 120, groups=2)
    z, averaged, y = rng.normal(size=(3, K)), rng.normal(size=(3, K)), np.array([0, 2, 3])
    batch = examples(method, z, y, np.arange(3), averaged)
    cost = -log_softmax(z, axis=1)[np.arange(3), y]
    function = method.weight_function(tf.constant(cost)).numpy()
    w = function[np.arange(3), method.group_of_class[y]]
    soft = softmax(averaged, axis=1)
    by_hand = (w[:, None] * np.eye(K)[y] + (1 - w)[:, None] * soft) / 3
    np.testing.assert_allclose(method.example_weights(batch), by_hand, atol=1e-12)
    np.testing.assert_allclose(method.label_weight(by_hand, batch), w / 3, atol=1e-12)
    objective = (method.example_weights(batch) * batch.losses).numpy().sum()
    to_soft = -(soft * log_softmax(z, axis=1)).sum(1)
    assert objective == pytest.approx((w * cost + (1 - w) * to_soft).mean())


def test_the_examples_of_smallest_averaged_loss(float64):
    method = methods.CMWNetSL((3, 4, 1), 8, per_class=2)
    labels = np.array([0, 1, 0, 1, 2, 1, 0, 1])
    np.testing.assert_array_equal(method.draw_meta(labels), [0, 1, 2, 3, 4])  # none seen yet
    averaged = np.zeros((5, 3))
    averaged[np.arange(5), [0, 1, 0, 1, 1]] = [1, 4, 2, 3, 9]
    rows = np.array([2, 3, 6, 7, -1])  # 6 has the smaller loss; the last one is not known
    method.observe(examples(method, np.zeros((5, 3)), np.array([0, 1, 0, 1, 1]), rows, averaged))
    np.testing.assert_array_equal(method.draw_meta(labels), [2, 3, 4, 6, 7])
    np.testing.assert_allclose(method.seen.numpy()[2], -log_softmax(averaged, axis=1)[0, 0])
    method.observe(examples(method, np.zeros((1, 3)), np.array([1]), np.array([5]), [[0, 9.0, 0]]))
    np.testing.assert_array_equal(method.draw_meta(labels), [2, 3, 4, 5, 6])


@pytest.mark.parametrize(
    ("warm_up", "epochs", "plain"),
    [(1 / 30, 300, 10), (0.1, 300, 30), (1 / 30, 6, 1), (1, 1, 0), (0, 9, 0)],
)
def test_first_epochs_are_plain(warm_up, epochs, plain):
    method = methods.CMWNetSL(SIZES, 120, warm_up=warm_up)
    found = []
    for epoch in range(epochs):
        method.begin_epoch(epoch, epochs)
        found.append(method.plain)
    assert found == [True] * plain + [False] * (epochs - plain)


def test_no_more_groups_than_sizes():
    method = methods.CMWNetSL((50, 50, 20), 120)
    assert method.weight_net.output_shape == (None, 2)
    assert method.groups == 3
    assert methods.CMWNetSL((50, 50, 50), 150).group_of_class is None


class After(keras.callbacks.Callback):
    """Keeps the classifier's and the method's values after each epoch."""

    def on_train_begin(self, logs=None):
        self.values = []

    def on_epoch_end(self, epoch, logs=None):
        parts = (self.model.classifier.trainable_variables, self.model.method.trainable_variables)
        self.values.append([[v.numpy() for v in part] for part in parts])


def test_a_plain_epoch_is_that_of_erm(blobs):
    x, y = blobs[:2]
    kept = []
    for method, options in (("cmwnet_sl", {"mixup": 1.0, "meta_mixup": 1.0}), ("erm", {})):
        model = ReweightedModel(
            network(), method_of(method, **({} if not options else {"warm_up": 0.3}))
        )
        model.compile(optimizers.SGD(0.1, momentum=0.9), optimizers.Adam(1e-2), **options)
        before = [v.numpy() for v in model.method.trainable_variables]
        after = After()
        model.fit(x, y, batch_size=24, epochs=3, verbose=0, callbacks=after)
        kept.append((before, after.values))
    (before, own), (_, erm) = kept
    for a, b in zip(own[0][0], erm[0][0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(own[0][1], before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(own[2][0][0] - erm[2][0][0]).max() > 1e-3
    assert np.abs(own[2][1][0] - before[0]).max() > 1e-3


# -------------------------------------------------------------------- meta sets drawn anew


class TurnByTurn(Method):
    """Its meta set are the first three examples of a class, another one in each epoch."""

    learns = True
    draws_meta = True
    meta_labels = "noisy"

    def begin_epoch(self, epoch, epochs):
        self.turn = epoch % K

    turn = 0

    def draw_meta(self, labels):
        return np.flatnonzero(labels == self.turn)[:3]

    def example_weights(self, examples):
        return tf.ones_like(examples.losses) / B

    def learn(self, gradient, examples, optimizer):
        return self.example_weights(examples)


@pytest.mark.parametrize("options", [{}, {"steps_per_epoch": 7}])
def test_each_epoch_has_its_own_meta_set(blobs, options):
    x, y = blobs[:2]
    seen = []

    def meta_loss(logits, labels):
        if tf.executing_eagerly():
            seen.append(labels.numpy())
        return tf_mwnet.losses.cross_entropy(logits, labels)

    model = ReweightedModel(network(), TurnByTurn(meta_loss=meta_loss))
    model.compile(optimizers.SGD(0.1), run_eagerly=True)
    seen.clear()  # of a check of the loss
    model.fit(x, y, batch_size=24, epochs=6, verbose=0, **options)
    steps = options.get("steps_per_epoch", 5)
    assert len(seen) == 6 * steps
    assert int(model.optimizer.iterations.numpy()) == 6 * steps
    for number, labels in enumerate(seen):
        assert labels.tolist() == [number // steps % K] * 3, number


def test_a_stream_that_is_read_anew(rng):
    splits = splits_of()
    draws = MetaDraws(TurnByTurn(), splits.train.y % 2)
    arguments = (splits.spec, 20, 6, 5, streams.Augmentation(pad=2, flip=True))
    endless = streams.training_stream(
        splits.train, None, *arguments, start_step=lambda: 5 * draws.epoch, draw=lambda: draws.rows
    )
    usual = streams.training_stream(splits.train, None, *arguments)
    expected = list(itertools.islice(usual().as_numpy_iterator(), 15))
    dataset = streams.epochs(endless, 5)()
    assert dataset.cardinality() == 5
    for epoch in (0, 1, 2):
        draws.method.turn = epoch % 2
        draws.on_epoch_begin(epoch)
        found = list(dataset.as_numpy_iterator())
        assert len(found) == 5
        for own, other in zip(found, expected[5 * epoch :], strict=False):
            np.testing.assert_array_equal(own["train"].x, other["train"].x)
            assert sorted(own["meta"].index) == draws.rows.tolist()  # a batch is not larger
            np.testing.assert_array_equal(own["meta"].y, splits.train.y[own["meta"].index])
    parts = list(streams.epochs(endless, 5)(shares.Share(0, 2, 2)).as_numpy_iterator())
    assert len(parts) == 10
    rows = np.concatenate([p["train"].index for p in parts])
    np.testing.assert_array_equal(rows, np.concatenate([e["train"].index for e in expected[10:]]))


def test_a_cycle_of_drawn_rows_goes_on():
    rows = np.array([3, 5, 8, 9, 11])
    whole = list(orders.cycle_drawn(lambda: rows, 2, (0, 1), 0).take(20).as_numpy_iterator())
    rest = list(orders.cycle_drawn(lambda: rows, 2, (0, 1), lambda: 7).take(13).as_numpy_iterator())
    np.testing.assert_array_equal(whole[7:], rest)
    np.testing.assert_array_equal(np.sort(np.ravel(whole[:5])), np.sort(np.tile(rows, 2)))


@pytest.mark.parametrize("rows", [[], [-1], [120], [[1]]])
def test_rows_that_are_not_there(blobs, rows):
    class Wrong(TurnByTurn):
        def draw_meta(self, labels):
            return np.array(rows)

    model = ReweightedModel(network(), Wrong())
    model.compile(optimizers.SGD(0.1))
    with pytest.raises(tf_mwnet.UserError, match=r"Wrong drew a meta set of the rows .*of 0 to 119"):
        model.fit(blobs[0], blobs[1], batch_size=24, epochs=1, verbose=0)


@pytest.mark.slow
def test_replicas_draw_alike(two_replicas, blobs, float64):
    x, y = blobs[0].astype("float64"), blobs[1]
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            net = networks.weight_net((100,), dtype="float64", outputs=3)
            method = method_of("cmwnet_sl", per_class=3, weight_net=net)
            model = ReweightedModel(network(), method)
            model.compile(optimizers.SGD(0.1, momentum=0.9), optimizers.Adam(1e-2))
        model.fit(x, y, batch_size=24, meta_batch_size=5, epochs=4, verbose=0)
        draws = MetaDraws(model.method, y)
        results.append((numpy_weights(model), model.record.numpy()[:-1], draws.rows))
    (one, record, rows), (two, other_record, other_rows) = results
    assert len(rows) == 12
    np.testing.assert_array_equal(rows, other_rows)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)
    np.testing.assert_allclose(record, other_record, rtol=1e-5, atol=1e-6)


def test_nothing_is_counted_when_a_dataset_ends(two_replicas, blobs):
    """Replicas find out within a step that there is no batch left; Adam counts its steps."""
    x, y, xm, ym = blobs
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(24)
    histories = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            model = ReweightedModel(network(), "mwnet")
            model.compile(optimizers.SGD(0.1), optimizers.Adam(1e-2))
        histories.append(model.fit(batches, meta_data=(xm, ym), epochs=3, verbose=0).history)
        counts = [int(o.iterations.value.numpy()) for o in (model.optimizer, model.meta_optimizer)]
        assert counts == [15, 15]
    assert {"loss", "weighted_loss", "meta_loss"} <= set(histories[0])
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-4, err_msg=name)


def test_a_meta_set_that_is_given_is_used(blobs):
    model = ReweightedModel(network(), method_of("cmwnet_sl"))
    model.compile(optimizers.SGD(0.1, momentum=0.9), optimizers.Adam(1e-2))
    assert np.isfinite(fit(model, blobs, epochs=2).history["meta_loss"]).all()
    x, y = blobs[:2]
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    with pytest.raises(
        tf_mwnet.UserError, match="CMWNetSL was made for 120 training examples and got a dataset"
    ):
        model.fit(batches, verbose=0)


# -------------------------------------------------------------------- in a run

LINE = [
    "--method=cmwnet_sl --warm_up=0.3", "--epochs=5", "--lr_drops=4", "--mixup=1", "--meta_mixup=1",
    "--meta_every=2", "--ema=0.9", "--batch_size=64", "--meta_batch_size=32", "--meta_size=0",
    "--meta_ema=0.5", "--meta_start=1",
]  # fmt: skip


@pytest.mark.slow
def test_a_run_resumes_exactly(tmp_path, pictures_not_rendered):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main.main([*LINE, f"--run_dir={whole}"]) == 0
    saved = json.loads((whole / "config.json").read_text())

    with cut_after(3), pytest.raises(Interrupted):
        tf_mwnet.run(tf_mwnet.Experiment(**saved | {"run_dir": str(parts)}))
    assert main.main(["--resume", f"--run_dir={parts}"]) == 0
    assert_same(final_variables(parts, "cmwnet_sl"), final_variables(whole, "cmwnet_sl"))
    result = json.loads((whole / "result.json").read_text())
    assert result["methods"]["cmwnet_sl"]["best"] > 0.3
    cards = sorted(p.parent.name for p in whole.rglob("model_card.json"))
    assert cards == ["classifier", "weight_net"] or len(cards) == 2


def test_fast_after_plain_epochs():
    """In 4 plain epochs of 10 the rate does not fall; its last step is the last of training."""
    config = tf_mwnet.Experiment(
        method="cmwnet_sl --warm_up=0.4", speed="fast", epochs=10, batch_size=10, meta_batch_size=10
    )
    config = resolve.with_sizes(config, (8, 8, 1), 1000, 0)
    assert (config.meta_start, config.meta_warmup) == (30, 40)  # within the 400 plain steps
    _, optimizer = build.make_optimizers(config, "cmwnet_sl", 4)
    rates = []
    for step in range(24):  # steps 400, 425, ... 975 of training
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx([25e-3 * (1 - (i + 0.5) / 24) for i in range(24)], rel=1e-3)


def test_a_weight_function_does_not_take_its_place(tmp_path, capfd):
    arguments = ["--method=cmwnet_sl", "--weight_net=@digits_flip2", f"--run_dir={tmp_path / 'run'}"]
    assert main.main(arguments) == 2
    assert "weight_net is set" in capfd.readouterr().err
