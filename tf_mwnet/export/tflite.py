"""``python -m tf_mwnet.export.tflite``: a weight function as a TensorFlow Lite file.

python -m tf_mwnet.export.tflite --weight_net=saved_models/cifar10_flip2 --output=weight.tflite
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from tf_mwnet.cli import console

console.start()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from absl import flags  # noqa: E402

from tf_mwnet.errors import UserError  # noqa: E402
from tf_mwnet.files import write_atomically  # noqa: E402
from tf_mwnet.networks import WeightFunction  # noqa: E402

TOLERANCE = 1e-6


def convert(path: str | pathlib.Path) -> bytes:
    """Converts a weight function to TensorFlow Lite, with the same signature, float32.

    Args:
        path: SavedModel folder, or a folder of numbered versions.

    Raises:
        UserError: there is no weight function, or the converted one differs by more than 1e-6 at a
            loss of 0 to 20.
    """
    function = WeightFunction(path)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(function.path), signature_keys=["serving_default"]
    )
    content = converter.convert()
    losses = np.linspace(0, 20, 2001, dtype=np.float32)
    expected = np.asarray(function(tf.constant(losses))).reshape(len(losses), -1)
    outputs = tf.lite.Interpreter(model_content=content).get_signature_runner()(loss=losses[:, None])
    apart = float(np.abs(outputs["weight"] - expected).max())
    if apart > TOLERANCE:
        raise UserError(f"'{path}' differs by {apart:g} when converted; allowed: {TOLERANCE:g}")
    return content


def define_flags() -> flags.FlagValues:
    values = console.new_flags()
    flags.DEFINE_string("weight_net", "", "SavedModel folder of the function", flag_values=values)
    flags.DEFINE_string("output", "", "the .tflite file to write", flag_values=values)
    return values


def run(values: flags.FlagValues) -> str:
    """Writes the file; returns what the command prints."""
    path = pathlib.Path(values.output)
    if path.suffix != ".tflite":
        raise UserError(f"output is '{values.output}'; allowed: a name that ends in .tflite")
    if path.exists():
        raise UserError(f"'{path}' is there already; allowed: a new file")
    if not values.weight_net:
        raise UserError("weight_net is not given; allowed: the folder of a weight function")
    content = convert(values.weight_net)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(content))
    return f"{path}  {len(content):,} bytes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
