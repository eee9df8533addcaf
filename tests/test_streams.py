"""tf.data streams: coverage, determinism, augmentation."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from tf_mwnet import data
from tf_mwnet.data import images, shares, streams
from tf_mwnet.data.splits import BiasConfig, make_splits


def splits_of(size=106, channels=3):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, size=(size, 8, 8, channels)).astype(np.uint8)
    found = data.from_arrays(x, np.arange(size) % 2, x[:10], np.arange(10) % 2)
    return make_splits(found, BiasConfig(meta_size=14, noise="flip", noise_rate=0.3))


def take(splits, count, start=0, seed=0, batch_size=20, augmentation=None, meta=True):
    stream = streams.training_stream(
        splits.train, splits.meta if meta else None, splits.spec, batch_size, 6, seed,
        augmentation, start_step=start,
    )  # fmt: skip
    return list(itertools.islice(stream().as_numpy_iterator(), count))


def test_each_pass_covers_the_training_set_once():
    splits = splits_of()
    assert len(splits.train) == 92
    batches = take(splits, 10)
    assert [len(b["train"].y) for b in batches] == [20, 20, 20, 20, 12] * 2
    for epoch in (batches[:5], batches[5:]):
        rows = np.concatenate([b["train"].index for b in epoch])
        np.testing.assert_array_equal(np.sort(rows), np.arange(92))
    first, second = (np.concatenate([b["train"].index for b in e]) for e in (batches[:5], batches[5:]))
    assert (first != second).any()


def test_meta_batches_are_full_and_cycle_with_a_new_order():
    splits = splits_of()
    rows = np.concatenate([b["meta"].index for b in take(splits, 14)])
    assert len(rows) == 14 * 6
    for cycle in range(6):
        np.testing.assert_array_equal(np.sort(rows[14 * cycle : 14 * (cycle + 1)]), np.arange(14))
    assert (rows[:14] != rows[14:28]).any()


def test_batches_carry_given_labels_and_normalised_images():
    splits = splits_of()
    batch = take(splits, 1)[0]["train"]
    np.testing.assert_array_equal(batch.y, splits.train.y[batch.index])
    assert (splits.train.y != splits.train.true_y).any()
    expected = (splits.train.x[batch.index] - splits.spec.mean) / splits.spec.std
    np.testing.assert_allclose(batch.x, expected, rtol=1e-5, atol=1e-5)
    assert set(batch._fields) == {"x", "y", "index"}


@pytest.mark.parametrize("start", [1, 5, 7, 12])
def test_a_stream_from_the_middle_is_the_rest_of_the_stream(start):
    splits = splits_of()
    augmentation = streams.Augmentation(pad=2, flip=True)
    whole = take(splits, 16, augmentation=augmentation)[start:]
    rest = take(splits, 16 - start, start=start, augmentation=augmentation)
    for a, b in zip(tf.nest.flatten(whole), tf.nest.flatten(rest), strict=True):
        np.testing.assert_array_equal(a, b)


def test_seed_decides():
    splits = splits_of()
    augmentation = streams.Augmentation(pad=2, flip=True)
    one, same, other = (take(splits, 3, seed=s, augmentation=augmentation) for s in (1, 1, 2))
    for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one[0]["train"].index != other[0]["train"].index).any()


def test_the_meta_stream_does_not_move_the_training_stream():
    splits = splits_of()
    with_meta, without = take(splits, 4), take(splits, 4, meta=False)
    assert "meta" not in without[0]
    for a, b in zip(with_meta, without, strict=True):
        np.testing.assert_array_equal(a["train"].index, b["train"].index)


def test_augmentation_is_a_crop_of_the_reflected_image_and_a_flip():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, size=(40, 6, 5, 3)).astype(np.uint8)
    found = streams.Augmentation(pad=2, flip=True)(tf.constant(images), tf.constant([3, 4])).numpy()
    padded = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="reflect")
    places = set()
    for image, border in zip(found, padded, strict=True):
        matches = [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            if (image[:, ::-1] == border[top : top + 6, left : left + 5]).all() == flip
            and (flip or (image == border[top : top + 6, left : left + 5]).all())
        ]
        assert matches
        places.add(matches[0])
    assert len({p[:2] for p in places}) > 10
    assert len({p[2] for p in places}) == 2
    untouched = streams.Augmentation()(tf.constant(images), tf.constant([3, 4]))
    np.testing.assert_array_equal(untouched, images)


def test_evaluation_stream_is_in_order():
    splits = splits_of()
    batches = list(streams.evaluation_stream(splits.train, splits.spec, 40)().as_numpy_iterator())
    assert [len(y) for _, y in batches] == [40, 40, 12]
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), splits.train.y)


@pytest.mark.parametrize("limit", [92 * 8 * 8 * 3 * 4, 92 * 8 * 8 * 3 * 4 - 1])
def test_evaluation_keeps_what_is_small(monkeypatch, limit):
    monkeypatch.setattr(streams, "KEPT", limit)
    splits, seen = splits_of(), []

    def read(row):
        seen.append(row)
        return splits.train.x[row]

    rows = np.arange(92)
    lazy = images.LazyImages(rows, read, (8, 8, 3), np.dtype(np.uint8))
    dataset = streams.evaluation_stream(
        dataclasses.replace(splits.train, x=lazy), splits.spec, 40, kept=True
    )()
    first, second = (np.concatenate([x for x, _ in dataset.as_numpy_iterator()]) for _ in range(2))
    np.testing.assert_array_equal(first, streams.normalise(tf.constant(splits.train.x), splits.spec))
    np.testing.assert_array_equal(second, first)
    assert len(seen) == (92 if limit == 92 * 8 * 8 * 3 * 4 else 2 * 92)


def test_distribute_cuts_both_batches(two_replicas):
    splits = splits_of()
    stream = streams.training_stream(splits.train, splits.meta, splits.spec, 21, 6, 0)
    whole = next(stream().as_numpy_iterator())
    parts = next(iter(shares.distribute(stream, two_replicas)))
    for name, sizes in (("train", [10, 11]), ("meta", [3, 3])):
        local = two_replicas.experimental_local_results(parts[name].index)
        assert [len(p) for p in local] == sizes
        np.testing.assert_array_equal(np.concatenate(local), whole[name].index)


def test_shares_are_parts_of_the_same_batches():
    """Cut before anything is read, with the draws of the whole batch's augmentation."""
    splits = splits_of()
    augmentation = streams.Augmentation(pad=2, flip=True)
    stream = streams.training_stream(splits.train, splits.meta, splits.spec, 21, 7, 0, augmentation)
    whole = list(stream().take(5).as_numpy_iterator())
    assert len(whole[4]["train"].y) == 8  # the pass ends
    of_two = stream(shares.Share(first=1, count=2, of=3)).take(10).as_numpy_iterator()
    for number, batch in enumerate(of_two):
        for name in ("train", "meta"):
            expected = shares.part(whole[number // 2][name], 1 + number % 2, 3)
            for a, b in zip(batch[name], expected, strict=True):
                np.testing.assert_array_equal(a, b)
    held = streams.evaluation_stream(splits.test, splits.spec, 6)
    parts = [list(held(shares.Share(i, 1, 3)).as_numpy_iterator()) for i in range(3)]
    labels = [y for batch in zip(*parts, strict=True) for _, y in batch]
    np.testing.assert_array_equal(np.concatenate(labels), splits.test.y)
