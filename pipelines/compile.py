"""``python -m pipelines.compile``: compiles the pipeline for a Kubeflow Pipelines or Vertex AI cluster.

Takes the flags of ``python -m pipelines.run`` and writes YAML. The cluster's container image must have
``tf-mwnet[pipelines]``, and ``data_dir`` and ``push_to`` must be paths that the cluster can access.
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
    """Returns the flags of the pipeline and of this command."""
    values = options.define_flags()
    flags.DEFINE_string("output", "pipeline.yaml", "file to write", flag_values=values)
    flags.DEFINE_string(
        "image", "tf-mwnet:python3", "container image with tf-mwnet[pipelines]", flag_values=values
    )
    flags.DEFINE_boolean("force", False, "replace an existing file", flag_values=values)
    return values


def run(values: flags.FlagValues, left: Sequence[str]) -> str:
    """Writes the compiled pipeline; returns the text to print.

    Args:
        values: the command's flags.
        left: the flags of the run.

    Raises:
        UserError: the file exists, or the value of a flag is not allowed.
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
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        compiler.Compiler().compile(graph.build(settings), str(temporary))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return f"pipeline      {path}\nimage         {values.image}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), run, arguments, more=True)


if __name__ == "__main__":
    sys.exit(main())
