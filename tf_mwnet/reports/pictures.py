"""The pictures of a run folder."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from tf_mwnet.callbacks import read_metrics
from tf_mwnet.data.bias import realised_matrix
from tf_mwnet.files import load_arrays
from tf_mwnet.methods import METHODS
from tf_mwnet.reports import plots
from tf_mwnet.types import Splits

CURVES = 6


def draw_run(folder: pathlib.Path, methods: Sequence[str], splits: Splits) -> list[pathlib.Path]:
    """Draws a run's pictures into ``folder/plots`` from the files of the run; returns their paths.

    Args:
        folder: a run folder whose methods are trained.
        methods: their names.
        splits: for which labels are wrong, where that is known.
    """
    target = folder / "plots"
    figures = {}
    histories = {name: read_metrics(folder / name / "metrics.csv") for name in methods}
    figures["accuracy"] = plots.accuracy(histories)
    if splits.transition is not None:
        realised = realised_matrix(splits.train.true_y, splits.train.y, splits.spec.num_classes)
        figures["noise_matrix"] = plots.matrices(splits.transition, realised, splits.spec.class_names)
    for name in methods:
        records = sorted((folder / name / "examples").glob("epoch_*.npz"))
        last = load_arrays(records[-1])
        seen = splits.seen_by(METHODS[name].trains_on)
        corrupted = seen.corrupted if splits.truth_known else None
        weights, losses = last["weight"].astype(float), last["loss"].astype(float)
        group = last["function_group"][seen.train.y] if "function_group" in last else None
        if np.nanmax(weights) - np.nanmin(weights) < 1e-3:  # plain training: all are 1
            continue
        title = f"Example weights, {name}, last epoch"
        figures[f"example_weights_{name}"] = plots.example_weights(weights, corrupted, title)
        curves = weight_curves(records)
        if curves:
            grid, by_epoch = curves
            figure = plots.weight_function(grid, by_epoch, losses, corrupted, group)
            figures[f"weight_function_{name}"] = figure
    paths = []
    for name, figure in figures.items():
        paths.append(target / f"{name}.png")
        plots.save(figure, paths[-1])
    return paths


def weight_curves(records: Sequence[pathlib.Path], count: int = CURVES):
    """``(losses, {epoch: weights})`` at up to ``count`` epochs from first to last.

    None where the method has no weight function.
    """
    picked = sorted({int(i) for i in np.linspace(0, len(records) - 1, count).round()})
    curves = {}
    for path in (records[i] for i in picked):
        arrays = load_arrays(path)
        if "function_loss" not in arrays:
            return None
        grid = arrays["function_loss"]
        curves[int(path.stem.split("_")[1])] = arrays["function_weight"]
    return grid, curves
