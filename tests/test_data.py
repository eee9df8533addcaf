"""Bias, splits and sources."""

import dataclasses

import numpy as np
import pytest

from tf_mwnet import UserError, data
from tf_mwnet.data import bias, sources
from tf_mwnet.data.splits import BiasConfig, make_splits
from tf_mwnet.data.streams import evaluation_stream


def source(size=600, classes=5, **kwargs):
    rng = np.random.default_rng(0)
    y = np.arange(size) % classes
    x = rng.integers(0, 255, size=(size, 6, 6, 1)).astype(np.uint8)
    return data.from_arrays(x, y, x[: 5 * classes], y[: 5 * classes], **kwargs)


# -------------------------------------------------------------------- noise


def test_uniform_includes_the_true_class():
    matrix = data.transition_matrix("uniform", 0.4, 10, np.random.default_rng(0))
    np.testing.assert_allclose(np.diag(matrix), 0.64)
    np.testing.assert_allclose(matrix[~np.eye(10, dtype=bool)], 0.04)


@pytest.mark.parametrize(("name", "others"), [("flip", 1), ("flip2", 2)])
def test_flip_goes_to_one_or_two_other_classes(name, others):
    matrix = data.transition_matrix(name, 0.4, 10, np.random.default_rng(0))
    np.testing.assert_allclose(np.diag(matrix), 0.6)
    for row, probabilities in enumerate(matrix):
        other = np.delete(probabilities, row)
        np.testing.assert_allclose(np.sort(other)[::-1][:others], 0.4 / others)
        assert np.count_nonzero(other) == others


def test_background_is_one_class():
    matrix = data.transition_matrix("background", 0.4, 10, np.random.default_rng(0))
    column = int(np.argmax(matrix.sum(axis=0)))
    assert matrix[column, column] == pytest.approx(1)
    others = np.delete(np.arange(10), column)
    np.testing.assert_allclose(matrix[others, column], 0.4)
    np.testing.assert_allclose(matrix[others, others], 0.6)


def test_background_class_by_number_or_name():
    right = [[0.6, 0, 0.4], [0, 0.6, 0.4], [0, 0, 1]]
    rng = np.random.default_rng(0)
    matrix = data.transition_matrix("background", 0.4, 3, rng, background_class=2)
    np.testing.assert_allclose(matrix, right)
    found = source(class_names=["ant", "bee", "cat", "dog", "elk"])
    config = BiasConfig(noise="background", noise_rate=0.4, classes=("dog", "2", "ant"))
    for name in ("2", "ant"):  # ant is number 2 of those kept
        splits = make_splits(found, dataclasses.replace(config, background_class=name))
        np.testing.assert_allclose(splits.transition, right)
        assert (splits.train.y[splits.corrupted] == 2).all()
        assert splits.corrupted.mean() == pytest.approx(0.4 * 2 / 3, abs=0.05)
    with pytest.raises(UserError, match="unknown background_class 'bee'; allowed: dog, cat, ant"):
        make_splits(found, dataclasses.replace(config, background_class="bee"))
    with pytest.raises(UserError, match="background_class is set with noise 'flip'"):
        make_splits(found, dataclasses.replace(config, background_class="2", noise="flip"))


def test_hierarchical_stays_in_the_coarse_class():
    coarse = np.array([0, 0, 0, 1, 1, 2])
    matrix = data.transition_matrix("hierarchical", 0.6, 6, np.random.default_rng(0), coarse)
    # GLC's and MW-Net's code, by hand: the true class keeps 1 - p, each other one gets p / others.
    by_hand = [
        [0.4, 0.3, 0.3, 0.0, 0.0, 0.0],
        [0.3, 0.4, 0.3, 0.0, 0.0, 0.0],
        [0.3, 0.3, 0.4, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.4, 0.6, 0.0],
        [0.0, 0.0, 0.0, 0.6, 0.4, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0],  # alone in its coarse class
    ]
    np.testing.assert_allclose(matrix, by_hand)
    mixed = data.transition_matrix(
        "hierarchical", 0.5, 4, np.random.default_rng(0), coarse[[0, 3, 1, 4]]
    )
    np.testing.assert_allclose(
        mixed, [[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]]
    )
    with pytest.raises(UserError, match="coarse"):
        data.transition_matrix("hierarchical", 0.6, 6, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["uniform", "flip", "flip2", "background"])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_rows_sum_to_one(name, rate):
    matrix = data.transition_matrix(name, rate, 7, np.random.default_rng(0))
    assert (matrix >= -1e-12).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    if rate == 0:
        np.testing.assert_array_equal(matrix, np.eye(7))


