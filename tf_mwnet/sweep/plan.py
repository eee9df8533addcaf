"""Plans the runs of a sweep."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from tf_mwnet.cli.flagfiles import expand
from tf_mwnet.cli.flags import axes_of, names_of
from tf_mwnet.errors import UserError, choose, words
from tf_mwnet.files import read_json, write_atomically
from tf_mwnet.methods import METHODS, with_own_options
from tf_mwnet.sweep.jobs import Job

PLAN = "sweep.json"
SEEDS = ("--seed", "--data_seed")
OWN = "--methods="


def plan(
    out: pathlib.Path,
    methods: Sequence[str],
    seeds: Sequence[int],
    settings: Mapping[str, Sequence[str]],
    common: Sequence[str] = (),
) -> list[Job]:
    """Plans the runs of a sweep, by seed, setting and method.

    Args:
        out: folder of the sweep.
        methods: names, which options of the method and flags of its runs may follow
            ("s_model --s_model_init=confusion").
        seeds: each is the run's ``seed`` and ``data_seed``, unless its setting has its own.
        settings: name -> flags; with ``--methods`` among them they have methods of their own.
        common: flags of all runs.

    Raises:
        UserError: a method is unknown, a run's flags are not allowed, or two runs are one.
    """
    jobs: list[Job] = []
    for seed in seeds:
        for setting, flags in settings.items():
            named = [f.partition("=")[2] for f in flags if f.startswith(OWN)]
            own = [f for f in flags if not f.startswith(OWN)]
            for (name, *more), label in _labelled(method_names(named[-1]) if named else methods):
                choose("method", name, METHODS)
                spelled, rest = with_own_options(name, more)
                given = {flag.partition("=")[0] for flag in own}
                line = [*common, *own, f"--method={spelled}", *rest]
                line += [f"{flag}={seed}" for flag in SEEDS if flag not in given]
                folder = out / re.sub(r"[^\w.-]+", "_", f"{setting}-{label}-{seed}")
                jobs.append(Job(folder, setting, name, label, tuple(line)))
    twice = [folder for folder, count in Counter(job.folder for job in jobs).items() if count > 1]
    if twice:
        raise UserError(
            f"two runs have the folder '{twice[0]}'; allowed: each seed, setting and method once, with"
            " names that differ in a letter or digit"
        )
    for job in jobs:
        job.config()
    return jobs


def _labelled(methods: Sequence[str]) -> list[tuple[list[str], str]]:
    """Returns each method with its flags, and its label: "mwnet (0.01)".

    Where other flags of the method have the same values, the label has their names: "mwnet (lr=0.01)".
    """
    parts = [words("a method in methods", method) for method in methods]
    short = [_label(name, [f.split("=")[-1] for f in more]) for name, *more in parts]
    count = Counter(short)
    return [
        (part, label if count[label] == 1 else _label(part[0], part[1:]))
        for part, label in zip(parts, short, strict=True)
    ]


def _label(name: str, more: Sequence[str]) -> str:
    return name + f" ({', '.join(text.lstrip('-') for text in more)})" * bool(more)


def keep_plan(out: pathlib.Path, jobs: Sequence[Job]) -> None:
    """Writes each run's flags; raises ``UserError`` where a run of the folder had others.

    The order of flags does not matter, nor whether a default is named.
    """
    path = out / PLAN
    known = read_json(path) if path.is_file() else {}
    for job in jobs:
        before = known.setdefault(job.folder.name, list(job.flags))
        if before != list(job.flags) and not _says_the_same(before, job):
            raise UserError(
                f"'{job.folder}' belongs to a sweep with other flags ({shlex.join(before)}); allowed:"
                " another --out"
            )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: json.dump(known, file, indent=1), mode="w")


def _says_the_same(flags: Sequence[str], job: Job) -> bool:
    """Tells whether flags give the configuration of a job."""
    try:
        return dataclasses.replace(job, flags=tuple(flags)).config() == job.config()
    except UserError:  # flags of another version
        return False


def method_names(text: str) -> list[str]:
    """Returns the methods that ``--methods`` names."""
    return [m for name in names_of(text) for m in (METHODS if name == "all" else [name])]


def settings_of(lines: Sequence[str]) -> dict[str, list[str]]:
    """Returns setting -> flags; the methods that a setting's flagfile names are left out.

    Raises:
        UserError: a line is not ``<name>: <flags>``, two have one name, or a flagfile cannot be read.
    """
    settings: dict[str, list[str]] = {}
    for line in lines or ["default:"]:
        name, colon, rest = line.partition(":")
        if not colon or not name.strip():
            raise UserError(f"setting is '{line}'; allowed: <name>: <flags>")
        if name.strip() in settings:
            raise UserError(f"setting is '{name.strip()}' twice; allowed: names that differ")
        settings[name.strip()] = own_methods(expand(words("setting", rest)))[1]
    return settings


def grid(lines: Sequence[str]) -> dict[str, list[str]]:
    """Returns setting -> flags for all combinations of the values in ``--set``."""
    axes = [
        [(f"{name}={v}", f"--{name}={v}") for v in values] for name, values in axes_of(lines).items()
    ]
    return {
        " ".join(name for name, _ in point): [flag for _, flag in point]
        for point in itertools.product(*axes)
    }


def own_methods(common: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates the methods that runs' flags name, the compared one first, from the other flags."""
    named, left = {}, []
    for flag in common:
        name, _, value = flag.lstrip("-").partition("=")
        if name in ("method", "compare"):
            named[name] = value
        else:
            left.append(flag)
    return [named[k] for k in ("compare", "method") if named.get(k, "auto") not in ("", "auto")], left
