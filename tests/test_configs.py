"""The flagfiles: each can be read, says what it reproduces, and resolves from anywhere."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest

from tf_mwnet import Experiment, UserError, optimizers
from tf_mwnet.cli import command_flags
from tf_mwnet.cli.flagfiles import expand
from tf_mwnet.cli.flags import parse as parse_flags
from tf_mwnet.experiment import build, rates
from tf_mwnet.methods import METHODS
from tf_mwnet.runs.saved_run import differences, saved_experiment
from tf_mwnet.sweep import __main__ as sweep

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
PIPELINES = sorted(CONFIGS.glob("*_pipeline.cfg"))
FILES = sorted({p.name for p in CONFIGS.glob("*.cfg")} - {p.name for p in PIPELINES})
BIAS = re.compile(r"(cifar100?)_(longtail|uniform|flip)(?:_(\d+))?\.cfg")


def parse(*arguments):
    return parse_flags(arguments)


def jobs_of(name):
    """Plans a sweep as its command does."""
    values = sweep.define_flags()
    path = CONFIGS / "sweeps" / f"{name}.cfg"
    common = command_flags.read_flags(values, expand([f"--flagfile={path}"]), more=True)
    return {job.folder.name: job.config() for job in sweep.jobs_of(values, common)}


def test_every_cifar_column_of_tables_1_to_3_is_there():
    for name in ("cifar10", "cifar100"):
        levels = [f"longtail_{f}" for f in (200, 100, 50, 20, 10, 1)]
        levels += [f"uniform_{p}" for p in ("00", "40", "60")] + ["flip_00", "flip_20", "flip"]
        assert {f"{name}_{level}.cfg" for level in levels} <= set(FILES)


SOURCES = r"(MW-Net|L2RW|RMNW-Net|GDW) (table \d|figure \d|section \d|appendix [A-Z])"
SOURCES += r"|(ELR|SOP|LDAM-DRW|Logit adjustment) \(\w+ et al\., \w+ 20\d\d\)"
# Names after the paper's, with what they must resolve to.
OTHERS = {
    re.compile(r"l2rw_(cifar100?)_(uniform|background)_(\d+)\.cfg"): {
        "method": "l2rw", "l2": 2e-4, "scaling": "signed", "early_stopping": 0},
    re.compile(r"rmnw_(cifar100?)_(uniform|flip2?)_(\d+)\.cfg"): {
        "method": "rmnw", "meta_labels": "noisy", "meta_balance": "true", "meta_size": 1000,
        "lr": 0.05, "normalise": True,
        "nesterov": True, "meta_optimizer": "sgd", "meta_lr": 1e-3, "meta_l2": 5e-4},
    re.compile(r"gdw_(cifar100?)_(uniform)_(\d+)(?:_longtail_\d+)?\.cfg"): {
        "method": "gdw", "schedule": "cosine_epochs", "epochs": 80, "network": "resnet32",
        "normalise": False, "nesterov": False},
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_flagfile_says_what_it_reproduces(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # nested files are found from the file's own folder
    text = (CONFIGS / name).read_text()
    assert re.search(SOURCES, text)
    pattern = r"Published test accuracy: .*\d\d|Published: (curves .* only|no copy of the figures)"
    assert re.search(pattern, text)
    assert f"# Command: python -m tf_mwnet.main --flagfile=configs/{name}" in text
    config = parse(f"--flagfile={CONFIGS / name}")
    assert config.run_dir == f"runs/{name.removesuffix('.cfg')}"
    # Plain training beside the method; in this figure it is another method.
    assert config.compare == ("l2rw" if name == "mwnet_figure6.cfg" else "erm")


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_flagfile_of_a_pipeline(path, monkeypatch, tmp_path):
    from pipelines import settings

    monkeypatch.chdir(tmp_path)
    assert f"# Command: python -m pipelines.run --flagfile=configs/{path.name}" in path.read_text()
    values = settings.define_flags()
    found = settings.read(
        values, command_flags.read_flags(values, expand([f"--flagfile={path}"]), more=True)
    )
    assert found.home == str(tmp_path / "runs" / path.stem)
    assert (found.transfer is not None) == ("transfer=" in path.read_text())  # found from anywhere
    assert found.run.method != found.baseline


@pytest.mark.parametrize("name", [n for n in FILES if BIAS.fullmatch(n)])
def test_mwnet_flagfile(name):
    config = parse(f"--flagfile={CONFIGS / name}")
    data, bias, level = BIAS.fullmatch(name).groups()
    assert config.dataset == data
    classes = int(data.removeprefix("cifar"))
    if bias == "longtail":
        assert config.imbalance_factor == float(level)
        assert (config.noise, config.meta_size, config.network) == ("none", 10 * classes, "resnet32")
        assert (config.epochs, config.lr_drops) == (100, (80, 90))
    else:
        assert config.noise_rate == int(level or 40) / 100
        assert config.noise == {"uniform": "uniform", "flip": "flip2"}[bias]
        assert config.meta_size == 1000
        # Their first code counts steps: 20,000 of WRN-28-10, and 30,000 of ResNet-32.
        assert config.epochs * config.steps_per_epoch == {"uniform": 20_000, "flip": 30_000}[bias]
        drops = [drop * config.steps_per_epoch for drop in config.lr_drops]
        assert drops == {"uniform": [18_000, 19_000], "flip": [20_000, 25_000]}[bias]
    assert (config.normalise, config.nesterov, config.meta_optimizer) == (True, True, "sgd")
    assert (config.meta_lr, config.meta_l2) == (1e-5 if bias == "longtail" else 1e-3, 5e-4)


@pytest.mark.parametrize("name", ["cifar10_flip.cfg", "cifar100_uniform_60.cfg"])
def test_the_second_recipe_of_mwnet(name):
    """After a column's flagfile; data, network and noise stay."""
    first = parse(f"--flagfile={CONFIGS / name}")
    second = parse(f"--flagfile={CONFIGS / name}", f"--flagfile={CONFIGS / 'recipes' / 'mwnet_v2.cfg'}")
    changed = {
        f.name: getattr(second, f.name)
        for f in dataclasses.fields(Experiment)
        if getattr(second, f.name) != getattr(first, f.name)
    }
    assert changed == {
        "normalise": False, "nesterov": False, "meta_optimizer": "adam", "meta_l2": 1e-4,
        "epochs": 120, "steps_per_epoch": 0, "lr_drops": (80, 100),
    }  # fmt: skip
    assert second.meta_lr == 1e-3


