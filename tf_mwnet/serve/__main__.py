"""``python -m tf_mwnet.serve``: a model server for exported SavedModels, on KServe.

python -m tf_mwnet.serve --models=saved_models
curl -d '{"inputs": {"loss": [[0.1], [1.0], [5.0]]}}' localhost:8080/v1/models/cifar10_flip2:predict

Models are the folders <name>/<version> below --models; new versions are served as they appear. Needs
KServe: pip install 'tf-mwnet[serve]'.
"""

from __future__ import annotations

import logging as python_logging
import pathlib
import socket
import sys
from collections.abc import Sequence
from typing import Any

from tf_mwnet.cli import command_flags, console, processes

console.start()

from absl import flags, logging  # noqa: E402

from tf_mwnet.errors import UserError, check_range, quoted  # noqa: E402
from tf_mwnet.serve.batches import Batches  # noqa: E402
from tf_mwnet.serve.models import Folder, check  # noqa: E402


def define_flags() -> flags.FlagValues:
    """Returns the command's flags."""
    values = command_flags.new_flags()
    flags.DEFINE_string("models", "saved_models", "folder of <name>/<version>", flag_values=values)
    flags.DEFINE_integer("http_port", 8080, "port of REST", flag_values=values)
    flags.DEFINE_integer("grpc_port", 8081, "port of gRPC; 0 for none", flag_values=values)
    flags.DEFINE_integer("versions", 2, "newest versions of each model to serve", flag_values=values)
    flags.DEFINE_list(
        "labels", [], "names of versions, as classifier:stable=1; they stay loaded", flag_values=values
    )
    flags.DEFINE_float("poll", 5.0, "seconds between looks for new versions", flag_values=values)
    flags.DEFINE_integer("batch", 128, "rows that are computed at once", flag_values=values)
    flags.DEFINE_float(
        "batch_delay", 2.0, "milliseconds to wait for further requests", flag_values=values
    )
    return values


def labels_of(given: Sequence[str]) -> dict[str, dict[str, int]]:
    """Reads labels, ``model:label=version``: model -> label -> version.

    Raises:
        UserError: one is written otherwise.
    """
    labels: dict[str, dict[str, int]] = {}
    for text in given:
        name, _, rest = text.partition(":")
        label, _, number = rest.partition("=")
        if not name or not label or label.isdecimal() or not number.isdecimal():
            raise UserError(f"label is '{text}'; allowed: <model>:<label>=<version>")
        labels.setdefault(name, {})[label] = int(number)
    return labels


def _kserve() -> Any:
    """Imports KServe, which reads the process's command line when it is imported."""
    line, sys.argv = sys.argv, sys.argv[:1]
    try:
        import kserve.model_server
    except ModuleNotFoundError:
        raise UserError("KServe is not installed; allowed: pip install 'tf-mwnet[serve]'") from None
    finally:
        sys.argv = line
    kserve.model_server.args.configure_logging = False
    return kserve


def _foreseen(record: python_logging.LogRecord) -> bool:
    """Tells whether a record is of no request that was answered with an error of the client's."""
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ not in ("InvalidInput", "ModelNotFound", "NotImplementedError")


def _check_port(name: str, port: int) -> None:
    check_range(name, port, 1, 65535)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            raise UserError(f"{name} is {port}, which is in use; allowed: a free port") from None


def _look(folder: Folder) -> None:
    """Looks for new versions."""
    try:
        folder.poll()
    except Exception:  # a folder that is moved meanwhile; the models stay
        logging.exception("looking for new versions in '%s'", folder.root)


def run(values: flags.FlagValues) -> None:
    """Serves until a signal comes.

    Raises:
        UserError: a flag's value is not allowed, there is no model, or a port is in use.
    """
    check_range("versions", values.versions, 1)
    check_range("batch", values.batch, 1)
    check_range("batch_delay", values.batch_delay, 0, 1000)
    check_range("poll", values.poll, 0.05)
    labels, root = labels_of(values.labels), pathlib.Path(values.models).expanduser()
    check(root)
    kserve = _kserve()
    _check_port("http_port", values.http_port)
    if values.grpc_port:
        _check_port("grpc_port", values.grpc_port)
    folder = Folder(root, values.versions, labels)
    if unready := [name for name, served in folder.models.items() if not served]:
        logging.warning("no version of %s can be served", quoted(unready))
    from tf_mwnet.serve.adapter import Addresses, Registry

    for name in ("kserve", "uvicorn.error"):
        python_logging.getLogger(name).addFilter(_foreseen)
    python_logging.getLogger("uvicorn.access").disabled = True
    kserve.model_server.app.add_middleware(Addresses)
    registry = Registry(folder, Batches(values.batch, values.batch_delay / 1000))
    server = kserve.ModelServer(
        http_port=values.http_port, grpc_port=values.grpc_port, enable_grpc=bool(values.grpc_port),
        registered_models=registry, enable_latency_logging=False, workers=1,
    )  # fmt: skip
    logging.info("%d models on port %d; Ctrl-C ends", len(folder.models), values.http_port)
    with processes.every(values.poll, lambda: _look(folder)):
        server.start([])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
