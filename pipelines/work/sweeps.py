"""The components of a sweep: one run, and the table of all."""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.work.shared import FACTS_JSON, write_json
from tf_mwnet.errors import NotANumber, UserError
from tf_mwnet.files import new_folder, read_json, write_atomically

if TYPE_CHECKING:
    from kfp import dsl

RUN = "run"  # the run's folder, in its artifact


def sweep_run(
    folder: str, setting: str, method: str, label: str, flags: str, run: dsl.Artifact
) -> dict[str, Any]:
    """Does one run of a sweep, or continues it; a method that does not fit the setting is left out.

    Args:
        folder: the name of the run.
        setting, method, label: see `tf_mwnet.sweep.jobs.Job`.
        flags: the run's, as a shell has them.
        run: the run's folder, and what is known about it.

    Raises:
        NotANumber: the loss is not a number.
    """
    from tf_mwnet.sweep.jobs import Job, work

    out = pathlib.Path(run.path)
    out.mkdir(parents=True, exist_ok=True)  # a component that is tried again goes on in its run
    problem = work(Job(out / RUN, setting, method, label, tuple(shlex.split(flags))))[1]
    if problem.startswith("failed"):
        raise NotANumber(problem)
    facts = {"folder": folder, "setting": setting, "method": method, "label": label, "problem": problem}
    write_json(out / FACTS_JSON, facts)
    return facts


def sweep_table(
    runs: Sequence[dsl.Artifact], settings: Sequence[str], table: dsl.Artifact, page: dsl.Artifact
) -> dict[str, Any]:
    """Writes the table of a sweep's runs, the numbers of each run and a picture.

    Args:
        runs: what `sweep_run` has made.
        settings: their order in the table.
        table: the folder of ``table.md``, ``results.csv`` and ``results.png``.
        page: the table once more, for the cluster's page.

    Raises:
        UserError: no run has a result.
    """
    from tf_mwnet.figures import plots
    from tf_mwnet.reports import compare
    from tf_mwnet.sweep.jobs import Job
    from tf_mwnet.sweep.results import markdown, picture, rows

    jobs, problems = [], {}
    for path in (pathlib.Path(run.path) for run in runs):
        facts = read_json(path / FACTS_JSON)
        jobs.append(Job(path / RUN, facts["setting"], facts["method"], facts["label"], ()))
        if facts["problem"]:
            problems[facts["folder"]] = facts["problem"]
    results = rows(jobs)
    if not results:
        raise UserError(f"no run has a result: {next(iter(problems.values()))}; allowed: one or more")
    text = markdown(results, settings)
    text += "".join(f"\n{name} {problem}\n" for name, problem in problems.items())
    with new_folder(pathlib.Path(table.path)) as out:
        write_atomically(out / "table.md", lambda file: file.write(text), mode="w")
        compare.write_csv(out / "results.csv", results, ["setting"])
        plots.save(picture(results, settings), out / "results.png")
    write_atomically(pathlib.Path(page.path), lambda file: file.write(text), mode="w")
    return {"runs": len(jobs), "left_out": len(problems)}
