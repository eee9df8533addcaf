"""Helpers that several components use."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tf_mwnet.cli.flags import parse
from tf_mwnet.config import Experiment
from tf_mwnet.data import BiasConfig
from tf_mwnet.experiment import resolve
from tf_mwnet.files import write_atomically
from tf_mwnet.types import Source

if TYPE_CHECKING:
    from kfp import dsl

FACTS_JSON = "facts.json"  # in an artifact's folder: the component's result


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a value as JSON, atomically."""
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text), mode="w")


def keep_page(output: dsl.HTML, write: Callable[[pathlib.Path], pathlib.Path]) -> None:
    """Makes a self-contained HTML page an artifact.

    Args:
        output: the artifact.
        write: writes the page into an empty folder and returns its path.
    """
    with tempfile.TemporaryDirectory() as work:
        content = write(pathlib.Path(work)).read_bytes()
    write_atomically(pathlib.Path(output.path), lambda file: file.write(content))


def experiment_of(flags: Sequence[str], **more: object) -> Experiment:
    """Parses the flags of a run; ``more`` are further flags, by name."""
    return parse([*flags, *(f"--{name}={value}" for name, value in more.items())])


def records_of(artifact: dsl.Dataset, flags: Sequence[str] = ()) -> tuple[Experiment, Source]:
    """Reads an artifact of records; returns the configuration of a run on it, and the data."""
    # Blank images were refused, if they were to be, when the records were written.
    own = {"dataset": "records", "data_dir": artifact.path, "blank_images": "keep"}
    config = experiment_of(flags, **own)
    return resolve.find(config)


def bias_of(config: Experiment) -> BiasConfig:
    """Returns the bias of a run's data. Examples for early stopping are held out in training only."""
    return dataclasses.replace(resolve.bias_of(config), early_stopping=0)
