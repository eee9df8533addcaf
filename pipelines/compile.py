"""``python -m pipelines.compile``: the pipeline as YAML, for a Kubeflow Pipelines or Vertex cluster.

The flags are those of ``python -m pipelines.run``. The image that the cluster runs the components in
must have ``tf-mwnet[pipelines]``; the data's folder and ``push_to`` must be paths that it sees.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence

from tf_mwnet.cli import console

console.start()

from absl import flags  # noqa: E402

from pipelines import settings as options  # noqa: E402
from tf_mwnet.errors import UserError  # noqa: E402


def define_flags() -> flags.FlagValues:
    """The pipeline's flags, and those of the file."""
    values = options.define_flags()
    flags.DEFINE_string("output", "pipeline.yaml", "the file to write", flag_values=values)
    flags.DEFINE_string(
        "image", "tf-mwnet:python3", "container image with tf-mwnet[pipelines]", flag_values=values
    )
    flags.DEFINE_boolean("force", False, "replace the file", flag_values=values)
    return values


def run(values: flags.FlagValues, left: Sequence[str]) -> str:
    """Writes the file that the flags ask for; returns what to print.

    Raises:
        UserError: the file is there already, or a flag is not allowed.
    """
    path = pathlib.Path(values.output)
    if path.suffix not in (".yaml", ".json"):
        raise UserError(f"output is '{path}'; allowed: a name that ends in .yaml or .json")
    if path.exists() and not values.force:
        raise UserError(f"'{path}' is there already; allowed: a new file, or --force")
    settings = dataclasses.replace(options.read(values, left, local=False), home="")
    os.environ["TF_MWNET_IMAGE"] = values.image
    from kfp import compiler

    from pipelines import graph

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        compiler.Compiler().compile(graph.build(settings), str(beside))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return f"pipeline      {path}\nimage         {values.image}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), run, arguments, more=True)


if __name__ == "__main__":
    sys.exit(main())
