"""``python -m pipelines.compile``: compiles the pipeline for a Kubeflow Pipelines or Vertex AI cluster.

Takes the flags of ``python -m pipelines.run`` and writes YAML. The cluster's container image must have
``tf-mwnet[pipelines]``, and ``data_dir`` and ``push_to`` must be paths that the cluster can access.
``--sweep=<flagfile>`` compiles a sweep instead: a parallel loop over its runs, then its table.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tf_mwnet.cli import command_flags, console, flagfiles

console.start()

from absl import flags  # noqa: E402

from pipelines import settings as options  # noqa: E402
from tf_mwnet.errors import UserError, check_range  # noqa: E402


def define_flags() -> flags.FlagValues:
    """Returns the flags of the pipeline and of this command."""
    values = options.define_flags()
    flags.DEFINE_string("output", "pipeline.yaml", "file to write", flag_values=values)
    flags.DEFINE_string(
        "image", "tf-mwnet:python3", "container image with tf-mwnet[pipelines]", flag_values=values
    )
    text = "flagfile of python -m tf_mwnet.sweep, to compile in place of the pipeline"
    flags.DEFINE_string("sweep", "", text, flag_values=values)
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
    os.environ["TF_MWNET_IMAGE"] = values.image
    pipeline = _sweep(values, left) if values.sweep else _pipeline(values, left)
    from kfp import compiler

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        compiler.Compiler().compile(pipeline, str(temporary))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return f"pipeline      {path}\nimage         {values.image}"


def _pipeline(values: flags.FlagValues, left: Sequence[str]) -> Callable[[], Any]:
    settings = dataclasses.replace(options.read(values, left, local=False), home="")
    from pipelines import graph

    return graph.build(settings)


def _sweep(values: flags.FlagValues, left: Sequence[str]) -> Callable[[], Any]:
    """Returns the pipeline of a sweep; its own flags about engine and files have no meaning there.

    Raises:
        UserError: there are flags of a run or of the pipeline, or a flag of the sweep is not allowed.
    """
    mine = {"output", "image", "force", "sweep", "flagfile"}
    others = [f"--{name}" for name in values if values[name].present and name not in mine]
    if left or others:
        raise UserError(f"'{[*left, *others][0]}' is given with --sweep; allowed: in '{values.sweep}'")
    from tf_mwnet.sweep import __main__ as sweep

    own = sweep.define_flags()
    common = command_flags.read_flags(own, flagfiles.expand([f"--flagfile={values.sweep}"]), more=True)
    jobs = sweep.jobs_of(own, common)
    check_range("jobs", own.jobs, 0)
    check_range("run_cpus", own.run_cpus, 1)
    if own.run_gpus != int(own.run_gpus):
        raise UserError(f"run_gpus is {own.run_gpus:g}; allowed on a cluster: an integer")
    from pipelines import graph

    shared = {"home": "", "code": options.code()}
    name = pathlib.Path(values.sweep).stem
    return graph.build_sweep(name, jobs, own.jobs, own.run_cpus, int(own.run_gpus), shared)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), run, arguments, more=True)


if __name__ == "__main__":
    sys.exit(main())
