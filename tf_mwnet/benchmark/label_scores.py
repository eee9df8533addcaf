"""``python -m tf_mwnet.benchmark.label_scores``: compares scores that tell wrong labels from right ones.

Reads finished runs whose true labels are known. For each score it reports the AUC of finding the wrong
training labels, averaged over the runs with the same data set, noise and method.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tf_mwnet.cli import command_flags, console

console.start()

import numpy as np  # noqa: E402
from absl import flags, logging  # noqa: E402

from tf_mwnet.audit import evidence, scoring  # noqa: E402
from tf_mwnet.benchmark.labels import scores as figures  # noqa: E402
from tf_mwnet.cli import outputs  # noqa: E402
from tf_mwnet.experiment.scores import mean_of_known  # noqa: E402
from tf_mwnet.figures import run_data, tables  # noqa: E402
from tf_mwnet.files import load_arrays, write_csv  # noqa: E402
from tf_mwnet.methods import METHODS  # noqa: E402

GROUP_BY = ("data", "noise", "method")


def of_run(run: run_data.RunData, method: str) -> dict[str, np.ndarray]:
    """Computes the scores of a run's training examples.

    Args:
        run: the finished run.
        method: one of its methods.

    Returns:
        Name of the score -> ``[N]``, high for right labels, NaN for an example that was never seen.
    """
    labels = run.labels["train_y"]
    arrays = [load_arrays(path) for path in run.records(method)]

    def column(name: str, part: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
        return mean_of_known(a[name][: len(labels)].astype(float) for a in part)

    s = evidence.recorded(run.folder / method / "examples", labels, len(run.class_names))
    transition = scoring.estimate(s).transition
    hits = [(a["predicted"][: len(labels)] == labels).astype(float) for a in arrays]
    return {
        "loss, last epoch": -column("loss", arrays[-1:]),
        "loss, last 5": -column("loss", arrays[-5:]),
        "loss, all": -column("loss", arrays),
        "weight, last 5": column("weight", arrays[-5:]),
        "weight, all": column("weight", arrays),
        "probability, all": column("probability", arrays),
        "agreement, all": (column("probability", arrays) + mean_of_known(hits)) / 2,
        "agreement, weighted epochs": scoring.agreement(s),
        "quality": scoring.label_quality(s, transition),
    }


def define_flags() -> flags.FlagValues:
    """Returns the command's flags, separate from absl's global ones."""
    values = command_flags.new_flags()
    flags.DEFINE_string("runs", "runs/*", "run folders, comma-separated patterns", flag_values=values)
    flags.DEFINE_string("csv", "", "file to write the numbers of each run to", flag_values=values)
    outputs.define_overwrite(values)
    return values


def run(values: flags.FlagValues) -> str:
    """Scores the runs that the flags name; returns the table to print.

    Raises:
        UserError: no finished run matches, or a run's files are damaged.
    """
    outputs.check(values, csv=(*GROUP_BY, "run"))
    rows = []
    for folder in run_data.finished(values.runs):
        data = run_data.read(folder)
        wrong = data.labels["train_y"] != data.labels["train_true_y"]
        if not (data.truth_known and wrong.any()):
            logging.info("leaving out '%s': no label is known to be wrong", folder)
            continue
        noise = f"{data.config['noise']} {100 * data.config['noise_rate']:g} %"
        for method in data.methods:
            if METHODS[method].trains_on == "meta":
                continue
            row: dict[str, Any] = {"data": data.config["dataset"], "noise": noise, "method": method}
            row["run"] = folder.name
            for name, score in of_run(data, method).items():
                known = np.isfinite(score)
                row[name] = figures(wrong[known], score[known])["auc"]
            rows.append(row)
    if not rows:
        return "no run has wrong labels"
    if values.csv:
        write_csv(pathlib.Path(values.csv), rows, list(rows[0]), digits=4)
    names = [name for name in rows[0] if name not in (*GROUP_BY, "run")]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in GROUP_BY), []).append(row)
    lines = [
        [*key, *(f"{np.mean([row[name] for row in members]):.3f}" for name in names), str(len(members))]
        for key, members in sorted(groups.items())
    ]
    return tables.text([*GROUP_BY, *names, "runs"], lines, range(3, len(names) + 4), keys=3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 for bad input."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
