"""``python -m tf_mwnet.sweep``: many methods, settings and seeds, one run each, and one table.

All flags but the sweep's own are passed to every run, see ``python -m tf_mwnet.main --help`` (written
--name=value, also in a --flagfile); ``--set noise_rate=0.2,0.4`` tries several values of a flag. The
table shows the published number next to ours if there is one.

Each combination is a run in its own folder. The same command continues an interrupted sweep: finished
runs are not repeated, interrupted runs go on. If a method does not fit a setting (hard mining without
minority classes), the table leaves it out and the reason is printed.
"""

from __future__ import annotations

import functools
import itertools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tf_mwnet.cli import command_flags, console

console.start()

from absl import flags  # noqa: E402

from tf_mwnet.cli import outputs  # noqa: E402
from tf_mwnet.cli.flagfiles import expand  # noqa: E402
from tf_mwnet.cli.flags import names_of  # noqa: E402
from tf_mwnet.config import ABOUT_THE_FOLDER  # noqa: E402
from tf_mwnet.errors import UserError, check_range, choose, words  # noqa: E402
from tf_mwnet.figures import plots  # noqa: E402
from tf_mwnet.files import ROOT, check_folder, write_atomically  # noqa: E402
from tf_mwnet.reports import compare, published  # noqa: E402
from tf_mwnet.sweep.jobs import Engine, Job, Processes, execute  # noqa: E402
from tf_mwnet.sweep.page import Page  # noqa: E402
from tf_mwnet.sweep.plan import grid, keep_plan, method_names, own_methods, plan, settings_of  # noqa: E402
from tf_mwnet.sweep.ray_tasks import Tasks  # noqa: E402
from tf_mwnet.sweep.results import markdown, picture, rows  # noqa: E402

ENGINES = ("processes", "ray")


def define_flags() -> flags.FlagValues:
    """Defines the command's flags, separate from absl's global ones."""
    values = command_flags.new_flags()
    flags.DEFINE_string(
        "methods",
        "",
        "names between commas; all: each; flags may follow one; by default the runs' --method and"
        " --compare, or all",
        flag_values=values,
    )
    flags.DEFINE_string("seeds", "0,1,2", "of data and training, between commas", flag_values=values)
    flags.DEFINE_multi_string(
        "setting",
        [],
        "<name>: <flags of tf_mwnet.main>, and --methods for others here; several times for several",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "set",
        [],
        "<flag>=<values between commas>; several times for all combinations",
        flag_values=values,
    )
    flags.DEFINE_string("flags", "", "more flags of tf_mwnet.main for all runs", flag_values=values)
    flags.DEFINE_string("out", "runs/sweep", "folder of the runs", flag_values=values)
    text = "runs at a time; 0 with --engine=ray: as many as there is room for"
    flags.DEFINE_integer("jobs", 1, text, flag_values=values)
    text = f"what does the runs: {', '.join(ENGINES)}; ray: on the cluster at RAY_ADDRESS, or here"
    flags.DEFINE_string("engine", "processes", text, flag_values=values)
    flags.DEFINE_integer("run_cpus", 1, "cores of a run, with --engine=ray", flag_values=values)
    flags.DEFINE_float("run_gpus", 0, "GPUs of a run, with --engine=ray", flag_values=values)
    flags.DEFINE_string("csv", "", "file for the numbers of each run", flag_values=values)
    flags.DEFINE_string("png", "", "file for a picture of the accuracies", flag_values=values)
    flags.DEFINE_string("md", "", "file for the table, as Markdown", flag_values=values)
    text = "folder for a page that shows how far all runs are, while they go on"
    flags.DEFINE_string("page", "", text, flag_values=values)
    outputs.define_overwrite(values)
    return values


