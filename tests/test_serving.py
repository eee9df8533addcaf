"""What docs/serving.md says: configurations, requests and answers, and TensorFlow Lite."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from runs import ROOT

import tf_mwnet
from tf_mwnet.export import tflite

FOLDER = ROOT / "configs" / "serving"
NETS = sorted(path.parent for path in (ROOT / "saved_models").glob("*/*/saved_model.pb"))


def test_configurations_are_those_of_the_server():
    # Protobuf's own messages of TensorFlow Serving.
    from tensorflow_serving.config import model_server_config_pb2

    text = (FOLDER / "models.config").read_text()
    found = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    models = {m.name: m for m in found.model_config_list.config}
    assert set(models) == {"weight", "classifier"}
    assert (ROOT / "saved_models" / models["weight"].base_path.removeprefix("/models/")).is_dir()
    versions = models["classifier"].model_version_policy.specific.versions
    assert set(models["classifier"].version_labels.values()) <= set(versions)
    text = (FOLDER / "batching.config").read_text()
    sizes = [
        int(line.split()[1]) for line in text.splitlines() if line.startswith("allowed_batch_sizes")
    ]
    assert sizes == sorted(sizes)
    assert f"max_batch_size {{ value: {sizes[-1]} }}" in text


def test_request_and_response():
    request = json.loads((FOLDER / "weight_request.json").read_text())
    expected = json.loads((FOLDER / "weight_response.json").read_text())["outputs"]
    path = max((ROOT / "saved_models" / "cifar10_flip2").glob("[0-9]*"))
    serve = tf.saved_model.load(str(path)).signatures[request["signature_name"]]
    assert set(request["inputs"]) == set(serve.structured_input_signature[1]) == {"loss"}
    found = serve(loss=tf.constant(request["inputs"]["loss"]))
    assert set(found) == {"weight"}
    np.testing.assert_allclose(found["weight"], expected, atol=1e-6)
    losses = ";".join(["loss=" + json.dumps(request["inputs"]["loss"])])
    tool = ["-m", "tensorflow.python.tools.saved_model_cli", "run", "--dir", str(path), "--tag_set",
            "serve",
            "--signature_def", "serving_default", "--input_exprs", losses]  # fmt: skip
    done = subprocess.run([sys.executable, *tool], capture_output=True, text=True, timeout=200)
    assert f"{expected[0][0]:.5f}"[:6] in done.stdout, done.stderr


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if i else []) for i, path in enumerate(NETS)],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_weight_functions_without_tensorflow(path):
    content = tflite.convert(path)
    losses = np.random.default_rng(0).exponential(2, 500).astype(np.float32)
    runner = tf.lite.Interpreter(model_content=content).get_signature_runner()
    expected = tf_mwnet.WeightFunction(path)(tf.constant(losses))
    found = runner(loss=losses[:, None])["weight"][:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_tflite_command(tmp_path, capsys):
    net, out = ROOT / "saved_models" / "cifar10_flip2", tmp_path / "new" / "weight.tflite"
    assert tflite.main([f"--weight_net={net}", f"--output={out}"]) == 0
    assert out.read_bytes() == tflite.convert(net)
    for line, message in (
        ([f"--weight_net={net}", f"--output={out}"], "is there already; allowed: a new file"),
        (
            [f"--weight_net={net}", "--output=x.bin"],
            "output is 'x.bin'; allowed: a name that",
        ),
        ([f"--weight_net={tmp_path}", f"--output={tmp_path / 'y.tflite'}"], "is not there; allowed"),
        (["--output=x.tflite"], "weight_net is not given"),
    ):
        assert tflite.main(line) == 2
        assert message in capsys.readouterr().err