@pytest.mark.parametrize("suffix", [".csv", ".npy"])
def test_matrix_from_a_file(tmp_path, suffix):
    matrix = np.array([[0.9, 0.1], [0.25, 0.75]])
    path = tmp_path / f"matrix{suffix}"
    np.save(path, matrix) if suffix == ".npy" else np.savetxt(path, matrix, delimiter=",")
    found = data.transition_matrix(str(path), 0.0, 2, np.random.default_rng(0))
    np.testing.assert_allclose(found, matrix)
    with pytest.raises(UserError, match=r"\(2, 2\); allowed: \(3, 3\)"):
        data.transition_matrix(str(path), 0.0, 3, np.random.default_rng(0))


def test_bad_matrix_files(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "sum.csv").write_text("0.9,0.2\n0.5,0.5\n")
    (tmp_path / "text.csv").write_text("a,b\nc,d\n")
    np.save(tmp_path / "pickle.npy", np.array([{}, {}]), allow_pickle=True)
    for name, message in (("sum", "row 0 sums to 1.1"), ("text", "read"), ("none", "not there")):
        with pytest.raises(UserError, match=message):
            data.transition_matrix(str(tmp_path / f"{name}.csv"), 0.1, 2, rng)
    with pytest.raises(UserError, match="read"):
        data.transition_matrix(str(tmp_path / "pickle.npy"), 0.1, 2, rng)
    with pytest.raises(UserError, match=r"unknown noise 'flip3'.*flip2"):
        data.transition_matrix("flip3", 0.1, 2, rng)
    with pytest.raises(UserError, match=r"noise is 'a \.csv or \.npy file'; allowed: the path of such"):
        data.transition_matrix("a .csv or .npy file", 0.1, 2, rng)
    with pytest.raises(UserError, match=r"noise_rate is 1.2; allowed: 0 to 1"):
        data.transition_matrix("flip", 1.2, 2, rng)


def test_a_rate_that_hides_the_true_class_is_allowed_with_a_warning(caplog):
    data.transition_matrix("flip", 0.7, 4, np.random.default_rng(0))
    assert "not the commonest one for 4 of 4 classes" in caplog.text
    caplog.clear()
    data.transition_matrix("flip", 0.4, 4, np.random.default_rng(0))
    assert not caplog.text


def test_realised_matrix_matches_the_requested_one(rng):
    matrix = data.transition_matrix("flip2", 0.4, 6, rng)
    true = np.repeat(np.arange(6), 4000)
    given = data.corrupt(true, matrix, rng)
    realised = data.realised_matrix(true, given, 6)
    # Five standard deviations of a share of 4000 draws.
    assert np.abs(realised - matrix).max() < 5 * np.sqrt(0.25 / 4000)
    assert (realised[matrix == 0] == 0).all()


# -------------------------------------------------------------------- imbalance


def test_long_tail_counts_are_the_published_ones():
    # MW-Net's authors' code for CIFAR-10, 5,000 a class, factors 100 and 10.
    found = bias.long_tail_counts(5000, 100, 10)
    np.testing.assert_array_equal(found, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])
    assert bias.long_tail_counts(5000, 10, 10)[-1] == 500
    np.testing.assert_array_equal(bias.long_tail_counts(30, 1, 4), 30)
    for factor in (0.5, float("nan")):
        with pytest.raises(UserError, match="imbalance_factor"):
            bias.long_tail_counts(5000, factor, 10)
    with pytest.raises(UserError, match="at most 30"):
        bias.long_tail_counts(30, 31, 4)


# -------------------------------------------------------------------- splits


@pytest.mark.parametrize("meta_labels", ["clean", "noisy"])
@pytest.mark.parametrize("own_test", [True, False])
def test_ids_are_disjoint(meta_labels, own_test):
    found = source()
    found = found if own_test else dataclasses.replace(found, test=None)
    config = BiasConfig(
        noise="uniform", noise_rate=0.3, imbalance_factor=4, meta_size=20, meta_labels=meta_labels
    )
    splits = make_splits(found, config)
    parts = [splits.train, splits.meta, splits.test]
    ids = [set(p.ids) for p in parts]
    assert [len(i) for i in ids] == [len(p) for p in parts]
    assert len(set.union(*ids)) == sum(len(i) for i in ids)
    # An id still names the image and label it came with.
    rows = {
        i: (x, y) for i, x, y in zip(found.train.ids, found.train.x, found.train.true_y, strict=True)
    }
    for example in range(len(splits.train)):
        x, y = rows[splits.train.ids[example]]
        np.testing.assert_array_equal(x, splits.train.x[example])
        assert y == splits.train.true_y[example]