@pytest.mark.parametrize("name", [n for n in FILES if any(p.fullmatch(n) for p in OTHERS)])
def test_flagfiles_of_the_other_papers(name):
    config = parse(f"--flagfile={CONFIGS / name}")
    ((found, expected),) = [(p.fullmatch(name), v) for p, v in OTHERS.items() if p.fullmatch(name)]
    data, noise, level = found.groups()
    assert (config.dataset, config.noise, config.noise_rate) == (data, noise, int(level) / 100)
    for key, value in expected.items():
        assert getattr(config, key) == value, key
    if noise in ("background", "flip2"):
        assert config.network == "resnet32"
    elif config.method != "gdw":
        assert config.network == "wrn28_10"
    if config.method == "l2rw":
        steps = config.epochs * config.steps_per_epoch
        assert steps == (60_000 if noise == "uniform" else 80_000)
        assert config.dropout == (0.3 if noise == "uniform" else 0)
        drops = [drop * config.steps_per_epoch for drop in config.lr_drops]
        assert drops == ([40_000, 50_000] if noise == "uniform" else [40_000, 60_000])
        assert config.meta_size == (1000 if noise == "uniform" else 10 * int(data[5:]))
        # Of 50,000, the code takes 5,000 and the clean ones out of the training set.
        assert config.train_size == 45_000 - config.meta_size
    if config.method == "rmnw":
        assert config.epochs * config.steps_per_epoch == 60_000
        drops = [drop * config.steps_per_epoch for drop in config.lr_drops]
        assert drops == ([20_000, 25_000] if noise == "flip2" else [18_000, 19_000])
    if config.method == "gdw":
        assert config.options_of("gdw")["eta"] == {"cifar10": 100, "cifar100": 1000}[data]
        assert config.imbalance_factor == (float(name[:-4].split("_")[-1]) if "longtail" in name else 1)


