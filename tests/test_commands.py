"""``tf-mwnet <command>``: which commands there are, and what they say about bad input."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tomllib

import pytest
from runs import ROOT

import tf_mwnet
from tf_mwnet import __main__ as commands


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
    assert done.stderr.startswith("tf_mwnet: flag --epochs=zero")
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
        listed = [requirement.split(">")[0] for requirement in project["optional-dependencies"][extra]]
        assert package.replace("_", "-") in listed
