"""What docs/serving.md says: configurations, requests and answers, and other formats."""

import json
import subprocess
import sys

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from runs import ROOT

import tf_mwnet
from tf_mwnet.export import conversion, onnx, tflite
from tf_mwnet.networks import litert
from tf_mwnet.serve.__main__ import define_flags

FOLDER = ROOT / "configs" / "serving"
NETS = sorted(path.parent for path in (ROOT / "saved_models").glob("*/*/saved_model.pb"))


def test_configurations_are_those_of_the_server():
    # Protobuf's own messages of TensorFlow Serving.
    from tensorflow_serving.config import model_server_config_pb2

    text = (FOLDER / "models.config").read_text()
    found = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    models = {m.name: m for m in found.model_config_list.config}
    assert set(models) == {"weight", "digits"}
    for model in models.values():
        place = ROOT / "saved_models" / model.base_path.removeprefix("/models/")
        for version in model.model_version_policy.specific.versions or [1]:
            assert (place / str(version) / "saved_model.pb").is_file(), model.base_path
    versions = models["digits"].model_version_policy.specific.versions
    assert set(models["digits"].version_labels.values()) <= set(versions)
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
    runner = litert.interpreter(model_content=content).get_signature_runner()
    expected = tf_mwnet.WeightFunction(path)(tf.constant(losses))
    found = runner(loss=losses[:, None])["weight"][:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    session = onnxruntime.InferenceSession(onnx.convert(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(["weight"], {"loss": losses[:, None]})
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


def test_a_function_of_groups_as_onnx(tmp_path):
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(8), keras.layers.Dense(3, "sigmoid")])
    path = tf_mwnet.export.export_weight_net(net, tmp_path / "groups" / "1", {"normalised": True})
    session = onnxruntime.InferenceSession(onnx.convert(path), providers=["CPUExecutionProvider"])
    losses = np.linspace(0, 9, 5, dtype=np.float32)[:, None]
    (found,) = session.run(["weight"], {"loss": losses})
    np.testing.assert_allclose(found, net(losses), atol=1e-6)


def test_a_conversion_that_differs_is_refused():
    function = tf_mwnet.WeightFunction(NETS[0])
    with pytest.raises(tf_mwnet.UserError, match=r"differs by 0\.00\d+ when converted; allowed: 1e-06"):
        conversion.check_equal(
            function, lambda losses: np.asarray(function(tf.constant(losses[:, 0])))[:, None] + 1e-3
        )


@pytest.mark.parametrize("command", [tflite, onnx])
def test_conversion_commands(command, tmp_path, capsys):
    suffix = command.__name__.rpartition(".")[2]
    net, out = ROOT / "saved_models" / "cifar10_flip2", tmp_path / "new" / f"weight.{suffix}"
    assert command.main([f"--weight_net={net}", f"--output={out}"]) == 0
    assert f"{out}  {out.stat().st_size:,} bytes" in capsys.readouterr().out
    if command is tflite:  # ONNX has names of TensorFlow's functions, which are numbered
        assert out.read_bytes() == command.convert(net)
    else:
        onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    for line, message in (
        ([f"--weight_net={net}", f"--output={out}"], "is there already; allowed: a new file"),
        (
            [f"--weight_net={net}", "--output=x.bin"],
            "output is 'x.bin'; allowed: a name that",
        ),
        (
            [f"--weight_net={tmp_path}", f"--output={tmp_path}/y.{suffix}"],
            "holds no SavedModel; allowed",
        ),
        ([f"--output=x.{suffix}"], "weight_net is not given"),
    ):
        assert command.main(line) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["kserve.yaml", "kubernetes.yaml"])
def test_manifests_start_the_server(name):
    documents = list(yaml.safe_load_all((FOLDER / name).read_text()))
    spec = documents[0]["spec"]
    pod = spec["predictor"] if name == "kserve.yaml" else spec["template"]["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    assert container["command"] == ["python", "-m", "tf_mwnet.serve"]
    values = define_flags()
    values(["command", *container["args"]])
    (mount,) = container["volumeMounts"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], values.models)
    ports = {port.get("name"): port["containerPort"] for port in container["ports"]}
    assert values.http_port in ports.values()
    assert values.grpc_port in {0, *ports.values()}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        if kind in container:
            asked = container[kind]["httpGet"]
            assert asked["path"] in ("/v2/health/ready", "/v2/health/live")
            assert ports.get(asked["port"], asked["port"]) == values.http_port
    for service in documents[1:]:
        assert service["spec"]["selector"] == spec["selector"]["matchLabels"]
        assert {p["targetPort"]: p["port"] for p in service["spec"]["ports"]} == ports