def test_every_setting_of_the_other_papers_is_there():
    both = ("cifar10", "cifar100")
    names = {f"l2rw_{d}_{b}_40" for d in both for b in ("uniform", "background")}
    levels = [
        "uniform_00",
        "uniform_40",
        "uniform_60",
        "flip2_00",
        "flip2_20",
        "flip2_40",
        "flip_15",
        "flip_30",
    ]
    names |= {f"rmnw_{d}_{level}" for d in both for level in levels}
    names |= {f"gdw_{d}_uniform_{p}_longtail_{f}" for d in both for p in (40, 60) for f in (10, 100)}
    shapes = ("1-50-1", "1-100-1", "1-200-1", "1-100-100-1", "1-10-10-1", "1-10-10-10-1")
    names |= {f"mwnet_table5_{shape}" for shape in shapes}
    names |= {f"mnist49_{ratio}" for ratio in (20, 50, 100, 200)}
    names |= {"gdw_cifar10_uniform_40", "gdw_places_lt", "clothing1m"}
    assert {f"{n}.cfg" for n in names} <= set(FILES)


def test_mnist49_is_l2rw_s():
    """Of 5,000 images 1 / ratio are 4s; five of each class become the meta set (mnist_train.py)."""
    planned = jobs_of("l2rw_figure2")
    assert len(planned) == 4 * 6 * 10
    for ratio in (20, 50, 100, 200):
        config = parse(f"--flagfile={CONFIGS / f'mnist49_{ratio}.cfg'}")
        assert config.class_counts == (5000 // ratio - 5, 5000 - 5000 // ratio - 5)
        assert config.epochs * config.steps_per_epoch == 8000
        assert (config.lr, config.meta_size, config.network) == (1e-3, 10, "lenet_sigmoid")
        assert (config.scaling, config.l2, config.momentum, config.lr_drops) == ("unit", 0, 0.9, ())
        for method in ("erm", "l2rw", "hard_mining"):
            job = planned[f"{ratio}_to_1-{method}-3"]
            assert (job.method, job.seed, job.data_seed) == (method, 3, 3)
            apart = {"method": "l2rw", "compare": "erm", "seed": 0, "data_seed": 0, "method_options": {}}
            alike = dataclasses.replace(job, run_dir=config.run_dir, **apart)
            assert alike == dataclasses.replace(config, method_options={})


def test_trials_and_figures_of_l2rw(monkeypatch):
    """Section 4.2 names the background classes of the five trials; figure 4 has label 3."""
    monkeypatch.chdir(CONFIGS.parent)
    trials = {"cifar10": (0, 1, 3, 5, 7), "cifar100": (7, 12, 41, 62, 85)}
    for data, classes in trials.items():
        planned = jobs_of(f"l2rw_table2_{data}")
        found = [planned[f"class_{k}-l2rw-0"] for k in classes]
        assert [c.background_class for c in found] == [str(k) for k in classes]
        assert [(c.seed, c.data_seed) for c in found] == [(i, i) for i in range(5)]
        column = parse(f"--flagfile={CONFIGS / f'l2rw_{data}_background_40.cfg'}")
        first = {"background_class": "", "compare": "erm", "run_dir": column.run_dir}
        assert dataclasses.replace(found[0], **first) == column
    planned = jobs_of("l2rw_figure4")
    assert {c.background_class for c in planned.values()} == {"3"}
    assert {c.meta_size for c in planned.values()} == {1, 5, 10, 15, 100, 1000}
    early, whole = (planned[f"{name}_meta_size_15-l2rw-2"] for name in ("ES", "whole"))
    assert (early.epochs, early.lr_drops, early.train_size) == (120, (80, 100), 44_000)
    assert (whole.epochs, whole.lr_drops, whole.meta_balance) == (160, (80, 120), "none")
    planned = jobs_of("l2rw_figure5")
    assert {c.noise_rate for c in planned.values()} == {0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert {c.dataset for c in planned.values()} == {"cifar10", "cifar100"}


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith(("cmwnet_sl_", "elr_"))])
def test_without_clean_data(name):
    config = parse(f"--flagfile={CONFIGS / name}")
    method, data, level = re.fullmatch(r"(\w+)_(cifar100?)_uniform_(\d\d)\.cfg", name).groups()
    assert (config.method, config.dataset, config.noise_rate) == (method, data, int(level) / 100)
    assert (config.noise, config.meta_size, config.batch_size) == ("uniform", 0, 128)
    assert (config.lr, config.momentum, config.schedule) == (0.02, 0.9, "step")
    many, options = data == "cifar100", config.options_of(method)
    rate = rates.of_classifier(dataclasses.replace(config, steps_per_epoch=10))
    if method == "elr":
        assert (config.network, config.train_size, config.l2) == ("resnet34", 45_000, 1e-3)
        assert options == ({"beta": 0.9, "strength": 7.0} if many else {})
        drops = (80, 120, 150) if many else (40, 80, 120)
        values = [float(rate(10 * d - 1)) for d in drops] + [float(rate(10 * d)) for d in drops[:2]]
        np.testing.assert_allclose(values, [0.02, 2e-4, 2e-6, 2e-4, 2e-6], rtol=1e-5)
        assert config.epochs == drops[-1]
        return
    assert (config.network, config.epochs, config.lr_drops) == ("preact_resnet18", 300, (150,))
    assert (config.mixup, config.meta_mixup, config.ema, config.l2) == (1, 1, 0.997, 5e-4)
    assert (config.meta_every, config.meta_l2, config.hidden) == (10, 1e-4, (100,))
    assert rates.of_weights(config, config.meta_lr) == pytest.approx(1e-4)
    made = METHODS[method](class_sizes=(10, 9, 8), num_examples=27, **options)
    made.begin_epoch(29 if many else 9, 300)
    assert made.plain
    made.begin_epoch(30 if many else 10, 300)
    assert not made.plain


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_long_tails_of_the_losses(data):
    ldam = parse(f"--flagfile={CONFIGS / f'ldam_{data}_longtail_100.cfg'}")
    rate = rates.of_classifier(dataclasses.replace(ldam, steps_per_epoch=10))
    values = [float(rate(10 * epoch)) for epoch in (159, 160, 179, 180)]
    np.testing.assert_allclose(values, [0.1, 1e-3, 1e-3, 1e-5], rtol=1e-5)
    assert (ldam.epochs, ldam.l2, ldam.nesterov) == (200, 2e-4, False)
    shifted = parse(f"--flagfile={CONFIGS / f'logit_adjustment_{data}_longtail_100.cfg'}")
    assert shifted.post_hoc_logit_adjustment == 1
    assert (shifted.nesterov, shifted.l2, len(shifted.lr_drops)) == (True, 2e-4, 3)
    for config in (ldam, shifted):
        assert (config.imbalance_factor, config.noise, config.batch_size) == (100, "none", 128)
        assert (config.network, config.lr, config.meta_size) == ("resnet32", 0.1, 0)


