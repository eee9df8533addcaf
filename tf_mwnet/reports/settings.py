"""What a page says of a run's data and settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from tf_mwnet.config import DEFAULTS, Experiment, fields_about
from tf_mwnet.experiment.resolve import with_bias, with_sizes
from tf_mwnet.export.saved_models import without_folders
from tf_mwnet.figures.run_data import RunData
from tf_mwnet.methods import METHODS, spelled
from tf_mwnet.model.meta_scope import FAST, fast_steps
from tf_mwnet.reports import compare
from tf_mwnet.runs import saved_run

# Said apart, or no setting.
SAID = ("dataset", "noise", "noise_rate", "method_options", *fields_about("folder", "place", "machines"))
SET_BY_RUNS = ("network", "augment", "meta_lr", "steps_per_epoch", "meta_batch_size", "meta_labels")


def about(run: RunData) -> list[str]:
    """Returns lines about a run's data and settings, for people."""
    (row, *_) = compare.read_run(run.folder)
    sizes = [
        f"{len(run.labels[f'{name}_y']):,} {words}"
        for name, words in (("train", "training"), ("meta", "meta"), ("test", "test"))
        if f"{name}_y" in run.labels
    ]
    data = f"{row['dataset']}, {len(run.class_names)} classes, {', '.join(sizes)} examples"
    lines = [f"Data: {without_folders(data)}", f"Noise: {noise(run, row)}"]
    changed = changed_settings(run.config, automatic(run.config, row))
    return [*lines, f"Settings that are not at their defaults: {', '.join(changed) or 'none'}"]


def noise(run: RunData, row: Mapping[str, Any]) -> str:
    """Says which noise was added, and how many labels are wrong for it; or that nobody knows."""
    if row["noise"] == "none":
        return "unknown: the labels are as given" if compare.noise_is_unknown(row) else "none added"
    said = f"{without_folders(row['noise'])}, rate {row['noise_rate']:g}"
    wrong = 100 * float((run.labels["train_y"] != run.labels["train_true_y"]).mean())
    return f"{said}; {wrong:.1f} % of the training labels are wrong"


def automatic(config: Mapping[str, Any], row: Mapping[str, Any]) -> set[str]:
    """Names the fields whose values a run would choose by itself, given the others.

    Args:
        config: the run's, field -> value.
        row: of `compare.read_run`.
    """
    if row.get("shape") is None:  # of an early version, which has not noted it
        return set()
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    asked = Experiment(**fields)
    clean = not saved_run.is_own(asked.dataset) or bool(row["truth_known"])
    sets = [[name] for name in SET_BY_RUNS]
    if row["speed"] == "fast":
        sets.append([*FAST, *fast_steps(0)])
    chosen: set[str] = set()
    for names in sets:
        reset: dict[str, Any] = {name: DEFAULTS[name] for name in names}
        found = dataclasses.replace(asked, **reset)
        found = with_bias(found, asked.dataset == "digits", clean, asked.imbalance_factor)
        found = with_sizes(found, row["shape"], row["train_examples"], asked.meta_size)
        chosen |= {name for name in names if getattr(found, name) == fields[name]}
    return chosen


def changed_settings(config: Mapping[str, Any], chosen: Collection[str] = ()) -> list[str]:
    """Lists ``name=value`` of the fields of a configuration that are not at their defaults.

    Args:
        config: field -> value, as in ``config.json``.
        chosen: fields that the run has chosen by itself, which are left out.
    """
    changed = []
    for name, value in config.items():
        if name in ("method", "compare") and value in METHODS:
            value = spelled(value, config.get("method_options", {}).get(value, {}))
        default = DEFAULTS.get(name)
        default = list(default) if isinstance(default, tuple) else default
        if value != default and name not in SAID and name not in chosen:
            shown = ",".join(map(str, value)) if isinstance(value, list) else without_folders(value)
            changed.append(f"{name}={shown}")
    return changed
