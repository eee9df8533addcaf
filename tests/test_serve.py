"""The model server, asked by real clients over REST and gRPC while versions come and go."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from runs import ROOT

from tf_mwnet.files import new_folder

kserve = pytest.importorskip("kserve", reason="KServe is not installed (tf-mwnet[serve])")
pytestmark = pytest.mark.xdist_group("serve")

NAME = "cifar10_flip2"
LOSSES = np.linspace(0.05, 6, 7, dtype=np.float32)[:, None]


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def weights(version, losses=LOSSES):
    loaded = tf.saved_model.load(str(ROOT / "saved_models" / NAME / str(version)))
    return loaded.signatures["serving_default"](loss=tf.constant(losses))["weight"].numpy()


def add_version(folder, number, source=2):
    """As a push does: the folder appears complete."""
    with new_folder(folder / str(number)) as temporary:
        shutil.copytree(ROOT / "saved_models" / NAME / str(source), temporary, dirs_exist_ok=True)


class Server:
    def __init__(self, models, *flags):
        self.http, self.grpc, self.models = free_port(), free_port(), models
        self.log = models.parent / "log.txt"
        command = [sys.executable, "-m", "tf_mwnet.serve", f"--models={models}", *flags]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*command, f"--http_port={self.http}", f"--grpc_port={self.grpc}"],
                env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=models.parent, stderr=log, stdout=log,
            )  # fmt: skip

    def ask(self, address, body=None, headers=()):
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://localhost:{self.http}{address}", data, dict(headers))
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text[:1] in b"{[" else text.decode()
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def wait(self, condition):
        end = time.monotonic() + 120
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if condition():
                    return
            except urllib.error.URLError:
                pass
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def infer(self, body, name=NAME, which=""):
        head = {"content-type": "application/json"}
        return self.ask(f"/v2/models/{name}{which}/infer", body, head)

    def memory(self):
        """Resident set in MB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = tmp_path_factory.mktemp("serve") / "models"
    add_version(models / NAME, 1, source=1)
    add_version(models / NAME, 2, source=2)
    add_version(models / "other", 1)
    server = Server(models, "--poll=0.2", f"--labels={NAME}:stable=1")
    server.wait(lambda: server.ask("/v2/health/ready")[0] == 200)
    yield server
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0, server.log.read_text()


def tensor(losses):
    return {
        "name": "loss",
        "shape": list(losses.shape),
        "datatype": "FP32",
        "data": losses.ravel().tolist(),
    }


def test_version_1_of_the_protocol(server):
    rows = LOSSES.tolist()
    for body, key in [
        ({"inputs": {"loss": rows}}, "outputs"),
        ({"inputs": rows, "signature_name": "serving_default"}, "outputs"),
        ({"instances": rows}, "predictions"),
        ({"instances": [{"loss": row} for row in rows]}, "predictions"),
    ]:
        status, answer = server.ask(f"/v1/models/{NAME}:predict", body)
        assert status == 200
        np.testing.assert_allclose(answer[key], weights(2), rtol=1e-6)
    for which in ("versions/1", "labels/stable"):
        status, answer = server.ask(f"/v1/models/{NAME}/{which}:predict", {"instances": rows})
        np.testing.assert_allclose(answer["predictions"], weights(1), rtol=1e-6)
    body = {"signature_name": "at_progress", "inputs": {"loss": rows, "progress": [[1.0]] * len(rows)}}
    status, answer = server.ask(f"/v1/models/{NAME}:predict", body)
    np.testing.assert_allclose(answer["outputs"], weights(2), atol=5e-3)  # linear between 0.1 nats
    assert server.ask("/v1/models") == (200, {"models": [NAME, "other"]})
    assert server.ask(f"/v1/models/{NAME}") == (200, {"name": NAME, "ready": True})


