"""``python -m tf_mwnet.sweep``: many methods, settings and seeds, one run each, and one table.

Flags that are not the sweep's own are those of all runs, as ``python -m tf_mwnet.main`` has them
(written --name=value, also in a --flagfile); ``--set noise_rate=0.2,0.4`` tries several values of one.
The table has the published number beside ours where there is one.

Each combination is a run in a folder of its own. What is finished is not run again, what was cut off is
continued: give the same command once more. Where a method does not fit a setting (hard mining without
minority classes), the table leaves it out and the reason is printed.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import re
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tf_mwnet import console

console.start()

from absl import flags  # noqa: E402

from tf_mwnet.config import read_json  # noqa: E402
from tf_mwnet.errors import UserError, check_range, choose  # noqa: E402
from tf_mwnet.files import write_atomically  # noqa: E402
from tf_mwnet.flagfiles import expand  # noqa: E402
from tf_mwnet.jobs import Job, execute  # noqa: E402
from tf_mwnet.methods import METHODS  # noqa: E402
from tf_mwnet.reports import compare, plots, published  # noqa: E402
from tf_mwnet.run_folder import RESULT  # noqa: E402

PLAN = "sweep.json"


def plan(
    out: pathlib.Path,
    methods: Sequence[str],
    seeds: Sequence[int],
    settings: Mapping[str, Sequence[str]],
    common: Sequence[str] = (),
) -> list[Job]:
    """The runs of a sweep, by seed, setting and method.

    Args:
        out: folder of the sweep.
        methods: names; flags of the method may follow one ("s_model --s_model_init=confusion").
        seeds: each is the run's ``seed`` and ``data_seed``.
        settings: name -> flags.
        common: flags of all runs.

    Raises:
        UserError: a method is unknown, or a run's flags are not allowed.
    """
    jobs = []
    for seed in seeds:
        for setting, own in settings.items():
            for method in methods:
                name, *more = shlex.split(method)
                choose("method", name, METHODS)
                label = name + f" ({', '.join(f.split('=')[-1].lstrip('-') for f in more)})" * bool(more)
                line = [*common, *own, f"--method={name}", *more, f"--seed={seed}"]
                line += [f"--data_seed={seed}"]
                folder = out / re.sub(r"[^\w.-]+", "_", f"{setting}-{label}-{seed}")
                jobs.append(Job(folder, setting, name, label, tuple(line)))
    for job in jobs:
        job.config()
    return jobs


def _keep_plan(out: pathlib.Path, jobs: Sequence[Job]) -> None:
    """Writes each run's flags; raises ``UserError`` where a run of the folder had others."""
    path = out / PLAN
    known = read_json(path) if path.is_file() else {}
    for job in jobs:
        before = known.setdefault(job.folder.name, list(job.flags))
        if before != list(job.flags):
            raise UserError(
                f"'{job.folder}' belongs to a sweep with other flags ({shlex.join(before)}); allowed:"
                " another --out"
            )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: json.dump(known, file, indent=1), mode="w")


# -------------------------------------------------------------------- results


def rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """What each finished run reached, see `compare.read_run`, with its "setting"."""
    out = []
    for job in jobs:
        if not (job.folder / RESULT).is_file():
            continue
        found = compare.read_run(job.folder)
        if job.label != job.method and len(found) > 1:  # what came after the method was asked for
            found = [row for row in found if row["method"] != job.method]
        names = {job.method: job.label}
        for row in found:
            name = names.get(row["method"], row["method"])
            out.append(row | {"method": name, "setting": job.setting})
    return out


def _place(label: str) -> tuple[int, str]:
    """Where a method stands in the tables: as in `METHODS`, variants behind their method."""
    return list(METHODS).index(label.partition(" ")[0].partition("+")[0]), label


