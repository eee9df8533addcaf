"""The pictures of a run, from its files."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from tf_mwnet.figures import alts, curves, matrices, plots
from tf_mwnet.figures.run_data import RunData
from tf_mwnet.figures.tables import ACCURACY, AGREEMENT, SCORES
from tf_mwnet.files import load_arrays
from tf_mwnet.runs import saved_run

CURVES = 6
# Kinds of which several are on one scale.
COMPARED = ("accuracy", "losses", "auc", "weight_change", "weight_function", "example_weights")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure and what it says.

    Attributes:
        kind: what it shows, the same for all methods and runs.
        title: what it shows, and where such a picture was published.
        figure: the figure.
        alt: what is seen, in words.
        method: whose it is; "" for one of all methods.
    """

    kind: str
    title: str
    figure: Figure
    alt: str
    method: str = ""

    @property
    def name(self) -> str:
        """The name of its file, without an ending."""
        return f"{self.kind}_{self.method}" if self.method else self.kind

    @property
    def caption(self) -> str:
        """What it shows, and of which method."""
        return f"{self.method}: {self.title}" if self.method else self.title


def of_run(run: RunData) -> Iterator[Picture]:
    """Draws the pictures that a run's files allow, one by one; warns of one that fails and goes on."""
    parts: list[Callable[[RunData], Iterator[Picture]]] = [_of_training, _of_noise, _of_changes]
    for method in run.methods:
        parts += [functools.partial(f, method=method) for f in (_of_weights, _of_confusion)]
    for part in parts:
        with plots.not_fatal(f"a picture of {run.folder}"):
            yield from list(part(run))


def share_limits(drawn: Iterable[Picture]) -> None:
    """Gives pictures of one kind the same axes, see `plots.share_limits`; matrices stay as they are."""
    kinds: dict[str, list[Figure]] = {}
    for picture in drawn:
        if picture.kind in COMPARED:
            kinds.setdefault(picture.kind, []).append(picture.figure)
    for figures in kinds.values():
        plots.share_limits(figures)


def _of_training(run: RunData) -> Iterator[Picture]:
    what = ACCURACY if run.test_checked else AGREEMENT
    caption = f"{what.capitalize()}, and agreement with the training labels (MW-Net figure 7)"
    names = {"test_accuracy": "test", "train_accuracy": "training"}
    alt = alts.curves(what.capitalize(), run.histories, names, 100, "{:.1f} %")
    yield Picture("accuracy", caption, plots.accuracy(run.histories, run.test_checked), alt)
    caption = "Training loss and meta loss (MW-Net figures 11-13)"
    alt = alts.curves("Loss", run.histories, {"loss": "training", "meta_loss": "meta set"})
    meta_losses = {method: run.meta_loss(method) for method in run.methods}
    yield Picture("losses", caption, curves.losses(run.histories, meta_losses), alt)
    if (figure := curves.aucs(run.histories)) is not None:
        caption = "AUC of wrong labels, epoch by epoch (RMNW-Net table 3)"
        names = {f"auc_{score}": f"by {shown}" for score, shown in SCORES.items()}
        yield Picture("auc", caption, figure, alts.curves("AUC of wrong labels", run.histories, names))


def _of_noise(run: RunData) -> Iterator[Picture]:
    if noise := run.matrices():
        figure = matrices.draw(
            {name.capitalize(): matrix for name, matrix in noise.items()},
            run.class_names,
            "given label",
            "true label",
        )
        said = [alts.matrix(name, m, run.class_names, "true", "given") for name, m in noise.items()]
        caption = "Noise transition matrices (MW-Net figure 3)"
        yield Picture("noise_matrix", caption, figure, f"{caption}. {' '.join(said)}")


def _of_changes(run: RunData) -> Iterator[Picture]:
    if changing := dict(_changing_weights(run)):
        caption = "Change of weights between adjacent epochs (MW-Net figure 6)"
        figure = curves.weight_change(changing)
        yield Picture("weight_change", caption, figure, alts.changes(changing))