def test_version_2_of_the_protocol(server):
    status, answer = server.infer({"id": "mine", "inputs": [tensor(LOSSES)]})
    assert (status, answer["id"], answer["model_name"], answer["model_version"]) == (
        200,
        "mine",
        NAME,
        "2",
    )
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("weight", "FP32", [7, 1])
    np.testing.assert_allclose(output["data"], weights(2).ravel(), rtol=1e-6)
    for which in ("/versions/1", "/labels/stable"):
        status, answer = server.infer({"inputs": [tensor(LOSSES)]}, which=which)
        assert answer["model_version"] == "1"
        np.testing.assert_allclose(answer["outputs"][0]["data"], weights(1).ravel(), rtol=1e-6)
    progress = tensor(np.ones_like(LOSSES)) | {"name": "progress"}
    body = {"parameters": {"signature_name": "at_progress"}, "inputs": [tensor(LOSSES), progress]}
    status, answer = server.infer(body)
    np.testing.assert_allclose(answer["outputs"][0]["data"], weights(2).ravel(), atol=5e-3)
    status, about = server.ask(f"/v2/models/{NAME}")
    assert about["inputs"] == [{"name": "loss", "datatype": "FP32", "shape": [-1, 1]}]
    assert about["outputs"] == [{"name": "weight", "datatype": "FP32", "shape": [-1, 1]}]


def test_grpc(server):
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as service

    with grpc.insecure_channel(f"localhost:{server.grpc}") as channel:
        stub = service.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(messages.ServerReadyRequest()).ready
        assert stub.ModelReady(messages.ModelReadyRequest(name=NAME)).ready
        part = messages.ModelInferRequest.InferInputTensor(name="loss", datatype="FP32", shape=[7, 1])
        for version, number in (("", 2), ("1", 1), ("stable", 1)):
            request = messages.ModelInferRequest(
                model_name=NAME, model_version=version, inputs=[part],
                raw_input_contents=[LOSSES.tobytes()],
            )  # fmt: skip
            answer = stub.ModelInfer(request)
            assert answer.model_version == str(number)
            found = np.frombuffer(answer.raw_output_contents[0], np.float32)
            np.testing.assert_allclose(found, weights(number).ravel(), rtol=1e-6)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(
                messages.ModelInferRequest(model_name=NAME, model_version="9", inputs=[part])
            )
        assert "has no version '9'" in caught.value.details()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"no json", "the body is no JSON"),
        ({}, "allowed: 'instances' or 'inputs'"),
        ({"instances": []}, "one row or more"),
        ({"instances": {"loss": [1]}}, "one row or more"),
        ({"instances": [[1, 2]]}, "has the shape [1, 2]; allowed: float32 ['rows', 1]"),
        ({"instances": [["high"]]}, "is no array of numbers"),
        ({"instances": [[1], [2, 3]]}, "is no array of numbers"),
        ({"instances": [[None]]}, "not finite"),
        ({"instances": [{"loss": [1]}, {"los": [1]}]}, "allowed: the same in each row"),
        ({"inputs": {"losses": [[1]]}}, "inputs are losses; allowed: loss"),
        ({"inputs": [[1]], "signature_name": "best"}, "signature is 'best'; allowed: "),
        (
            {"inputs": {"loss": [[1]], "progress": [[0], [1]]}, "signature_name": "at_progress"},
            "equally",
        ),
    ],
)
def test_bad_requests(server, body, words):
    status, answer = server.ask(f"/v1/models/{NAME}:predict", body)
    assert status == 400
    assert words in answer["error"]
    assert "Traceback" not in server.log.read_text()


def test_what_is_not_there(server):
    assert server.ask("/v1/models/none:predict", {"instances": [[1]]})[0] == 404
    assert server.ask(f"/v1/models/{NAME}/versions/7:predict", {"instances": [[1]]})[0] == 404
    assert server.ask(f"/v1/models/{NAME}/labels/canary")[0] == 404


def ask_many(server, count, at_once):
    """Asks with different losses, 1 to 4 rows each; returns the largest error."""
    rng = np.random.default_rng(0)
    questions = [rng.uniform(0, 8, (rng.integers(1, 5), 1)).astype(np.float32) for _ in range(count)]

    def ask(losses):
        status, answer = server.ask("/v1/models/other:predict", {"instances": losses.tolist()})
        assert status == 200, answer
        return np.array(answer["predictions"])

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(ask, questions))
    expected = np.split(
        weights(2, np.concatenate(questions)), np.cumsum([len(q) for q in questions])[:-1]
    )
    return max(np.abs(a - b).max() for a, b in zip(answers, expected, strict=True))


