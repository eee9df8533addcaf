"""``python -m tf_mwnet.cli.help_pages``: writes the texts of --help, which are then shown at once.

A command knows its flags only after it has imported TensorFlow and Keras, which takes seconds. Its
--help is therefore kept as a file beside this module. A test compares the files with the commands.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import pathlib
import sys
from collections.abc import Sequence

FOLDER = pathlib.Path(__file__).with_name("help")
MODULES = (
    "tf_mwnet.main", "tf_mwnet.audit", "tf_mwnet.features", "tf_mwnet.sweep", "tf_mwnet.serve",
    "tf_mwnet.reports", "tf_mwnet.reports.compare", "tf_mwnet.reports.published",
    "tf_mwnet.export.tflite", "tf_mwnet.export.onnx",
    "tf_mwnet.benchmark", "tf_mwnet.benchmark.labels", "tf_mwnet.benchmark.transfer",
    "tf_mwnet.benchmark.label_scores", "tf_mwnet.benchmark.unseen", "tf_mwnet.benchmark.zoo",
    "pipelines.run", "pipelines.compile", "pipelines.lineage", "pipelines.benchmark",
)  # fmt: skip
FLAGS = {"--help": "", "-h": "", "--helpfull": ".full"}  # and the ends of the files' names


def _file(module: str, flag: str) -> pathlib.Path:
    return FOLDER / f"{module}{FLAGS[flag]}.txt"


def page(module: str, arguments: Sequence[str]) -> str:
    """Returns what a command prints if it is asked for its help alone; "" if it is not.

    Args:
        module: name of the command's module, as after ``python -m``.
        arguments: after the program's name.
    """
    module = module.removesuffix(".__main__")
    if len(arguments) != 1 or arguments[0] not in FLAGS or module not in MODULES:
        return ""
    for flag in (arguments[0], "--help"):  # where --helpfull is the same, it has no file
        path = _file(module, flag)
        if path.is_file():
            return path.read_text("utf-8").rstrip("\n")
    return ""


def printed(module: str, flag: str) -> str:
    """Returns what a command prints for a flag, by running it in this process."""
    out = io.StringIO()
    name = module if hasattr(importlib.import_module(module), "main") else f"{module}.__main__"
    with contextlib.redirect_stdout(out):
        importlib.import_module(name).main([flag])
    return "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())


def made() -> dict[pathlib.Path, str]:
    """Returns the content of all files."""
    pages = {}
    for module in MODULES:
        short, full = (printed(module, flag) for flag in ("--help", "--helpfull"))
        pages[_file(module, "--help")] = short + "\n"
        if full != short:
            pages[_file(module, "--helpfull")] = full + "\n"
    return pages


def main() -> int:
    """Writes the files."""
    FOLDER.mkdir(exist_ok=True)
    pages = made()
    for path in set(FOLDER.glob("*.txt")) - set(pages):
        path.unlink()
    for path, text in pages.items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
