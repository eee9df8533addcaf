"""What the papers show apart from the numbers in ``paper_results.csv``, and the command for each."""

from __future__ import annotations

import dataclasses

TRAIN = "python -m tf_mwnet.main --flagfile=configs/"
SWEEP = "python -m tf_mwnet.sweep --flagfile=configs/sweeps/"


@dataclasses.dataclass(frozen=True)
class Shown:
    """A figure, or a table without numbers here.

    Attributes:
        source: of the paper, as in `papers.PAPERS`.
        name: "figure 1".
        what: what it shows.
        command: makes the data of it; "" where none can.
        where: file below the run folder that has the picture, or the reason why there is no command.
    """

    source: str
    name: str
    what: str
    command: str
    where: str


DRAWING = "a drawing of the method"
OTHER_COLUMNS = "plots/{}; for the other columns their flagfiles"
NO_COPY = "no copy of the figure was at hand"
NO_NUMBERS = "no copy of the numbers was at hand; settings as in the flagfile"

SHOWN = (
    Shown("mwnet", "figure 1 a-c", "weight functions of other methods", "", "formulas: focal loss, spl"),
    Shown("mwnet", "figure 1 d", "weight function, long tail", f"{TRAIN}cifar10_longtail_100.cfg",
          "plots/weight_function_mwnet.png"),
    Shown("mwnet", "figure 1 e", "weight function, uniform noise", f"{TRAIN}cifar10_uniform_40.cfg",
          "plots/weight_function_mwnet.png"),
    Shown("mwnet", "figure 1 f", "weight function, real noise",
          f"{TRAIN}clothing1m.cfg --data_dir=<folder>", "plots/weight_function_mwnet.png"),
    Shown("mwnet", "figure 2", "flow of the algorithm", "", DRAWING),
    Shown("mwnet", "figure 3", "noise transition matrices", f"{TRAIN}cifar10_flip.cfg",
          "plots/noise_matrix.png"),
    Shown("mwnet", "figure 4", "test accuracy with WRN-28-10 on flip noise", f"{TRAIN}mwnet_figure4.cfg",
          "plots/accuracy.png"),
    Shown("mwnet", "figure 5", "example weights of right and wrong labels",
          f"{TRAIN}cifar10_uniform_40.cfg", "plots/example_weights_mwnet.png"),
    Shown("mwnet", "figure 6", "change of weights between epochs", f"{TRAIN}mwnet_figure6.cfg",
          "plots/weight_change.png"),
    Shown("mwnet", "figure 7", "accuracy over epochs", f"{TRAIN}cifar10_flip.cfg",
          OTHER_COLUMNS.format("accuracy.png")),
    Shown("mwnet", "figures 8-10", "confusion matrices", f"{TRAIN}cifar10_flip.cfg",
          OTHER_COLUMNS.format("confusion_mwnet.png, confusion_erm.png")),
    Shown("mwnet", "figures 11-13", "training and meta loss over epochs", f"{TRAIN}cifar10_flip.cfg",
          OTHER_COLUMNS.format("losses.png")),
    Shown("rmnw", "figure 1", "not checked", "", NO_COPY),
    Shown("rmnw", "figure 2", "accuracy against the noise rate", f"{SWEEP}rmnw_figure2.cfg",
          "results.png"),
    Shown("rmnw", "figure 3", "accuracy against flip2 noise, WRN-28-10", f"{SWEEP}rmnw_figure3.cfg",
          "results.png"),
    Shown("gdw", "figures", "not checked", "", NO_COPY),
    Shown("gdw", "tables 1-5", "CIFAR, noise and imbalance", f"{TRAIN}gdw_cifar10_uniform_40.cfg",
          NO_NUMBERS),
    Shown("gdw", "table 6", "class-level weights that grew", f"{TRAIN}gdw_cifar10_uniform_40.cfg",
          "plots/class_weights_gdw.png"),
    Shown("l2rw", "figure 1", "graph of the computation", "", DRAWING),
    Shown("l2rw", "figure 2", "MNIST, 4 against 9: error against imbalance", f"{SWEEP}l2rw_figure2.cfg",
          "results.png"),
    Shown("l2rw", "figure 3", "weights of examples, and of unseen ones", f"{TRAIN}l2rw_figure3.cfg",
          "then python -m tf_mwnet.benchmark.unseen"),
    Shown("l2rw", "figure 4", "error against the number of clean images", f"{SWEEP}l2rw_figure4.cfg",
          "results.png"),
    Shown("l2rw", "figure 5", "error against the noise rate", f"{SWEEP}l2rw_figure5.cfg", "results.png"),
    Shown("cmwnet", "all", "Shu et al., TPAMI 2023",
          f"{TRAIN}cifar10_longtail_100.cfg --method=cmwnet --compare=", NO_NUMBERS),
)  # fmt: skip
