"""The flagfiles: each can be read, says what it reproduces, and resolves from anywhere."""

import pathlib
import re

import pytest

from tf_mwnet import UserError, main
from tf_mwnet.flagfiles import expand

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(p.name for p in CONFIGS.glob("*.cfg"))
BIAS = re.compile(r"(cifar100?)_(longtail|uniform|flip)(?:_(\d+))?\.cfg")


def parse(*arguments):
    return main.parse(arguments)


def test_every_cifar_column_of_tables_1_to_3_is_there():
    for name in ("cifar10", "cifar100"):
        levels = [f"longtail_{f}" for f in (200, 100, 50, 20, 10, 1)]
        levels += [f"uniform_{p}" for p in ("00", "40", "60")] + ["flip_00", "flip_20", "flip"]
        assert {f"{name}_{level}.cfg" for level in levels} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_flagfile(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # nested files are found from the file's own folder
    text = (CONFIGS / name).read_text()
    assert re.search(r"MW-Net table \d", text)
    assert re.search(r"Published test accuracy: .*\d\d\.\d\d", text)
    assert f"# Command: python -m tf_mwnet.main --flagfile=configs/{name}" in text
    config = parse(f"--flagfile={CONFIGS / name}")
    assert config.run_dir == f"runs/{name.removesuffix('.cfg')}"
    assert config.compare == "erm"
    match = BIAS.fullmatch(name)
    if match is None:
        assert config.weight_net
        return
    data, bias, level = match.groups()
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
        assert config.epochs == {"uniform": 40, "flip": 60}[bias]


def test_flags_after_the_flagfile_win():
    config = parse(
        f"--flagfile={CONFIGS / 'cifar100_flip.cfg'}", "--epochs=3", "--nonormalise", "--lr_drops="
    )
    assert (config.epochs, config.normalise, config.lr_drops) == (3, False, ())
    assert config.dataset == "cifar100"


def test_bare_command_compares():
    assert parse().compare == "erm"
    assert parse("--epochs=2").compare == ""


def test_types_of_flags():
    config = parse("--classes=4,9", "--hidden=10,20", "--noise_seed=3", "--resume", "--run_dir=x")
    assert config.classes == ("4", "9")
    assert config.hidden == (10, 20)
    assert config.noise_seed == 3
    assert config.resume is True
    assert parse("--help") is None


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
