"""``python -m tf_mwnet.main``: flags to an `Experiment`, and its result as a table.

Without flags: the handwritten digits with 40 % of the labels redrawn, plain training and MW-Net.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tf_mwnet.cli import console

console.start()

from absl import flags  # noqa: E402

from tf_mwnet.cli.flags import define_flags, experiment_of, help_text  # noqa: E402
from tf_mwnet.experiment.runner import Result, run  # noqa: E402
from tf_mwnet.figures.tables import auc_table, methods_table  # noqa: E402


def report(result: Result, seconds: float) -> str:
    """Formats the results, and the places of files, for the terminal."""
    config, folder = result.config, result.run_dir
    lines = ["", methods_table(result.methods), ""]
    if aucs := auc_table(result.methods):
        lines += [aucs, ""]
    places: list[tuple[str, object]] = []
    if result.noise_rate is not None:
        places.append(("realised noise rate", f"{100 * result.noise_rate:.1f} % of the training labels"))
    places += [("run folder", folder), ("pictures", folder / "plots")]
    places.append(("TensorBoard", f"tensorboard --logdir {folder / 'tensorboard'}"))
    for name in config.methods:
        for path in sorted((folder / name / "saved_models").glob("*/[0-9]*")):
            places.append((f"{path.parent.name} ({name})", path))
    places.append(("time", f"{seconds:.0f} s"))
    width = max(len(name) for name, _ in places) + 2
    lines += [f"{name:<{width}}{place}" for name, place in places]
    return "\n".join(lines)


def train(values: flags.FlagValues) -> str | None:
    """Trains as the flags ask for; returns the report, or None on a worker that is not the chief."""
    start = time.perf_counter()
    result = run(experiment_of(values))
    return report(result, time.perf_counter() - start) if result.chief else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), train, arguments, lambda: help_text(__doc__))


if __name__ == "__main__":
    sys.exit(main())
