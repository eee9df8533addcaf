"""Weight functions in other formats: what the commands for them have in common."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from absl import flags

from tf_mwnet.cli import command_flags, console
from tf_mwnet.errors import UserError
from tf_mwnet.files import write_atomically
from tf_mwnet.networks import WeightFunction

TOLERANCE = 1e-6


def check_equal(function: WeightFunction, run: Callable[[np.ndarray], np.ndarray]) -> None:
    """Compares a converted function with the original at losses of 0 to 20 nats.

    Args:
        function: the original.
        run: maps losses float32 ``[n, 1]`` to weights ``[n, G]``, by the converted one.

    Raises:
        UserError: they differ by more than 1e-6.
    """
    losses = np.linspace(0, 20, 2001, dtype=np.float32)
    expected = np.asarray(function(tf.constant(losses))).reshape(len(losses), -1)
    apart = float(np.abs(run(losses[:, None]) - expected).max())
    if not apart <= TOLERANCE:
        raise UserError(f"'{function.path}' differs by {apart:g} when converted; allowed: {TOLERANCE:g}")


def define_flags(suffix: str) -> flags.FlagValues:
    """Returns the flags of a command that writes a file with this suffix."""
    values = command_flags.new_flags()
    flags.DEFINE_string("weight_net", "", "SavedModel folder of the function", flag_values=values)
    flags.DEFINE_string("output", "", f"the {suffix} file to write", flag_values=values)
    return values


def command(
    about: str | None,
    suffix: str,
    convert: Callable[[str], bytes],
    arguments: Sequence[str] | None,
) -> int:
    """Runs a command that converts a weight function; returns the exit code.

    Args:
        about: for --help.
        suffix: of the file that it writes.
        convert: maps the folder of a weight function to the file's content.
        arguments: after the program's name; by default those of the process.
    """

    def run(values: flags.FlagValues) -> str:
        path = pathlib.Path(values.output)
        if path.suffix != suffix:
            raise UserError(f"output is '{values.output}'; allowed: a name that ends in {suffix}")
        if path.exists():
            raise UserError(f"'{path}' is there already; allowed: a new file")
        if not values.weight_net:
            raise UserError("weight_net is not given; allowed: the folder of a weight function")
        content = convert(values.weight_net)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(content))
        return f"{path}  {len(content):,} bytes"

    return console.command(about or "", define_flags(suffix), run, arguments)