def test_meta_set_is_balanced_and_clean_or_noisy():
    config = BiasConfig(noise="flip", noise_rate=0.4, meta_size=50)
    clean = make_splits(source(), config).meta
    np.testing.assert_array_equal(np.bincount(clean.y), 10)
    np.testing.assert_array_equal(clean.y, clean.true_y)
    noisy = make_splits(source(), dataclasses.replace(config, meta_labels="noisy")).meta
    np.testing.assert_array_equal(np.bincount(noisy.y), 10)
    assert 0.2 < (noisy.y != noisy.true_y).mean() < 0.6
    odd = make_splits(source(), dataclasses.replace(config, meta_size=52)).meta
    assert sorted(np.bincount(odd.y)) == [10, 10, 10, 11, 11]


def test_same_data_seed_same_split_whatever_the_noise():
    first = make_splits(source(), BiasConfig(noise="flip", noise_rate=0.2, meta_size=10))
    again = make_splits(source(), BiasConfig(noise="flip", noise_rate=0.2, meta_size=10))
    np.testing.assert_array_equal(first.train.y, again.train.y)
    other_rate = make_splits(source(), BiasConfig(noise="uniform", noise_rate=0.6, meta_size=10))
    np.testing.assert_array_equal(first.train.ids, other_rate.train.ids)
    np.testing.assert_array_equal(first.meta.ids, other_rate.meta.ids)
    noise_only = make_splits(
        source(), BiasConfig(noise="flip", noise_rate=0.2, meta_size=10, noise_seed=5)
    )
    np.testing.assert_array_equal(first.train.ids, noise_only.train.ids)
    assert (first.train.y != noise_only.train.y).any()
    other = make_splits(source(), BiasConfig(noise="flip", noise_rate=0.2, meta_size=10, data_seed=1))
    assert set(first.meta.ids) != set(other.meta.ids)


def test_noise_and_imbalance_together():
    splits = make_splits(source(), BiasConfig(noise="uniform", noise_rate=0.5, imbalance_factor=10))
    np.testing.assert_array_equal(np.bincount(splits.train.true_y), bias.long_tail_counts(120, 10, 5))
    assert 0.25 < splits.corrupted.mean() < 0.55
    np.testing.assert_array_equal(splits.test.y, splits.test.true_y)


def test_classes_and_counts():
    config = BiasConfig(classes=("4", "2"), class_counts=(80, 10))
    splits = make_splits(source(), config)
    assert splits.spec.class_names == ("4", "2")
    np.testing.assert_array_equal(np.bincount(splits.train.y), [80, 10])
    np.testing.assert_array_equal(np.bincount(splits.test.y), [5, 5])


def test_noisy_meta_set_of_equally_many_examples_of_each_true_class():
    """As in RMNW-Net's code: drawn by the true class, and its labels are then as noisy as the others."""
    config = BiasConfig(noise="flip", noise_rate=0.3, meta_size=100, meta_labels="noisy")
    by_given = make_splits(source(), config).meta
    np.testing.assert_array_equal(np.bincount(by_given.y), [20] * 5)
    assert np.ptp(np.bincount(by_given.true_y)) > 0
    splits = make_splits(source(), dataclasses.replace(config, meta_balance="true"))
    np.testing.assert_array_equal(np.bincount(splits.meta.true_y), [20] * 5)
    assert np.ptp(np.bincount(splits.meta.y)) > 0
    assert 0.15 < (splits.meta.y != splits.meta.true_y).mean() < 0.45
    assert not set(splits.meta.ids) & set(splits.train.ids)
    clean = dataclasses.replace(config, meta_labels="clean")
    for balance in ("given", "true"):  # one and the same where labels are clean
        meta = make_splits(source(), dataclasses.replace(clean, meta_balance=balance)).meta
        np.testing.assert_array_equal(meta.ids, make_splits(source(), clean).meta.ids)
    unknown = dataclasses.replace(config, noise="none", meta_balance="true")
    with pytest.raises(UserError, match="meta_balance is true, but no true labels are known"):
        make_splits(source(), unknown)
    known = source(true_y_train=np.arange(600) % 5)
    np.testing.assert_array_equal(np.bincount(make_splits(known, unknown).meta.true_y), [20] * 5)


