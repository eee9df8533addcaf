"""Searches over a few settings with KerasTuner, judged on trusted examples that are not trained on."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
import pandas as pd
from absl import logging

from tf_mwnet.config import Experiment
from tf_mwnet.data.bias import keep_counts
from tf_mwnet.errors import UserError
from tf_mwnet.experiment.runner import run
from tf_mwnet.types import Source


def split_meta_set(source: Source, seed: int = 0) -> Source:
    """Splits the meta set of a biased source in two, class by class.

    Args:
        source: biased data with a meta set.
        seed: seed of the split.

    Returns:
        The source with one half as meta set, and the other half as test set.

    Raises:
        UserError: there is no meta set, or it has fewer than two examples of a class.
    """
    if source.meta is None:
        raise UserError(f"{source.name} has no meta set to judge by; allowed: data with one")
    counts = np.bincount(source.meta.y, minlength=len(source.class_names))
    if counts.min() < 2:
        name = source.class_names[int(counts.argmin())]
        raise UserError(
            f"the meta set has {counts.min()} examples of class {name}; allowed: at least 2 to tune by"
        )
    rows = keep_counts(source.meta.y, counts // 2, np.random.default_rng(seed))
    learned = np.zeros(len(source.meta), bool)
    learned[rows] = True
    return dataclasses.replace(source, meta=source.meta.take(learned), test=source.meta.take(~learned))


class Tuner(keras_tuner.Tuner):
    """Runs the trials of a search; each trains from scratch in a separate folder.

    Args:
        experiment: the settings that all trials share.
        source: the data; its test set judges the trials, see `split_meta_set`.
        search: field of `Experiment` -> values to try.
        **kwargs: arguments of `keras_tuner.Tuner`.
    """

    def __init__(
        self,
        experiment: Experiment,
        source: Source,
        search: Mapping[str, Sequence[Any]],
        **kwargs: Any,
    ):
        self.experiment, self.source, self.search_space = experiment, source, search
        super().__init__(**kwargs)

    def run_trial(
        self, trial: keras_tuner.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        settings = {
            name: values[trial.hyperparameters.Choice(name, list(range(len(values))))]
            for name, values in self.search_space.items()
        }
        folder = pathlib.Path(self.project_dir) / f"run_{trial.trial_id}"
        config = dataclasses.replace(
            self.experiment, **settings, run_dir=str(folder), compare="", auto_resume=True
        )
        result = run(config, self.source)
        summary = result.methods[config.method if config.method != "auto" else result.config.method]
        accuracy = summary.get("mean_last_5", summary["last"])
        logging.info("trial %s: %s: %.1f %%", trial.trial_id, settings, 100 * accuracy)
        shutil.rmtree(folder)
        keras.backend.clear_session()
        return {"accuracy": accuracy}


def tune(
    experiment: Experiment,
    source: Source,
    search: Mapping[str, Sequence[Any]],
    folder: pathlib.Path,
    trials: int = 10,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Tries different settings at random, or continues an interrupted search.

    Each trial learns from one half of the meta set and is judged by its accuracy on the other half (mean
    of the last five epochs, the last of fewer). The test set is never used.

    Examples:
        ``tune(experiment, source, {"lr": [0.1, 0.03], "meta_lr": [1e-3, 1e-2]}, folder, trials=3)``

    Args:
        experiment: the settings that all trials share.
        source: biased data in memory with a meta set.
        search: field of `Experiment` -> values to try.
        folder: folder of the search's state.
        trials: highest number of trials; there are no more than combinations.

    Returns:
        The best settings, and a table with a row per trial: its settings and ``accuracy``.

    Raises:
        UserError: a value is not allowed, or the meta set is too small.
    """
    if not search:
        raise UserError("search is empty; allowed: name=value,value for one setting or more")
    for name, values in search.items():
        for value in values:
            dataclasses.replace(experiment, **{name: value})
    count = int(np.prod([len(v) for v in search.values()]))
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("accuracy", "max"),
        max_trials=min(trials, count),
        seed=experiment.seed,
        max_consecutive_failed_trials=1,
    )
    tuner = Tuner(
        experiment, split_meta_set(source, experiment.data_seed), search, oracle=oracle,
        directory=str(folder.parent), project_name=folder.name, overwrite=False,
    )  # fmt: skip
    tuner.search()
    rows = []
    for trial in tuner.oracle.get_best_trials(trials):
        settings = {k: search[k][i] for k, i in trial.hyperparameters.values.items()}
        rows.append(settings | {"accuracy": trial.score})
    best = {k: v for k, v in rows[0].items() if k != "accuracy"}
    return best, pd.DataFrame(rows)
