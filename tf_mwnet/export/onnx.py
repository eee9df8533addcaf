"""``python -m tf_mwnet.export.onnx``: a weight function as an ONNX file.

python -m tf_mwnet.export.onnx --weight_net=saved_models/cifar10_flip2 --output=weight.onnx

Needs tf2onnx and ONNX Runtime, which runs the file to check it: pip install 'tf-mwnet[onnx]'.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from tf_mwnet.cli import console

console.start()

import tensorflow as tf  # noqa: E402

from tf_mwnet.errors import UserError  # noqa: E402
from tf_mwnet.export import conversion  # noqa: E402
from tf_mwnet.networks import WeightFunction  # noqa: E402

OPSET = 18


def convert(path: str | pathlib.Path) -> bytes:
    """Converts a weight function to ONNX: ``loss`` float32 ``[n, 1]`` to ``weight`` ``[n, G]``.

    Args:
        path: SavedModel folder, or a folder of numbered versions.

    Raises:
        UserError: there is no weight function, the converted one differs by more than 1e-6 at a
            loss of 0 to 20, or tf2onnx or ONNX Runtime is not installed.
    """
    function = WeightFunction(path)
    try:
        import onnxruntime
        import tf2onnx
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed; allowed: pip install 'tf-mwnet[onnx]'"
        ) from None
    signature = [tf.TensorSpec([None, 1], tf.float32, name="loss")]
    loaded = tf.saved_model.load(str(function.path))
    serve = loaded.signatures["serving_default"]
    traced = tf.function(lambda loss: serve(loss=loss), input_signature=signature, autograph=False)
    model, _ = tf2onnx.convert.from_function(traced, input_signature=signature, opset=OPSET)
    del loaded  # it keeps the variables
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    conversion.check_equal(function, lambda losses: session.run(["weight"], {"loss": losses})[0])
    return content


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, see `console.command`."""
    return conversion.command(__doc__, ".onnx", convert, arguments)


if __name__ == "__main__":
    sys.exit(main())