def _of_confusion(run: RunData, method: str) -> Iterator[Picture]:
    predicted = run.predictions(method)
    if predicted is not None:
        counts = matrices.confusion(run.labels["test_true_y"], predicted, len(run.class_names))
        label = "true class" if run.test_checked else "given label"
        title = f"Test predictions, {method}, last epoch"
        figure = matrices.draw({title: counts}, run.class_names, "predicted class", label)
        caption = "Confusion matrix of the test set (MW-Net figures 8-10)"
        alt = alts.matrix(title, counts, run.class_names, label.split()[0], "predicted")
        yield Picture("confusion", caption, figure, alt, method)


def _are_all_one(weights: np.ndarray) -> bool:
    """Tells plain training from weighting, by the weights of an epoch, ``[N]``."""
    return bool(np.nanmax(weights) - np.nanmin(weights) < 1e-3)


def _changing_weights(run: RunData) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray | None]]]:
    """Reads the weights ``[E, N]`` of each method that weights, and which labels are wrong."""
    for method in run.methods:
        weights = [load_arrays(path, ("weight",))["weight"] for path in run.records(method)]
        if len(weights) > 2 and not _are_all_one(weights[-1].astype(float)):
            yield method, (np.stack(weights), run.corrupted(method))


def _of_weights(run: RunData, method: str) -> Iterator[Picture]:
    records = run.records(method)
    if not records:
        return
    last = load_arrays(records[-1])
    corrupted, labels = run.corrupted(method), run.trained_on(method, "y")
    weights, losses = last["weight"].astype(float), last["loss"].astype(float)
    if _are_all_one(weights):
        return
    if curves_by_epoch := weight_curves(records):
        grid, by_epoch = curves_by_epoch
        group = last["function_group"][labels] if "function_group" in last else None
        figure = plots.weight_function(grid, by_epoch, losses, corrupted, group)
        caption = "Weight against loss, and the losses behind it (MW-Net figure 1 d-f)"
        alt = alts.function(method, grid, by_epoch[max(by_epoch)])
        yield Picture("weight_function", caption, figure, alt, method)
    title = f"Example weights, {method}, last epoch"
    figure = plots.example_weights(weights, corrupted, title)
    caption = "Example weights (MW-Net figure 5, L2RW figure 3)"
    yield Picture("example_weights", caption, figure, alts.weights(title, weights, corrupted), method)
    if "class_change" in last and run.truth_known:
        shares = curves.increased_shares(
            last["class_change"].astype(float), labels, run.trained_on(method, "true_y")
        )
        figure = curves.class_weights(shares, run.class_names, method)
        caption = "Share of class-level weights that grew (GDW table 6)"
        known = {role: v for role, v in shares.items() if np.isfinite(v).any()}
        said = [f"{role} {100 * np.nanmean(v):.0f} %" for role, v in known.items()]
        alt = f"{caption}, mean over classes: {', '.join(said)}."
        yield Picture("class_weights", caption, figure, alt, method)


def draw_run(run: RunData) -> dict[str, bytes]:
    """Draws a run's pictures into ``plots`` in its folder; returns their PNG files by name."""
    folder = run.folder / "plots"
    drawn = {}
    for picture in of_run(run):
        path = folder / f"{picture.name}.png"
        with plots.not_fatal(f"'{path}'"):
            drawn[picture.name] = plots.save(picture.figure, path)
    return drawn


def weight_curves(
    records: Sequence[pathlib.Path], count: int = CURVES
) -> tuple[np.ndarray, dict[int, np.ndarray]] | None:
    """Reads ``(losses, {epoch: weights})`` at up to ``count`` epochs from first to last.

    Returns None if the method has no weight function.
    """
    picked = sorted({int(i) for i in np.linspace(0, len(records) - 1, count).round()})
    paths = [records[i] for i in picked]
    if (functions := saved_run.weight_functions(paths)) is None:
        return None
    epochs = (int(path.stem.split("_")[1]) for path in paths)
    return functions[0], dict(zip(epochs, functions[1], strict=True))
