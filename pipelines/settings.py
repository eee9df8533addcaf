"""Flags of the pipeline commands, and the flags of a run that each component gets."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import inspect
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from tf_mwnet.cli import command_flags, flagfiles
from tf_mwnet.cli.flags import axes_of, parse
from tf_mwnet.config import ABOUT_THE_FOLDER, DEFAULTS, PATHS, Experiment
from tf_mwnet.data import BiasConfig
from tf_mwnet.errors import UserError, check_range, choose
from tf_mwnet.methods import METHODS, spelled

MADE = ("cache_dir", "features")  # folders that a component makes where they are not there
DATA = ("dataset", "data_dir", "label_key", "clean_label_key", "text_column", "resize", "resize_sides",
        "center_crop", "blank_images", "classes", "test_fraction", "meta_size", "meta_labels",
        "meta_balance", "drop_duplicates", "data_seed")  # fmt: skip
BIAS = tuple(f.name for f in dataclasses.fields(BiasConfig) if f.name != "early_stopping")
LIBRARIES = ("tensorflow", "keras", "numpy", "kfp", "apache-beam", "keras-tuner", "scikit-learn")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a pipeline, made by `read`.

    Attributes:
        run: the experiment.
        transfer: a second experiment, which uses the weight net of the first, frozen; None for none.
        home: absolute folder of artifacts, state and lineage; "" on a cluster.
        name: name of the pushed models.
        push_to: folder of the pushed models.
        baseline: method that a pushed model must beat.
        margin, min_recall, confidence: see `pipelines.work.evaluation.judge`.
        max_duplicates: see `pipelines.work.validation.anomalies`.
        max_latency_ms: see `tf_mwnet.export.serving.check`.
        search: settings to tune, as ``<flag>=<values>``; empty for no tuning.
        trials: number of trials of the search.
        runner, beam_options: see `pipelines.beam_jobs.options`.
        code: digest of code and library versions.
    """

    run: Experiment
    transfer: Experiment | None
    home: str
    name: str
    push_to: str
    baseline: str
    margin: float
    min_recall: float
    confidence: float
    max_duplicates: float
    max_latency_ms: float
    search: tuple[str, ...]
    trials: int
    runner: str
    beam_options: tuple[str, ...]
    code: str


def define_flags() -> flags.FlagValues:
    """Returns the pipeline's flags, without those of a run."""
    values = command_flags.new_flags()
    flags.DEFINE_string(
        "home", "runs/pipeline", "folder of artifacts, state and lineage", flag_values=values
    )
    flags.DEFINE_string(
        "name", "", "name of the pushed models; the data set's by default", flag_values=values
    )
    flags.DEFINE_string("push_to", "saved_models", "folder of pushed models", flag_values=values)
    flags.DEFINE_string("baseline", "erm", "method that a pushed model must beat", flag_values=values)
    flags.DEFINE_float(
        "margin",
        0.0,
        "lead in accuracy over the baseline that a pushed model needs, 0 to 1",
        flag_values=values,
    )
    flags.DEFINE_float("min_recall", 0.0, "least recall of each class, 0 to 1", flag_values=values)
    flags.DEFINE_float("confidence", 0.95, "level of the reported intervals", flag_values=values)
    flags.DEFINE_float(
        "max_duplicates",
        0.01,
        "share of the meta and test set that may also be in the training set",
        flag_values=values,
    )
    flags.DEFINE_float(
        "max_latency_ms", 0.0, "longest time of one answer; 0 for no limit", flag_values=values
    )
    flags.DEFINE_multi_string(
        "search", [], "<flag>=<comma-separated values> to tune", flag_values=values
    )
    flags.DEFINE_integer("trials", 10, "number of trials of the search", flag_values=values)
    flags.DEFINE_string(
        "transfer", "", "flagfile of a second run, with the weight net frozen", flag_values=values
    )
    flags.DEFINE_string(
        "runner", "DirectRunner", "Apache Beam's runner for reading data", flag_values=values
    )
    flags.DEFINE_multi_string("beam", [], "an option of the runner, as name=value", flag_values=values)
    return values