def test_many_requests_at_once_in_flat_memory(server):
    before = rows_counted(server)
    assert ask_many(server, 1000, 32) < 1e-6
    assert rows_counted(server) - before > 2000
    full = server.memory()
    assert ask_many(server, 1000, 32) < 1e-6
    assert server.memory() - full < 20


def rows_counted(server):
    _, text = server.ask("/metrics")
    lines = [line for line in text.splitlines() if line.startswith('tf_mwnet_rows_total{model="other"')]
    return sum(float(line.split()[-1]) for line in lines)


def test_losses_outside_of_those_seen_are_counted(server):
    server.ask("/v1/models/other:predict", {"instances": [[1.0], [1e6], [2e6]]})
    _, text = server.ask("/metrics")
    (line,) = [x for x in text.splitlines() if x.startswith('tf_mwnet_rows_outside_total{model="other"')]
    assert float(line.split()[-1]) >= 2


def test_a_new_version_while_requests_run(server):
    ended, failed, versions = [], [], set()

    def keep_asking():
        while not ended:
            status, answer = server.infer({"inputs": [tensor(LOSSES)]}, "moving")
            if status != 200:
                failed.append(answer)
            else:
                versions.add(answer["model_version"])

    folder = server.models / "moving"
    add_version(folder, 1)
    server.wait(lambda: server.ask("/v1/models/moving")[0] == 200)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(keep_asking) for _ in range(8)]
        for number in (2, 3, 4):
            add_version(folder, number)
            server.wait(lambda number=number: str(number) in versions)
        ended.append(True)
        for one in asking:
            one.result()
    assert not failed
    assert versions == {"1", "2", "3", "4"}
    assert server.ask("/v1/models/moving/versions/3")[0] == 200
    assert server.ask("/v1/models/moving/versions/2")[0] == 404  # the newest two are served


def test_a_damaged_version_is_left_out(server):
    folder = server.models / "damaged"
    add_version(folder, 1)
    server.wait(lambda: server.ask("/v1/models/damaged")[0] == 200)
    with new_folder(folder / "2") as temporary:
        shutil.copytree(ROOT / "saved_models" / NAME / "2", temporary, dirs_exist_ok=True)
        (path,) = temporary.glob("variables/*.data*")
        path.write_bytes(path.read_bytes()[:100])
    server.wait(lambda: "damaged/2' cannot be loaded" in server.log.read_text())
    status, answer = server.infer({"inputs": [tensor(LOSSES)]}, "damaged")
    assert (status, answer["model_version"]) == (200, "1")
    time.sleep(1)  # several looks
    assert server.log.read_text().count("damaged/2' cannot be loaded") == 1
    shutil.rmtree(folder)
    server.wait(lambda: server.ask("/v1/models/damaged")[0] == 404)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--models=none"], "models is 'none'; allowed: a folder of <name>/<version>"),
        (["--models=empty"], "'empty' has no model"),
        (["--http_port=0"], "http_port is 0"),
        (["--versions=0"], "versions is 0"),
        (["--labels=a=1"], "label is 'a=1'; allowed: <model>:<label>=<version>"),
        ([f"--labels={NAME}:stable=7"], f"label 'stable' of '{NAME}' is version 7; allowed: 1, 2"),
    ],
)
def test_bad_flags(tmp_path, monkeypatch, capsys, flags, words):
    from tf_mwnet.serve import __main__ as command

    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    own = [
        f"--models={ROOT / 'saved_models'}",
        f"--http_port={free_port()}",
        f"--grpc_port={free_port()}",
    ]
    assert command.main([*own, *flags]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in error


def test_a_port_in_use(server, capsys):
    from tf_mwnet.serve import __main__ as command

    line = [f"--models={server.models}", f"--http_port={server.http}"]
    assert command.main(line) == 2
    assert f"http_port is {server.http}, which is in use" in capsys.readouterr().err