def test_settings_that_stand_alone():
    for shape, hidden in (("1-50-1", (50,)), ("1-10-10-10-1", (10, 10, 10))):
        config = parse(f"--flagfile={CONFIGS / f'mwnet_table5_{shape}.cfg'}")
        assert (config.hidden, config.noise, config.method) == (hidden, "flip2", "mwnet")
    config = parse(f"--flagfile={CONFIGS / 'clothing1m.cfg'}", "--data_dir=x")
    assert (config.network, config.batch_size, config.lr, config.l2) == ("resnet50", 32, 0.01, 1e-3)
    assert (config.resize, config.center_crop, config.lr_drops, config.epochs) == (256, 224, (5,), 10)
    assert (config.resize_sides, config.augment) == ("both", "none")
    config = parse(f"--flagfile={CONFIGS / 'gdw_places_lt.cfg'}", "--data_dir=x")
    assert (config.network, config.batch_size, config.epochs) == ("resnet18", 64, 10)
    assert (config.lr, config.l2) == (0.01, 1e-3)


def test_flags_after_the_flagfile_win():
    config = parse(
        f"--flagfile={CONFIGS / 'cifar100_flip.cfg'}", "--epochs=3", "--nonormalise", "--lr_drops="
    )
    assert (config.epochs, config.normalise, config.lr_drops) == (3, False, ())
    assert config.dataset == "cifar100"