def read(values: flags.FlagValues, run_flags: Sequence[str], local: bool = True) -> Settings:
    """Reads the settings from a command line.

    Examples:
        >>> values = define_flags()
        >>> settings = read(values, values(["command", "--method=mwnet"], known_only=True)[1:])
        >>> settings.run.method, settings.baseline, settings.name
        ('mwnet', 'erm', 'digits')

    Args:
        values: the pipeline's flags.
        run_flags: the flags of the run.
        local: whether the pipeline runs on this machine, with absolute paths.

    Raises:
        UserError: a value is not allowed.
    """
    run = _experiment(run_flags)
    choose("baseline", values.baseline, METHODS)
    if values.baseline == run.method:
        raise UserError(f"baseline is '{values.baseline}', as method is; allowed: another method")
    for name in ("margin", "min_recall", "max_duplicates"):
        check_range(name, getattr(values, name), 0, 1)
    if not 0 < values.confidence < 1:
        raise UserError(f"confidence is {values.confidence:g}; allowed: between 0 and 1")
    check_range("trials", values.trials, 1)
    check_range("max_latency_ms", values.max_latency_ms, 0)
    if values.runner != values["runner"].default or values.beam:
        from pipelines import beam_jobs  # takes a second

        beam_jobs.options(values.runner, beam_options(values.beam))
    for name, texts in axes_of(values.search, "search").items():
        if name not in DEFAULTS or name in (*DATA, *BIAS, *ABOUT_THE_FOLDER, "weight_net", "compare"):
            raise UserError(f"search has '{name}'; allowed: flags of method, classifier and schedule")
        for text in texts:
            _experiment([*run_flags, f"--{name}={text}"])
    transfer = (
        _experiment(flagfiles.expand([f"--flagfile={values.transfer}"])) if values.transfer else None
    )
    name = values.name or pathlib.Path(run.dataset).stem
    if not name or name != pathlib.Path(name).name or name.startswith("."):
        raise UserError(f"name is '{name}'; allowed: a name without '/'")
    return Settings(
        run=run,
        transfer=transfer,
        home=str(pathlib.Path(values.home).absolute()) if local else "",
        name=name,
        push_to=str(pathlib.Path(values.push_to).absolute()) if local else values.push_to,
        baseline=values.baseline,
        margin=values.margin,
        min_recall=values.min_recall,
        confidence=values.confidence,
        max_duplicates=values.max_duplicates,
        max_latency_ms=values.max_latency_ms,
        search=tuple(values.search),
        trials=values.trials,
        runner=values.runner,
        beam_options=beam_options(values.beam),
        code=code(),
    )


def beam_options(given: Sequence[str]) -> tuple[str, ...]:
    """Converts options given as ``name=value`` to ``--name=value``."""
    return tuple(f"--{option.lstrip('-')}" for option in given)


def _experiment(given: Sequence[str]) -> Experiment:
    config = parse([*given, "--compare="])
    for name in ABOUT_THE_FOLDER:
        if getattr(config, name) != DEFAULTS[name]:
            raise UserError(f"{name} is set; allowed: home, for the whole pipeline")
    if config.dataset in ("folder", "npz", "records") and not config.data_dir:
        raise UserError(f"dataset is {config.dataset} without data_dir; allowed: with it")
    return config


def flags_of(config: Experiment, component: str) -> list[str]:
    """Returns the flags that matter to a component and differ from their defaults.

    A component is run again only if its own flags change.

    Args:
        config: the experiment.
        component: "example_gen", "bias_gen" or "trainer".
    """
    kind = METHODS.get(config.method)
    changed: dict[str, Any] = {}
    if config.meta_labels == "auto" and kind is not None and kind.meta_labels == "noisy":
        changed["meta_labels"] = "noisy"
    for name in PATHS:  # components work in the home folder
        value = getattr(config, name) or ""
        path = pathlib.Path(value)
        made = name in MADE and "://" not in value
        if path.name and (made or path.exists()):
            changed[name] = str(path.absolute())
    config = dataclasses.replace(config, **changed)
    if component == "example_gen":
        # ExampleGen only needs to know whether there is noise, which means that labels start clean.
        noise = config.noise if config.noise in ("auto", "none") else "uniform"
        config = dataclasses.replace(config, noise=noise)
        names: tuple[str, ...] = (*DATA, "noise")
    elif component == "bias_gen":
        names = BIAS
    else:
        names = tuple(k for k in DEFAULTS if k not in (*DATA, *BIAS, *ABOUT_THE_FOLDER, "compare"))
    values = {name: getattr(config, name) for name in names if name != "method_options"}
    if config.method in METHODS and "method" in values:
        values["method"] = spelled(config.method, config.options_of(config.method))
    return [flag(name, value) for name, value in values.items() if value != DEFAULTS[name]]


def flag(name: str, value: object) -> str:
    """Returns ``--name=value`` for a field of an `Experiment`."""
    return f"--{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"


def code() -> str:
    """Returns a digest of the packages' files and the libraries' versions."""
    digest = hashlib.sha256(sys.version.encode())
    root = pathlib.Path(__file__).parent
    package = pathlib.Path(inspect.getfile(sys.modules["tf_mwnet"])).parent
    for folder in (package, root):
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.j2")]):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    for name in LIBRARIES:
        digest.update(f"{name} {importlib.metadata.version(name)}".encode())
    return digest.hexdigest()[:16]


def stamp(config: Experiment) -> str:
    """Returns a digest of the names, sizes and times of the files that the data is read from.

    Raises:
        UserError: ``data_dir`` does not exist.
    """
    path = pathlib.Path(config.data_dir or "")
    if not config.data_dir:
        return ""
    if not path.exists():
        raise UserError(f"data_dir '{path}' is not there; allowed: a folder or a file")
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    if config.dataset not in ("folder", "npz", "records"):
        files = [f for f in files if config.dataset.split("/")[0].split(":")[0] in f.parts]
    rows = [
        (str(f.relative_to(path)), s.st_size, s.st_mtime_ns)
        for f in files
        if f.is_file()
        for s in [f.stat()]
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
