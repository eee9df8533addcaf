"""``python -m tf_mwnet.main``: trains a classifier on data with wrong labels.

Without flags: handwritten digits with 40 % of the labels wrong, plain training and MW-Net.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Sequence

from tf_mwnet.cli import console

console.start()

from absl import flags  # noqa: E402

from tf_mwnet.cli import on_ray  # noqa: E402
from tf_mwnet.cli.flags import define_flags, experiment_of, help_text  # noqa: E402
from tf_mwnet.config import Experiment  # noqa: E402
from tf_mwnet.errors import UserError, choose  # noqa: E402
from tf_mwnet.experiment.runner import Result, run  # noqa: E402
from tf_mwnet.figures.tables import UNCHECKED, auc_table, methods_table  # noqa: E402

LAUNCHERS = ("none", "ray")
OWN = ("launcher", "workers", "worker_cpus", "worker_gpus")  # flags of this command alone


def report(result: Result, seconds: float) -> str:
    """Formats the results, and the places of files, for the terminal."""
    config, folder = result.config, result.run_dir
    lines = ["", methods_table(result.methods), ""]
    if not result.splits.test_checked:
        lines[1:1] = [UNCHECKED, ""]
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


def train(config: Experiment) -> str | None:
    """Trains; returns the report, or None on a worker that is not the chief."""
    start = time.perf_counter()
    result = run(config)
    return report(result, time.perf_counter() - start) if result.chief else None


def launch(values: flags.FlagValues) -> str | None:
    """Trains as the flags ask for, here or in workers that it starts."""
    choose("launcher", values.launcher, dict.fromkeys(LAUNCHERS))
    if values.launcher == "ray":
        workers = on_ray.Workers(values.workers, values.worker_cpus, values.worker_gpus)
        return on_ray.launch(experiment_of(values), workers, train)
    for name in OWN[1:]:
        if getattr(values, name) != values[name].default:
            raise UserError(f"{name} is {getattr(values, name)}; allowed: with --launcher=ray")
    return train(experiment_of(values))


def own_flags() -> flags.FlagValues:
    """Defines the flags of a run, and those that say who starts its workers."""
    values = define_flags()
    text = f"{', '.join(LAUNCHERS)}; ray: starts the workers of --strategy=multiworker with Ray Train"
    flags.DEFINE_string("launcher", "none", text, flag_values=values)
    flags.DEFINE_integer("workers", 2, "processes, with --launcher=ray", flag_values=values)
    flags.DEFINE_integer("worker_cpus", 1, "cores of each, with --launcher=ray", flag_values=values)
    flags.DEFINE_integer("worker_gpus", 0, "GPUs of each, with --launcher=ray", flag_values=values)
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, see `console.command`."""
    values = own_flags()
    more = [values[name] for name in OWN]
    show_help = functools.partial(help_text, __doc__, more)
    return console.command(__doc__, values, launch, arguments, show_help)


if __name__ == "__main__":
    sys.exit(main())
