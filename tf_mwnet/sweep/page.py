"""A page that shows how far the runs of a sweep are, while they go on."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Mapping, Sequence

import pandas as pd

from tf_mwnet.reports import page
from tf_mwnet.runs import saved_run
from tf_mwnet.sweep.jobs import Job, how_far

REFRESH = 60  # seconds after which a browser loads the page again
WAITING, DONE = "waiting", "done"


class Page:
    """Writes the page each time it is called, see `jobs.execute`.

    Args:
        folder: of the page; other files are not replaced.
        jobs: all runs of the sweep.

    Raises:
        UserError: the folder holds files that are no report.
    """

    def __init__(self, folder: pathlib.Path, jobs: Sequence[Job]) -> None:
        page.check("page", folder)
        self.folder, self.jobs = folder, jobs
        self.finished = dict[Job, tuple[float, float]]()

    def __call__(self, problems: Mapping[Job, str], left: str) -> None:
        """Writes the page.

        Args:
            problems: of runs that have ended without a result.
            left: how long all will take, in words; "" where it is not known.
        """
        rows = [self._row(job, problems.get(job, "")) for job in self.jobs]
        frame = pd.DataFrame(rows)
        done = int((frame.state == DONE).sum())
        now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        lines = [f"{done} of {len(rows)} runs are done" + f", {left}" * bool(left) + f". {now}."]
        caption = "Test accuracy in percent, at the last and the best epoch"
        table = page.table(
            self.folder, "runs.csv", caption, frame, choose=("setting", "method", "seed", "state")
        )
        going = done + len(problems) < len(rows)
        section = page.Section("Runs", lines, [table], [])
        title = f"Sweep: {done} of {len(rows)} runs"
        page.write(self.folder, title, [section], refresh=REFRESH if going else 0)

    def _row(self, job: Job, problem: str) -> dict[str, object]:
        seed = next(f.partition("=")[2] for f in job.flags if f.startswith("--seed="))
        last, best = self._accuracies(job)
        state = problem or (DONE if last is not None else how_far(job.folder) or WAITING)
        return {
            "setting": job.setting, "method": job.label, "seed": seed, "state": state, "last": last,
            "best epoch": best,
        }  # fmt: skip

    def _accuracies(self, job: Job) -> tuple[float | None, float | None]:
        if job not in self.finished and (job.folder / saved_run.RESULT).is_file():
            summary = list(saved_run.results(job.folder)["methods"].values())[-1]
            self.finished[job] = 100 * summary["last"], 100 * summary["best"]
        return self.finished.get(job, (None, None))
