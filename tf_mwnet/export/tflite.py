"""``python -m tf_mwnet.export.tflite``: a weight function as a LiteRT (TensorFlow Lite) file.

python -m tf_mwnet.export.tflite --weight_net=saved_models/cifar10_flip2 --output=weight.tflite

The file is run and compared with the SavedModel before it is written: by LiteRT (pip install
'tf-mwnet[litert]'), or else by TensorFlow's own interpreter, which is deprecated.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from tf_mwnet.cli import console

console.start()

import tensorflow as tf  # noqa: E402

from tf_mwnet.export import conversion  # noqa: E402
from tf_mwnet.networks import WeightFunction, litert  # noqa: E402


def convert(path: str | pathlib.Path) -> bytes:
    """Converts a weight function to LiteRT, with the same signature, float32.

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
    with console.without_notes():  # of LiteRT, when it begins
        runner = litert.interpreter(model_content=content).get_signature_runner()
        conversion.check_equal(function, lambda losses: runner(loss=losses)["weight"])
    return content


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, see `console.command`."""
    return conversion.command(__doc__, ".tflite", convert, arguments)


if __name__ == "__main__":
    sys.exit(main())