@pytest.mark.parametrize("labels", ["clean", "noisy"])
def test_meta_set_that_is_not_balanced(labels):
    """Fewer examples than classes can be asked for, as in L2RW's figure 4."""
    config = BiasConfig(noise="flip", noise_rate=0.3, meta_labels=labels, meta_balance="none")
    drawn = []
    for size in (1, 3, 100):
        splits = make_splits(source(), dataclasses.replace(config, meta_size=size))
        assert (len(splits.meta), len(splits.train)) == (size, 600 - size)
        drawn.append(splits.meta)
    assert np.ptp(np.bincount(drawn[-1].true_y)) > 0
    assert (labels == "clean") == bool((drawn[-1].y == drawn[-1].true_y).all())
    with pytest.raises(UserError, match="meta_size is 600; allowed: below 600, all training examples"):
        make_splits(source(), dataclasses.replace(config, meta_size=600))


def test_train_size():
    config = BiasConfig(meta_size=50, noise="flip", noise_rate=0.4)
    whole, part = (make_splits(source(), dataclasses.replace(config, train_size=n)) for n in (0, 220))
    assert (len(whole.train), len(part.train)) == (550, 220)
    assert set(part.train.ids) < set(whole.train.ids)
    np.testing.assert_array_equal(part.meta.ids, whole.meta.ids)
    assert np.ptp(np.bincount(part.train.true_y)) > 0  # whatever their class


def test_statistics_are_those_of_the_training_set():
    splits = make_splits(source(), BiasConfig(meta_size=100))
    np.testing.assert_allclose(splits.spec.mean, splits.train.x.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(splits.spec.std, splits.train.x.std(axis=(0, 1, 2)), rtol=1e-5)


def test_eight_bit_images_between_0_and_1():
    """As the tutorials' MNIST, and so L2RW's: x / 255; what is no 8-bit image has no such range."""
    splits = make_splits(source(), BiasConfig(meta_size=100), "unit")
    batch = next(iter(evaluation_stream(splits.test, splits.spec)()))
    np.testing.assert_allclose(batch[0], splits.test.x / 255, rtol=1e-6)
    assert splits.spec.mean.shape == splits.spec.std.shape == (splits.train.x.shape[-1],)
    signed = make_splits(source(), BiasConfig(meta_size=100), "signed")
    batch = next(iter(evaluation_stream(signed.test, signed.spec)()))
    np.testing.assert_allclose(batch[0], 2 * (splits.test.x / 255 - 0.5), atol=1e-6)
    for name in ("train", "meta", "test"):  # what is kept does not depend on it
        same = getattr(make_splits(source(), BiasConfig(meta_size=100)), name)
        np.testing.assert_array_equal(getattr(splits, name).ids, same.ids)
    with pytest.raises(
        UserError, match="scaling is unit with float32 inputs; allowed: with uint8 images"
    ):
        make_splits(sources.from_arrays(X, Y), BiasConfig(), "unit")
    with pytest.raises(UserError, match="unknown scaling 'units'"):
        make_splits(source(), BiasConfig(), "units")


def test_a_source_with_a_meta_set_keeps_it():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 255, size=(10, 6, 6, 1)).astype(np.uint8)
    found = source(x_meta=x, y_meta=np.arange(10) % 5)
    splits = make_splits(found, BiasConfig(meta_size=5))
    assert len(splits.meta) == 10
    assert len(splits.train) == 600
    assert make_splits(found, BiasConfig(meta_size=0)).meta is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meta_size": 700}, r"meta_size is 700.*which has 120.*at most 595"),
        ({"meta_size": 3}, "meta_size is 3; allowed: at least 5"),
        ({"imbalance_factor": 0.5}, "imbalance_factor is 0.5; allowed: at least 1"),
        ({"noise": "wrong"}, "unknown noise 'wrong'"),
        ({"noise": "flip", "noise_rate": -0.1}, "noise_rate is -0.1"),
        ({"classes": ("0", "9")}, "unknown class '9'"),
        ({"classes": ("1", "1")}, "two or more different"),
        ({"class_counts": (1, 2)}, "class_counts has 2 entries; allowed: 5"),
        ({"class_counts": (1, 2, 3, 4, 500)}, "class 4 is to keep 500 examples; allowed: 1 to 120"),
        ({"meta_labels": "dirty"}, "meta_labels is 'dirty'; allowed: clean, noisy"),
        ({"meta_balance": "true?"}, "unknown meta_balance 'true\\?'.*; allowed: given, true, none"),
        ({"train_size": 601}, "train_size is 601; allowed: at most 600"),
        (
            {"train_size": 10, "imbalance_factor": 2.0},
            "train_size is 10 with class_counts or imbalance_factor; allowed: one of them",
        ),
    ],
)
def test_bad_bias(change, message):
    with pytest.raises(UserError, match=message):
        make_splits(source(), BiasConfig(**change))


