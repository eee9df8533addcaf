"""What the components' work shares."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tf_mwnet.config import Experiment
from tf_mwnet.data import BiasConfig
from tf_mwnet.files import write_atomically
from tf_mwnet.types import Source

if TYPE_CHECKING:
    from kfp import dsl

FACTS = "facts.json"


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a value, atomically."""
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text), mode="w")


def keep_page(output: dsl.Artifact, write: Callable[[pathlib.Path], pathlib.Path]) -> None:
    """Keeps the page that ``write`` makes in a folder; it holds its pictures and tables itself."""
    with tempfile.TemporaryDirectory() as work:
        content = write(pathlib.Path(work)).read_bytes()
    write_atomically(pathlib.Path(output.path), lambda file: file.write(content))


def experiment_of(flags: Sequence[str], **more: object) -> Experiment:
    """The configuration that flags stand for."""
    from tf_mwnet.cli.flags import parse

    return parse([*flags, *(f"--{k}={v}" for k, v in more.items())])


def records_of(artifact: dsl.Dataset, flags: Sequence[str] = ()) -> tuple[Experiment, Source]:
    """Configuration for an artifact of records, and the records."""
    from tf_mwnet.experiment.resolve import find

    return find(experiment_of(flags, dataset="records", data_dir=artifact.path))


def bias_of(config: Experiment) -> BiasConfig:
    """What is done to the data, without what is held out in training."""
    from tf_mwnet.experiment.resolve import bias_of as whole

    return dataclasses.replace(whole(config), early_stopping=0)
