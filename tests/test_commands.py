"""``tf-mwnet <command>``: which commands there are, and what they say about bad input."""

import contextlib
import importlib.metadata
import importlib.util
import os
import pty
import re
import subprocess
import sys
import time
import tomllib

import pytest
from runs import ROOT

import tf_mwnet
from tf_mwnet import __main__ as commands
from tf_mwnet.cli import help_pages
from tf_mwnet.cli.flags import THEMES


def python(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # with it set, TensorFlow's notes are not hidden
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def test_the_list_of_commands_does_not_import_tensorflow():
    # -X importtime names each imported module on stderr.
    done = python("-X", "importtime", "-m", "tf_mwnet")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in commands.COMMANDS)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tf_mwnet.cli.console" in imported
    assert not imported & {"tensorflow", "keras", "numpy", "tf_mwnet.main"}


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help(flag, capsys):
    assert commands.main([flag]) == 0
    assert capsys.readouterr().out.startswith("usage: tf-mwnet <command> <flags>\n\n  train ")


def test_version(capsys):
    assert commands.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tf-mwnet {tf_mwnet.__version__}\n"


def test_unknown_command(capsys):
    assert commands.main(["trian"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    allowed = ", ".join(commands.COMMANDS)
    message = "tf_mwnet: unknown command 'trian' (did you mean 'train'?); allowed: "
    assert captured.err == f"{message}{allowed}\n"


def test_a_command_as_a_process():
    done = python("-m", "tf_mwnet", "train", "--epochs=zero")
    assert done.returncode == 2
    assert done.stderr.startswith("tf_mwnet: epochs is 'zero'; allowed: an integer")
    assert len(done.stderr.splitlines()) == 1


def test_flags_go_to_the_command(capsys):
    assert commands.main(["published", "--list", "--source=mwnet", "--table=3"]) == 0
    assert "--flagfile=configs/cifar100_flip.cfg" in capsys.readouterr().out


def test_every_command_is_there():
    for module, _ in commands.COMMANDS.values():
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ModuleNotFoundError(name="apache_beam.io"), "needs apache_beam; pip install 'tf-mwnet[pipe"),
        (importlib.metadata.PackageNotFoundError("keras-tuner"), "needs keras_tuner; pip install"),
        (ModuleNotFoundError(name="cleanlab"), "needs cleanlab; pip install 'tf-mwnet[benchmark]'"),
    ],
)  # fmt: skip
def test_a_missing_extra_is_one_line(error, line, monkeypatch, capsys):
    def fail(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    assert commands.main(["pipeline"]) == 2
    captured = capsys.readouterr().err
    assert captured.startswith(f"tf_mwnet: 'pipeline' {line}")
    assert len(captured.splitlines()) == 1


def test_another_missing_module_is_not_hidden(monkeypatch):
    def fail(name):
        raise ModuleNotFoundError(name="tensorflow")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError):
        commands.main(["train"])


def test_the_extras_of_the_messages_are_in_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["tf-mwnet"] == "tf_mwnet.__main__:main"
    for package, extra in commands.EXTRAS.items():
        listed = [
            re.split(r"[\[>]", requirement)[0] for requirement in project["optional-dependencies"][extra]
        ]
        assert package.replace("_", "-") in listed


def test_help_comes_at_once():
    """Without TensorFlow, as the same text that the command itself would print."""
    for command, flag in ((("-m", "tf_mwnet.main"), "--help"), (("-m", "tf_mwnet", "sweep"), "-h")):
        done = python("-X", "importtime", *command, flag)
        assert done.returncode == 0
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "tf_mwnet.cli.help_pages" in imported
        assert not imported & {"tensorflow", "keras", "numpy"}
        assert len(done.stdout.splitlines()) > 20


@pytest.mark.parametrize("module", help_pages.MODULES)
def test_help_pages_are_those_of_the_commands(module):
    """If not: python -m tf_mwnet.cli.help_pages"""
    for flag in help_pages.FLAGS:
        assert help_pages.page(module, [flag]) == help_pages.printed(module, flag)
    assert help_pages.page(module, ["--help", "--epochs=3"]) == ""


def test_every_command_has_a_help_page():
    modules = {module.removesuffix(".__main__") for module, _ in commands.COMMANDS.values()}
    assert modules <= set(help_pages.MODULES)


def test_help_is_grouped_by_theme(capsys):
    from tf_mwnet import main

    assert main.main(["--help"]) == 0
    short = capsys.readouterr().out
    heads = [short.index(f"\n\n{head}\n\n  --{field}=") for field, head in THEMES.items()]
    assert heads == sorted(heads)
    data, features = short.index("--dataset="), short.index("--backbone=")
    assert all(data < short.index(f"--{name}=") < features for name in ("classes", "scaling"))
    assert short.index("--then_unfreeze=") < short.index("--unfreeze_lr=") < short.index("--network=")
    assert "\n  gdw --eta" not in short
    assert main.main(["--helpfull"]) == 0
    full = capsys.readouterr().out
    assert "\n  gdw --eta" in full
    assert "cmwnet_sl --warm_up=0.03333\n" in full
    assert "class_balanced --beta=0.9999\n" in full


@pytest.mark.parametrize("module", help_pages.MODULES)
def test_help_does_not_list_itself(module):
    page = help_pages.page(module, ["--help"])
    assert "--help=" not in page
    assert "--helpfull=" not in page
    assert ("--helpfull" in page) == (help_pages.page(module, ["--helpfull"]) != page)


def test_help_of_the_audit_begins_with_what_is_audited():
    flags = re.findall(r"^  --(\w+)=", help_pages.page("tf_mwnet.audit", ["--help"]), re.M)
    assert flags[:3] == ["run_dir", "dataset", "data_dir"]
    assert {"out", "write_cleaned"} <= set(flags[3:])


def test_a_sign_of_life_on_a_terminal():
    """The first line comes before TensorFlow has been imported, and goes away."""
    here, there = pty.openpty()
    start = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tf_mwnet.main", "--epochs=none"], stderr=there, env=environment
    )
    os.close(there)
    first = os.read(here, 100)
    said = time.monotonic() - start
    text = first
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(here, 1000):
            text += part
    total = time.monotonic() - start
    assert process.wait() == 2
    assert first.startswith(b"tf_mwnet: importing TensorFlow ...")
    assert said < 0.5 * total
    assert text.rpartition(b"\r ")[2].strip().startswith(b"tf_mwnet: epochs is 'none'") or (
        text.splitlines()[-1].strip().startswith(b"tf_mwnet: epochs is 'none'")
    )
