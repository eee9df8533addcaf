"""``tf-mwnet <command> <flags>``, or ``python -m tf_mwnet <command> <flags>``: all commands.

Each command is the ``main`` of a module. Only the chosen module is imported, so that the list of
commands appears at once.
"""

from __future__ import annotations

import importlib
import pathlib
import sys
from collections.abc import Sequence

import tf_mwnet
from tf_mwnet.cli import console, help_pages
from tf_mwnet.errors import UserError, choose

# Command -> the module whose `main` it is, and what the list says about it.
COMMANDS = {
    "train": ("tf_mwnet.main", "train a classifier with a method, next to plain training"),
    "features": (
        "tf_mwnet.features.__main__",
        "apply a pretrained network to data, once",
    ),
    "audit": ("tf_mwnet.audit.__main__", "find wrong labels, and write the data without them"),
    "report": ("tf_mwnet.reports.__main__", "one HTML page about finished runs"),
    "compare": ("tf_mwnet.reports.compare", "finished runs in one table, over seeds"),
    "published": ("tf_mwnet.reports.published", "published numbers, and the command for each"),
    "sweep": ("tf_mwnet.sweep.__main__", "many methods, settings and seeds"),
    "benchmark": ("tf_mwnet.benchmark.__main__", "time and memory of a training step"),
    "tflite": ("tf_mwnet.export.tflite", "a weight function as a TensorFlow Lite file"),
    "onnx": ("tf_mwnet.export.onnx", "a weight function as an ONNX file"),
    "serve": ("tf_mwnet.serve.__main__", "a model server for exported models, REST and gRPC"),
    "pipeline": ("pipelines.run", "data to pushed model, as cached components"),
    "pipeline-compile": ("pipelines.compile", "the pipeline as YAML, for a cluster"),
    "lineage": ("pipelines.lineage", "what a pushed model was made from"),
}

# Optional packages by the name that Python, or their metadata, knows them by -> the extra that has them.
EXTRAS = {
    "kfp": "pipelines",
    "apache_beam": "pipelines",
    "keras_tuner": "pipelines",
    "tensorflow_metadata": "pipelines",
    "cleanlab": "benchmark",
    "torch": "peer",
    "keras_hub": "hub",
    "kserve": "serve",
    "tf2onnx": "onnx",
    "onnxruntime": "onnx",
}


def help_text() -> str:
    """Lists the commands."""
    width = max(map(len, COMMANDS)) + 2
    lines = ["usage: tf-mwnet <command> <flags>", ""]
    lines += [f"  {name:<{width}}{about}" for name, (_, about) in COMMANDS.items()]
    lines += ["", "tf-mwnet <command> --help lists the flags of a command; tf-mwnet --version"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
        arguments: what follows the program's name; by default that of the process.

    Returns:
        The command's exit code. 2 for an unknown command, or one whose optional packages are not
        installed; one line on stderr names what is allowed or what to install.
    """
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("--help", "-h", "help"):
        return console.show(help_text())
    if name == "--version":
        return console.show(f"tf-mwnet {tf_mwnet.__version__}")
    try:
        module, _ = choose("command", name, COMMANDS)
        if page := help_pages.page(module, rest):
            return console.show(page)
        if not module.startswith("tf_mwnet."):
            # The working folder may have a package of the same name.
            sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
        return importlib.import_module(module).main(rest)
    except UserError as error:
        return console.fail(error, 2)
    except ModuleNotFoundError as error:  # also `importlib.metadata.PackageNotFoundError`
        missing = (error.name or "").partition(".")[0].replace("-", "_")
        if missing not in EXTRAS:
            raise
        extra = EXTRAS[missing]
        return console.fail(f"'{name}' needs {missing}; pip install 'tf-mwnet[{extra}]'", 2)


if __name__ == "__main__":
    sys.exit(main())