def test_bare_command_compares():
    assert parse().compare == "erm"
    assert parse("--epochs=2").compare == ""


def test_long_tail_recipe_has_nesterov_momentum():
    config = parse("--flagfile=" + str(CONFIGS / "cifar10_longtail_100.cfg"))
    for optimizer in build.make_optimizers(dataclasses.replace(config, steps_per_epoch=100), "mwnet"):
        assert isinstance(optimizer, optimizers.SGD)
        assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)


def test_types_of_flags():
    config = parse("--classes=4,9", "--hidden=10,20", "--noise_seed=3", "--resume", "--run_dir=x")
    assert config.classes == ("4", "9")
    assert config.hidden == (10, 20)
    assert config.noise_seed == 3
    assert config.resume is True
    with pytest.raises(UserError, match="--help is among the flags of a run"):
        parse("--help")


def test_options_of_a_method():
    """They follow its name, and are written down with the run; flags of former versions still work."""
    config = parse("--method=gdw --eta=1000 --nozero_mean", "--compare=focal --gamma=0.5")
    assert (config.method, config.compare) == ("gdw", "focal")
    assert config.options_of("gdw") == {"eta": 1000.0, "zero_mean": False}
    assert config.options_of("focal") == {"gamma": 0.5}
    again = Experiment(**json.loads(config.to_json()))
    assert again.method_options == config.method_options
    assert parse("--method=erm").method_options == {}
    assert parse("--method=mentornet --dropout=0.4,0.1,0").method_options == {
        "mentornet": {"dropout": (0.4, 0.1, 0.0)}
    }


def test_former_flags(caplog):
    with caplog.at_level("INFO", logger="absl"):
        former = parse("--method=gdw", "--eta=1000", "--nozero_mean")
    assert former.options_of("gdw") == {"eta": 1000.0, "zero_mean": False}
    assert "--eta is now an option of its method: --method='gdw --eta=1000'" in caplog.text
    assert parse("--method=co_teaching", "--forget_rate=0").method_options == {}
    co_teaching = parse("--method=co_teaching", "--forget_rate=0.3")
    assert co_teaching.options_of("co_teaching") == {"forget_rate": 0.3}


def test_fields_of_a_former_version(tmp_path):
    """A run of version 0.1 is read as what it was, and can be resumed."""
    former = {"method": "gdw", "compare": "erm", "eta": 1000.0, "zero_mean": False, "groups": 3,
              "s_model_init": "identity", "forget_rate": 0.0}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(former))
    config = saved_experiment(tmp_path / "config.json")
    assert config.method_options == {"gdw": {"eta": 1000.0, "clip": 0.2, "zero_mean": False}}
    assert differences(config, former) == []
    assert differences(Experiment(method="gdw --eta=1000 --nozero_mean", compare="erm"), former) == []
    (line,) = differences(Experiment(method="gdw --eta=10 --nozero_mean", compare="erm"), former)
    assert line.startswith("method_options: ")


def test_bad_flagfiles(tmp_path):
    (tmp_path / "loop.cfg").write_text("--flagfile=loop.cfg\n")
    (tmp_path / "line.cfg").write_text("epochs=3\n")
    (tmp_path / "binary.cfg").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "nested.cfg").write_text(
        "# comment\n// comment\n\n--flagfile=sub/inner.cfg\n--epochs=5\n"
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "inner.cfg").write_text("--epochs=4\n--lr=0.5\n")
    assert expand([f"--flagfile={tmp_path / 'nested.cfg'}"]) == ["--epochs=4", "--lr=0.5", "--epochs=5"]
    assert expand(["--flagfile", str(tmp_path / "sub" / "inner.cfg"), "--seed=1"])[-1] == "--seed=1"
    for name, message in (
        ("loop.cfg", "includes itself"),
        ("line.cfg", "'epochs=3'"),
        ("binary.cfg", "no text"),
        ("none.cfg", "not there"),
    ):
        with pytest.raises(UserError, match=message):
            expand([f"--flagfile={tmp_path / name}"])