def jobs_of(values: flags.FlagValues, common: Sequence[str] = ()) -> list[Job]:
    """Plans the runs that the flags ask for.

    Args:
        values: the sweep's flags.
        common: flags of all runs.

    Raises:
        UserError: a flag is not allowed, of the sweep or of a run.
    """
    try:
        seeds = [int(s) for s in names_of(values.seeds)]
    except ValueError:
        raise UserError(f"seeds is '{values.seeds}'; allowed: integers between commas") from None
    own, common = own_methods([*common, *expand(words("flags", values.flags))])
    methods = method_names(values.methods) if values.methods else own or method_names("all")
    if not seeds or not methods:
        raise UserError("there are no seeds or no methods; allowed: one or more of each")
    settings = settings_of(values.setting)
    if values.set:
        named = settings if values.setting else {"": []}
        pairs = itertools.product(named.items(), grid(values.set).items())
        settings = {f"{a} {b}".strip(): [*first, *more] for (a, first), (b, more) in pairs}
    return plan(pathlib.Path(values.out), methods, seeds, settings, common)


def engine_of(values: flags.FlagValues) -> Engine:
    """Returns what does the runs; raises ``UserError`` if a flag of it is not allowed."""
    choose("engine", values.engine, dict.fromkeys(ENGINES))
    if values.engine == "ray":
        check_range("jobs", values.jobs, 0)
        check_range("run_cpus", values.run_cpus, 1)
        check_range("run_gpus", values.run_gpus, 0)
        return Tasks(values.jobs, values.run_cpus, values.run_gpus)
    check_range("jobs", values.jobs, 1)
    for name in ("run_cpus", "run_gpus"):
        if getattr(values, name) != values[name].default:
            raise UserError(f"{name} is set with --engine={values.engine}; allowed: with ray")
    return Processes(values.jobs)


def run(line: Sequence[str], values: flags.FlagValues, common: Sequence[str] = ()) -> tuple[str, int]:
    """Does what the flags ask for; returns the table, what has no result and why, and the exit code.

    Args:
        line: the command line, without what its flagfiles have.
        values: the sweep's flags.
        common: flags of all runs.

    Raises:
        UserError: a flag is not allowed, of the sweep or of a run; nothing has been run then. Or a
            process has been killed.
    """
    for flag in line:  # one in a flagfile of a run is meant for that run alone
        if flag.lstrip("-").partition("=")[0] in set(ABOUT_THE_FOLDER) - {"overwrite"}:
            raise UserError(f"'{flag}' is for a single run; allowed: --out, the folder of all")
    engine = engine_of(values)
    outputs.check(values, csv=("setting", "method"), md=("method",), png=outputs.PNG)
    jobs = jobs_of(values, common)
    check_folder("out", out := pathlib.Path(values.out))
    settings = list(dict.fromkeys(job.setting for job in jobs))
    progress = Page(pathlib.Path(values.page), jobs) if values.page else None
    keep_plan(out, jobs)
    try:
        problems = execute(jobs, engine, progress)
    except BrokenProcessPool as error:
        raise UserError(
            "a process has ended (no memory left?); allowed: the same command, which goes on"
        ) from error
    results = rows(jobs)
    if not results:
        raise UserError(f"no run has ended: {next(iter(problems.values()))}")
    if values.csv:
        compare.write_csv(pathlib.Path(values.csv), results, ["setting"])
    if values.md:
        text = markdown(results, settings)
        pathlib.Path(values.md).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(pathlib.Path(values.md), lambda file: file.write(text), mode="w")
    if values.png:
        plots.save(picture(results, settings), pathlib.Path(values.png))

    def of_run(row: Mapping[str, Any]) -> str:
        return published.of_run(row, ROOT)

    table = compare.table(results, ["setting"], of_run)
    table += "".join(f"\n{job.folder.name} {problem}" for job, problem in problems.items())
    return table, int(any(problem.startswith("failed") for problem in problems.values()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code.

    0: done. 1: runs have failed, which are listed; the same command tries them again. Others: see
    `console.command`; the same command goes on.
    """
    line = sys.argv[1:] if arguments is None else list(arguments)
    return console.command(__doc__, define_flags(), functools.partial(run, line), line, more=True)


if __name__ == "__main__":
    sys.exit(main())