def test_biased_data_without_a_test_set_is_refused():
    biased = dataclasses.replace(source(), test=None, bias={"noise": "flip"})
    with pytest.raises(UserError, match="was biased and has no test set"):
        make_splits(biased, BiasConfig())


# -------------------------------------------------------------------- arrays


X = np.random.default_rng(0).random((12, 4, 4, 1))
Y = np.arange(12) % 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x_train": np.where(X > 0.99, np.nan, X) * np.nan}, "NaN"),
        ({"x_train": np.ones_like(X)}, "all pixels are 1"),
        ({"x_train": np.concatenate([X[:-1], np.zeros((1, 4, 4, 1))])}, "is constant"),
        ({"x_train": X.astype(str)}, "type"),
        ({"y_train": Y + 0.5}, "label 0.5 is no integer"),
        ({"y_train": Y - 1}, "label -1 is out of range"),
        ({"y_train": Y[:5]}, r"shape \(5,\); allowed: \(12,\)"),
        ({"y_train": Y, "class_names": ["a", "b"]}, "label 2 is out of range; allowed: 0 to 1"),
        ({"y_train": Y * 2}, "no example of class 1, 3"),
        ({"y_train": Y * 0}, "two or more classes"),
        ({"x_test": X[:, :3], "y_test": Y}, r"test images are \(3, 4, 1\), train images \(4, 4, 1\)"),
        ({"x_test": X}, "only one of images and labels"),
        ({"x_test": X, "y_test": Y + 5}, "label 5 is out of range; allowed: 0 to 2"),
    ],
)
def test_bad_arrays(arguments, message):
    with pytest.raises(UserError, match=message):
        data.from_arrays(**({"x_train": X, "y_train": Y} | arguments))


def test_arrays_of_other_types():
    found = data.from_arrays((X[..., 0] * 9).astype(np.int32), Y.astype(float)[:, None])
    assert found.train.x.shape == (12, 4, 4, 1)
    assert found.train.x.dtype == np.float32
    assert found.train.y.dtype == np.int64
    assert found.class_names == ("0", "1", "2")


def test_npz(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x_train=X, y_train=Y, true_y_train=(Y + 1) % 3, class_names=["a", "b", "c"])
    for found in (data.load("npz", str(path)), data.load(str(path))):
        assert found.class_names == ("a", "b", "c")
        assert found.truth_known
        np.testing.assert_array_equal(found.train.true_y, (Y + 1) % 3)
    np.savez(path, x_train=X)
    with pytest.raises(UserError, match="lacks y_train"):
        data.load("npz", str(path))
    np.savez(path, x_train=X, y_train=Y, other=Y)
    with pytest.raises(UserError, match="'other'"):
        data.load("npz", str(path))
    np.savez(path, x_train=X, y_train=np.array([{}] * 12))
    with pytest.raises(UserError, match="cannot be read"):
        data.load("npz", str(path))
    path.write_bytes(b"PK broken")
    with pytest.raises(UserError, match="cannot be read"):
        data.load("npz", str(path))
    with pytest.raises(UserError, match="not there"):
        data.load("npz", str(tmp_path / "none.npz"))
    with pytest.raises(UserError, match="data_dir"):
        data.load("npz")


def test_digits():
    found = sources.load_digits()
    assert found.train.x.shape == (1797, 8, 8, 1)
    assert found.train.x.dtype == np.uint8
    assert len(set(found.train.ids)) == 1797
    assert found.test is None


def test_unknown_data_set():
    with pytest.raises(UserError, match=r"unknown data set 'no_such_set'; allowed: digits, folder"):
        data.load("no_such_set")
