"""Brings models to KServe's server: requests of its protocols in, answers out."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import kserve
import numpy as np
import prometheus_client
import tensorflow as tf
from kserve.errors import InvalidInput

from tf_mwnet.errors import UserError
from tf_mwnet.serve.batches import Batches, rows
from tf_mwnet.serve.models import DEFAULT, Folder, Signature, Version

AT = "@"  # between the name of a model and a version or label, in KServe's names
DATATYPES = {
    "string": "BYTES", "float16": "FP16", "float32": "FP32", "float64": "FP64", "bool": "BOOL",
}  # fmt: skip
# What TensorFlow Serving (v1) and the open inference protocol (v2) have in their addresses.
ADDRESS = re.compile(r"(/v[12]/models/[^/@:]+)/(?:versions|labels)/([^/:]+)(.*)")

ROWS = prometheus_client.Counter(
    "tf_mwnet_rows", "rows that were computed", ["model", "version", "signature"]
)
OUTSIDE = prometheus_client.Counter(
    "tf_mwnet_rows_outside",
    "losses outside of those that the function was learned on",
    ["model", "version"],
)


class Served(kserve.Model):
    """A model of a folder, or one version of it, as KServe calls it.

    Args:
        name: of the model, as in ``name``, ``name@2`` or ``name@stable``.
        folder: the loaded models.
        batches: joins requests.
    """

    def __init__(self, name: str, folder: Folder, batches: Batches) -> None:
        super().__init__(name)
        self.base, _, self.which = name.partition(AT)
        self.folder, self.batches = folder, batches
        self.ready = True

    def version(self, which: str = "") -> Version:
        """Returns the version that a request asks for."""
        version = self.folder.find(self.base, which or self.which)
        if version is None:
            raise InvalidInput(f"model '{self.base}' has no version '{which or self.which}'")
        return version

    async def healthy(self) -> bool:
        return self.folder.find(self.base, self.which) is not None

    def get_input_types(self) -> list[dict[str, Any]]:
        return _about(self.version().signature().inputs)

    def get_output_types(self) -> list[dict[str, Any]]:
        return _about(self.version().signature().outputs)

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Answers a request of version 1 (a dict) or 2 of the protocol.

        Raises:
            InvalidInput: which KServe answers with status 400.
        """
        try:
            if isinstance(payload, kserve.InferRequest):
                return await self._open_inference(payload)
            return await self._tensorflow_serving(payload)
        except UserError as error:
            raise InvalidInput(str(error)) from None

    async def _compute(self, version: Version, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        signature = version.signature(name)
        arrays = signature.tensors(values)
        count(version, name, arrays)
        return await self.batches(signature, arrays)

    async def _tensorflow_serving(self, body: Any) -> dict[str, Any]:
        if isinstance(body, bytes):  # KServe decodes only what is declared to be JSON, as curl does not
            try:
                body = json.loads(body)
            except ValueError as error:
                raise UserError(f"the body is no JSON ({error}); allowed: JSON") from None
        if not isinstance(body, dict) or ("instances" in body) == ("inputs" in body):
            raise UserError("the body has neither or both of them; allowed: 'instances' or 'inputs'")
        name, version = body.get("signature_name", ""), self.version()
        signature = version.signature(name)
        columns = "inputs" in body
        values = _columns(signature, body["inputs"]) if columns else _rows(signature, body["instances"])
        answers = {k: y.tolist() for k, y in (await self._compute(version, name, values)).items()}
        (one, *more) = answers.values()
        if columns:
            return {"outputs": answers if more else one}
        if not more:
            return {"predictions": one}
        by_row = zip(*answers.values(), strict=True)
        return {"predictions": [dict(zip(answers, row, strict=True)) for row in by_row]}

    async def _open_inference(self, request: kserve.InferRequest) -> kserve.InferResponse:
        version = self.version(request.model_version or "")
        name = _text((request.parameters or {}).get("signature_name", ""))
        values = {x.name: x.as_numpy() for x in request.inputs}
        outputs = []
        for key, y in (await self._compute(version, name, values)).items():
            output = kserve.InferOutput(key, list(y.shape), _datatype(y.dtype))
            output.set_data_from_numpy(y, binary_data=request.from_grpc)
            outputs.append(output)
        return kserve.InferResponse(
            request.id or str(uuid.uuid4()), self.base, outputs,
            model_version=str(version.number), from_grpc=request.from_grpc,
            use_binary_outputs=request.use_binary_outputs, requested_outputs=request.request_outputs,
        )  # fmt: skip


def count(version: Version, signature: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Adds a request to the metrics."""
    ROWS.labels(version.name, str(version.number), signature or DEFAULT).inc(rows(arrays))
    seen = version.card.get("loss_range_seen")
    if seen and "loss" in arrays:
        outside = (arrays["loss"] < seen["min"]) | (arrays["loss"] > seen["max"])
        OUTSIDE.labels(version.name, str(version.number)).inc(float(outside.sum()))


def _datatype(dtype: tf.DType | np.dtype) -> str:
    return DATATYPES.get(dtype.name, dtype.name.upper())


def _about(specs: Mapping[str, tf.TensorSpec]) -> list[dict[str, Any]]:
    return [
        {"name": name, "datatype": _datatype(spec.dtype),
         "shape": [-1 if n is None else n for n in spec.shape]}
        for name, spec in specs.items()
    ]  # fmt: skip


def _columns(signature: Signature, inputs: Any) -> dict[str, Any]:
    """Reads inputs by name; of a signature with one input it may be that alone."""
    if isinstance(inputs, dict):
        return inputs
    return dict.fromkeys(signature.inputs, inputs) if len(signature.inputs) == 1 else {}


def _rows(signature: Signature, instances: Any) -> dict[str, Any]:
    """Reads a list of rows, each a value or values by name."""
    if not isinstance(instances, list) or not instances:
        raise UserError("'instances' is no list of rows; allowed: one row or more")
    if not all(isinstance(row, dict) for row in instances):
        return _columns(signature, instances)
    if any(set(row) != set(instances[0]) for row in instances):
        raise UserError("'instances' differ in their names; allowed: the same in each row")
    return {name: [row[name] for row in instances] for name in instances[0]}


def _text(parameter: Any) -> str:
    return str(getattr(parameter, "string_param", parameter))


class Registry(kserve.ModelRepository):
    """KServe's list of models, read from a `Folder`; ``name@2`` and ``name@stable`` are in it, too."""

    def __init__(self, folder: Folder, batches: Batches) -> None:
        super().__init__(str(folder.root))
        self.folder, self.batches = folder, batches

    def get_model(self, name: str) -> Served | None:
        base, _, which = name.partition(AT)
        return Served(name, self.folder, self.batches) if self.folder.find(base, which) else None

    def get_models(self) -> dict[str, Served]:
        return {name: Served(name, self.folder, self.batches) for name in self.folder.models}

    def load(self, name: str) -> bool:
        """Looks for new versions at once; called by the repository's extension of the protocol."""
        self.folder.poll()
        return self.folder.find(name) is not None

    def unload(self, name: str) -> None:
        """Does nothing: models are unloaded when their folders go."""


class Addresses:
    """ASGI middleware: ``/versions/2`` and ``/labels/stable`` in an address become ``name@2``."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (match := ADDRESS.fullmatch(scope["path"])):
            path = f"{match[1]}{AT}{match[2]}{match[3]}"
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await self.app(scope, receive, send)
