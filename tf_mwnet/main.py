"""``python -m tf_mwnet.main``: flags to an `Experiment`, and its result as a table.

Without flags: the handwritten digits with 40 % of the labels redrawn, plain training and MW-Net.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

from tf_mwnet import console

console.start()

from absl import flags  # noqa: E402

from tf_mwnet import flagfiles  # noqa: E402
from tf_mwnet.config import ABOUT_THE_FOLDER, CONFIG, Experiment, saved_fields  # noqa: E402
from tf_mwnet.errors import UserError  # noqa: E402
from tf_mwnet.experiment import Result, run  # noqa: E402
from tf_mwnet.reports.tables import auc_table, methods_table  # noqa: E402

# What the bare command does beside the defaults.
BARE = {"compare": "erm"}


def define_flags() -> flags.FlagValues:
    """A flag for each field of `Experiment`, apart from absl's global ones."""
    values = flags.FlagValues()
    for field in dataclasses.fields(Experiment):
        text, default = field.metadata["help"], field.default
        kind = field.type
        arguments = {"flag_values": values}
        if kind == "bool":
            flags.DEFINE_boolean(field.name, default, text, **arguments)
        elif kind in ("int", "int | None"):
            flags.DEFINE_integer(field.name, default, text, **arguments)
        elif kind == "float":
            flags.DEFINE_float(field.name, default, text, **arguments)
        elif kind.startswith("tuple"):
            shown = ",".join(map(str, default))
            flags.DEFINE_string(field.name, shown, f"{text} (comma separated)", **arguments)
        else:
            flags.DEFINE_string(field.name, default, text, **arguments)
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    return values


def help_text() -> str:
    """All flags in the order of `Experiment`, with their defaults."""
    lines = [
        __doc__,
        "Flags (--flagfile=<file> reads them from a file, a flag per line; later ones win):",
        "",
    ]
    for field in dataclasses.fields(Experiment):
        default = field.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        shown = "" if default is None else str(shown).lower() if isinstance(default, bool) else shown
        lines.append(f"  --{field.name}={shown}")
        lines += textwrap.wrap(
            field.metadata["help"], 90, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines)


def _tuple(name: str, text: str, kind: str) -> tuple:
    parts = [p.strip() for p in text.split(",") if p.strip()]
    if "int" not in kind:
        return tuple(parts)
    try:
        return tuple(int(p) for p in parts)
    except ValueError:
        raise UserError(f"{name} is '{text}'; allowed: integers between commas") from None


def given(values: flags.FlagValues) -> dict[str, Any]:
    """The fields of an `Experiment` that flags set, or the run that they resume has."""
    if values.auto_resume and (pathlib.Path(values.run_dir) / CONFIG).is_file():
        values["resume"].value = True
        values["resume"].present = 1
    path = pathlib.Path(values.run_dir or "") / CONFIG
    found = {}
    if values.resume and values.run_dir and path.is_file():  # else `run` says what is wrong
        found = {k: v for k, v in saved_fields(path).items() if k not in ABOUT_THE_FOLDER}
    for field in dataclasses.fields(Experiment):
        flag = values[field.name]
        if flag.present and field.type.startswith("tuple"):
            found[field.name] = _tuple(field.name, flag.value, field.type)
        elif flag.present:
            found[field.name] = flag.value
    return found


def parse(arguments: Sequence[str]) -> Experiment | None:
    """The experiment that a command line asks for; None where it asks for help.

    Args:
        arguments: after the program's name.

    Raises:
        UserError: a flag is unknown or its value is not allowed.
    """
    values = define_flags()
    console.read_flags(values, flagfiles.expand(arguments))
    if values.help:
        return None
    return Experiment(**given(values) or BARE)


def report(result: Result, seconds: float) -> str:
    """What the command prints at its end."""
    config, folder = result.config, result.run_dir
    lines = ["", methods_table(result.methods), ""]
    if found := auc_table(result.methods):
        lines += [found, ""]
    places: list[tuple[str, object]] = []
    if result.noise_rate is not None:
        places.append(("realised noise rate", f"{100 * result.noise_rate:.1f} % of the training labels"))
    places += [("run folder", folder), ("pictures", folder / "plots")]
    places.append(("TensorBoard", f"tensorboard --logdir {folder / 'tensorboard'}"))
    for name in config.methods:
        for path in sorted((folder / name / "saved_models").glob("*/[0-9]*")):
            places.append((f"{path.parent.name} ({name})", path))
    places.append(("time", f"{seconds:.0f} s"))
    width = max(len(name) for name, _ in places) + 2
    lines += [f"{name:<{width}}{place}" for name, place in places]
    return "\n".join(lines)


def train(values: flags.FlagValues) -> str | None:
    """Does what the flags ask for; returns the report, or None on a worker that is not the chief."""
    start = time.perf_counter()
    result = run(Experiment(**given(values) or BARE))
    return None if result is None else report(result, time.perf_counter() - start)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), train, arguments, help_text)


if __name__ == "__main__":
    sys.exit(main())