def markdown(found: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> str:
    """A row per method: last / mean of last five / best for each setting, in percent."""
    groups = compare.group(found, ["setting"])
    names = list(dict.fromkeys(method for _, method in groups))
    names.sort(key=_place)
    lines = []
    for name in names:
        cells = [compare.cells(groups.get((setting, name), ()), 1) for setting in settings]
        lines.append([name, *itertools.chain(*cells)])
    header = ["method", *(f"{s}: {m}" for s in settings for m in ("last", "mean of last 5", "best"))]
    out = [header, ["---"] * len(header), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in out)


def picture(found: Sequence[Mapping[str, Any]], settings: Sequence[str]):
    """See `plots.methods`."""
    panels: dict[str, dict[str, list[float]]] = {s: {} for s in settings}
    for row in sorted(found, key=lambda r: _place(r["method"])):
        panels[row["setting"]].setdefault(row["method"], []).append(100 * row["last"])
    return plots.methods(panels)


# -------------------------------------------------------------------- the command


def define_flags() -> flags.FlagValues:
    """The command's flags, apart from absl's global ones."""
    values = console.new_flags()
    define = {"flag_values": values}
    flags.DEFINE_string(
        "methods",
        "",
        "names between commas; all: each; flags may follow one; by default the runs' --method and"
        " --compare, or all",
        **define,
    )
    flags.DEFINE_string("seeds", "0,1,2", "of data and training, between commas", **define)
    flags.DEFINE_multi_string(
        "setting", [], "<name>: <flags of tf_mwnet.main>; several times for several", **define
    )
    flags.DEFINE_multi_string(
        "set", [], "<flag>=<values between commas>; several times for all combinations", **define
    )
    flags.DEFINE_string("flags", "", "more flags of tf_mwnet.main for all runs", **define)
    flags.DEFINE_string("out", "runs/sweep", "folder of the runs", **define)
    flags.DEFINE_integer("jobs", 1, "runs at a time", **define)
    flags.DEFINE_string("csv", "", "file for the numbers of each run", **define)
    flags.DEFINE_string("png", "", "file for a picture of the accuracies", **define)
    flags.DEFINE_string("md", "", "file for the table, as Markdown", **define)
    return values


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def method_names(text: str) -> list[str]:
    """What ``--methods`` stands for."""
    return [m for name in _names(text) for m in (METHODS if name == "all" else [name])]


def _settings(lines: Sequence[str]) -> dict[str, list[str]]:
    found = {}
    for line in lines or ["default:"]:
        name, colon, rest = line.partition(":")
        if not colon or not name.strip():
            raise UserError(f"setting is '{line}'; allowed: <name>: <flags>")
        found[name.strip()] = expand(shlex.split(rest))
    return found


def axes_of(lines: Sequence[str], what: str = "set") -> dict[str, list[str]]:
    """Flag -> values to try, of lines ``<flag>=<values between commas>``.

    Raises:
        UserError: a line is not of that form; ``what`` is its name in the message.
    """
    axes = {}
    for line in lines:
        name, equals, values = line.partition("=")
        if not equals or not _names(values):
            raise UserError(f"{what} is '{line}'; allowed: <flag>=<values between commas>")
        axes[name] = _names(values)
    return axes


def _grid(lines: Sequence[str]) -> dict[str, list[str]]:
    """Setting -> flags, for all combinations of the values in ``--set``."""
    axes = [
        [(f"{name}={v}", f"--{name}={v}") for v in values] for name, values in axes_of(lines).items()
    ]
    return {
        " ".join(name for name, _ in point): [flag for _, flag in point]
        for point in itertools.product(*axes)
    }


def _own_methods(common: Sequence[str]) -> tuple[list[str], list[str]]:
    """The methods that runs' flags name, the one compared with first, and the flags without them."""
    named, left = {}, []
    for flag in common:
        name, _, value = flag.lstrip("-").partition("=")
        if name in ("method", "compare"):
            named[name] = value
        else:
            left.append(flag)
    return [named[k] for k in ("compare", "method") if named.get(k, "auto") not in ("", "auto")], left


def run(values: flags.FlagValues, common: Sequence[str] = ()) -> tuple[str, dict[Job, str]]:
    """Does what the flags ask for; returns the table, and what has no result and why.

    Args:
        values: the sweep's flags.
        common: flags of all runs.

    Raises:
        UserError: a flag is not allowed, of the sweep or of a run; nothing has been run then.
    """
    check_range("jobs", values.jobs, 1)
    try:
        seeds = [int(s) for s in _names(values.seeds)]
    except ValueError:
        raise UserError(f"seeds is '{values.seeds}'; allowed: integers between commas") from None
    own, common = _own_methods([*common, *expand(shlex.split(values.flags))])
    methods = method_names(values.methods) if values.methods else own or method_names("all")
    if not seeds or not methods:
        raise UserError("there are no seeds or no methods; allowed: one or more of each")
    settings, out = _settings(values.setting), pathlib.Path(values.out)
    if values.set:
        named = settings if values.setting else {"": []}
        pairs = itertools.product(named.items(), _grid(values.set).items())
        settings = {f"{a} {b}".strip(): [*first, *more] for (a, first), (b, more) in pairs}
    jobs = plan(out, methods, seeds, settings, common)
    _keep_plan(out, jobs)
    problems = execute(jobs, values.jobs)
    found = rows(jobs)
    if not found:
        raise UserError(f"no run has ended: {next(iter(problems.values()))}")
    if values.csv:
        compare.write_csv(pathlib.Path(values.csv), found, ["setting"])
    if values.md:
        text = markdown(found, list(settings))
        pathlib.Path(values.md).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(pathlib.Path(values.md), lambda file: file.write(text), mode="w")
    if values.png:
        plots.save(picture(found, list(settings)), pathlib.Path(values.png))
    root = pathlib.Path()
    return compare.table(found, ["setting"], lambda row: published.of_run(row, root)), problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code.

    0: done. 2: bad input, or a run failed. 130: interrupted; the same command goes on.
    """
    console.start_logging()
    values = define_flags()
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        given = expand(sys.argv[1:] if arguments is None else arguments)
        common = console.read_flags(values, given, more=True)
        if values.help:
            print(f"{__doc__}\n{values.get_help()}")
            return 0
        table, problems = run(values, common)
    except (UserError, OSError) as error:
        return console.fail(error, 2)
    except BrokenProcessPool:
        return console.fail("a process has ended (no memory left?); the same command goes on", 2)
    except KeyboardInterrupt:
        return console.fail("stopped; the same command goes on", 130)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(table)
    for job, problem in problems.items():
        print(f"{job.folder.name} {problem}")
    return 2 if any(p.startswith("failed") for p in problems.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
