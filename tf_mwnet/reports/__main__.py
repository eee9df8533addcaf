"""``python -m tf_mwnet.reports``: one page about finished runs, with pictures, tables and label issues.

The page is a single HTML file that opens from disk; its pictures and tables are also written as PNG and
CSV files. With --compare the runs are shown side by side, with mean and deviation over seeds, and test
error against noise rate, imbalance and meta set size if these differ.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Sequence

from tf_mwnet.cli import command_flags, console

console.start()

from absl import flags, logging  # noqa: E402

from tf_mwnet.audit import outputs  # noqa: E402
from tf_mwnet.audit.examine import examine  # noqa: E402
from tf_mwnet.errors import UserError  # noqa: E402
from tf_mwnet.figures import pictures, run_data  # noqa: E402
from tf_mwnet.methods import METHODS  # noqa: E402
from tf_mwnet.reports import page, run_section, side_by_side  # noqa: E402
from tf_mwnet.runs import saved_run  # noqa: E402

WORST = 64


def define_flags() -> flags.FlagValues:
    """Defines the command's flags, separate from absl's global ones."""
    values = command_flags.new_flags()
    flags.DEFINE_string("runs", "runs/*", "run folders, as patterns between commas", flag_values=values)
    flags.DEFINE_string("out", "report", "folder of the page and its parts", flag_values=values)
    flags.DEFINE_boolean("compare", False, "put the runs side by side", flag_values=values)
    flags.DEFINE_boolean("audit", True, "audit the labels of each run", flag_values=values)
    return values


def _audited(run: run_data.RunData, out: pathlib.Path) -> run_section.Audited | None:
    """Audits a run for the page; None if its method has seen the meta set alone.

    The audit's files go into the run's folder, or below ``out`` where that is read-only.
    """
    method = run.methods[-1]
    if METHODS[method].trains_on == "meta":
        return None
    audit = examine(run.folder, method)
    try:
        outputs.write(audit, WORST)
    except OSError as error:
        place = out / run.folder.name / "audit"
        logging.warning("the audit is written to '%s' (%s)", place, error)
        outputs.write(audit, WORST, place)
    return run_section.audited(audit, WORST)


def _title(folders: Sequence[pathlib.Path]) -> str:
    return f"Report of {len(folders)} runs" if len(folders) > 1 else f"Report of {folders[0].name}"


def run(values: flags.FlagValues) -> str:
    """Does what the flags ask for; returns where the page is.

    Raises:
        UserError: no run matches, or the files of all are damaged.
    """
    folders, out = run_data.finished(values.runs), pathlib.Path(values.out)
    page.check("out", out)
    new = not page.is_ours(out)
    if new:
        page.write(out, f"{_title(folders)} (not finished)", [])  # marks the folder as a report's

    def taken(folder: pathlib.Path) -> tuple[side_by_side.Run, list[pictures.Picture]]:
        logging.info("%d of %d: %s", folders.index(folder) + 1, len(folders), folder)
        data = run_data.read(folder)
        audit = _audited(data, out) if values.audit else None
        summaries = saved_run.results(folder)["methods"]
        return (data, summaries, audit), list(pictures.of_run(data))

    try:
        pairs = run_data.each(folders, taken)
    except UserError:
        if new:
            (out / page.PAGE).unlink()
            with contextlib.suppress(OSError):  # with parts of a page
                out.rmdir()
        raise
    if values.compare:
        pictures.share_limits([picture for _, drawn in pairs for picture in drawn])
    runs = [run for run, _ in pairs]
    sections = [run_section.of_run(out, *run, drawn) for run, drawn in pairs]
    title = _title([data.folder for data, *_ in runs])
    if values.compare:
        sections = side_by_side.sections(out, runs, sections)
    path = page.write(out, title, sections)
    return f"\nreport  {path}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 for bad input."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
