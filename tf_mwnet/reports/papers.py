"""The papers' published numbers, and the command that would reproduce each.

``paper_results.csv`` has the numbers of MW-Net tables 1-6, RMNW-Net 1-3, GDW 7-8 and
L2RW 1-2; of CMW-Net table 2 and of LDAM table 2 those of the method itself; and those that come with the
authors' code ("code") of ELR and logit adjustment.
"""

from __future__ import annotations

import csv
import dataclasses
import pathlib
import shlex
from collections.abc import Mapping, Sequence

from tf_mwnet.methods import with_own_options

NUMBERS = pathlib.Path(__file__).with_name("paper_results.csv")
PAPERS = {
    "mwnet": "MW-Net",
    "rmnw": "RMNW-Net",
    "gdw": "GDW",
    "l2rw": "L2RW",
    "cmwnet": "CMW-Net",
    "elr": "ELR",
    "logit_adjustment": "Logit adjustment",
    "ldam": "LDAM",
}
# Whose flagfiles begin with the name of the method that they train; the other ones train mwnet.
NAMED_AFTER = ("l2rw", "rmnw", "gdw", "cmwnet_sl", "elr", "logit_adjustment", "ldam")

# What the papers call a method, and its name here with its flags.
NAMES = {
    "basemodel": "erm",
    "baseline": "erm",
    "cross entropy": "erm",
    "focal loss": "focal",
    "class-balanced": "class_balanced",
    "fine-tuning": "erm --then_fine_tune=5000",
    "reed-hard": "bootstrap_hard",
    "reed hard": "bootstrap_hard",
    "reed soft": "bootstrap_soft",
    "bootstrapping": "bootstrap_hard",
    "s-model": "s_model",
    "s-adaptation": "s_model --s_model_init=confusion",
    "self-paced": "spl",
    "co-teaching": "co_teaching",
    "d2l": "d2l",
    "mentornet": "mentornet_dd",
    "l2rw": "l2rw",
    "glc": "glc",
    "insw": "insw",
    "gdw": "gdw",
    "mw-net": "mwnet",
    "mnw-net": "mnw",
    "rmnw-net": "rmnw",
    "joint optimization": "joint_optimization",
    "lccn": "lccn",
    "forward": "forward",
    "mlnt": "mlnt",
    "random": "random",
    "weighted": "weighted_oracle",
    "cmw-net-sl": "cmwnet_sl",
    "elr": "elr",
    "logit adjustment": "logit_adjustment",
    "ldam-drw": "ldam",
}
# L2RW's table has MentorNet among the methods without clean data, and 2,000 steps on clean data alone.
OF_L2RW = {"mentornet": "mentornet", "clean only": "meta_only --epochs=4 --lr_drops="}
# What may follow a name: flags, and the ending of the result's row.
ENDINGS = {
    "CONF": (["--s_model_init=confusion"], ""),
    "ES": (["--epochs=120", "--lr_drops=80,100"], ""),  # early stopping, L2RW
    "FT": (["--then_fine_tune=5000"], "+FT"),
    "LA": ([], "+LA"),  # which its flagfiles ask for
}
NEEDS = {
    "clothing1m": "the images are given out on request",
    "places_lt": "the images are in no TensorFlow data set",
}
COPIED = "measured by its authors with their own settings; the command takes this table's"


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a paper's numbers are read, and so ours beside them.

    Attributes:
        measure: of a run's result: "last", "mean_last_5", "best", "auc_weight" or "auc_weight_best".
        interval: whether ± is a 95 % confidence interval of the mean instead of a standard deviation.
    """

    measure: str
    interval: bool = False

    @property
    def words(self) -> str:
        """The measure in words, for tables."""
        shown = {
            "last": "last epoch", "mean_last_5": "mean of last 5", "best": "best epoch",
            "auc_weight": "AUC, last epoch", "auc_weight_best": "AUC, best epoch",
        }  # fmt: skip
        return shown[self.measure] + (", ± 95 % interval" if self.interval else "")


# GDW's code prints the mean of its last five epochs, RMNW-Net's the best epoch; RMNW-Net's table 3 has
# the best AUC. L2RW's ± are 95 % confidence intervals. ELR chooses the epoch on held-out examples,
# LDAM's code prints the best one. MW-Net's and CMW-Net's papers do not say.
READINGS = {
    "mwnet": Reading("last"),
    "rmnw": Reading("best"),
    "gdw": Reading("mean_last_5"),
    "l2rw": Reading("last", interval=True),
    "cmwnet": Reading("last"),
    "elr": Reading("best"),
    "logit_adjustment": Reading("last"),
    "ldam": Reading("best"),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A published number and how to get ours.

    Attributes:
        source, table, dataset, bias, level, network, method, metric: as in ``paper_results.csv``.
        value: as printed: in percent, or an AUC from 0 to 1.
        std: its deviation as printed, or "".
        arguments: of ``python -m tf_mwnet.main``.
        row: the name under which a run's result has it.
        note: what the command needs or departs from; "" for nothing.
    """

    source: str
    table: str
    dataset: str
    bias: str
    level: str
    network: str
    method: str
    metric: str
    value: str
    std: str
    arguments: tuple[str, ...]
    row: str
    note: str

    @property
    def reading(self) -> Reading:
        if self.metric == "test_accuracy":
            return READINGS[self.source]
        return Reading("auc_weight_best" if self.source == "rmnw" else "auc_weight")

    @property
    def command(self) -> str:
        return " ".join(["python -m tf_mwnet.main", *(shlex.quote(a) for a in self.arguments)])

    @property
    def published(self) -> str:
        return self.value + (f" ± {self.std}" if self.std else "")


def entries() -> list[Entry]:
    """Returns all published numbers, in the papers' order."""
    with NUMBERS.open(newline="", encoding="utf-8") as file:
        return [_entry(row) for row in csv.DictReader(file)]


def _entry(number: Mapping[str, str]) -> Entry:
    column = column_file(number)
    name, *endings = number["method"].replace("*", "").split(" +")
    name, _, layers = name.lower().partition(" 1-")  # of a weight net, 1-100-1
    transferred = name.startswith("transferred")
    known = NAMES | (OF_L2RW if number["source"] == "l2rw" else {})
    method, *more = known[name.removeprefix("transferred ")].split()
    row = method + "+FT" * bool(more and "then_fine_tune" in more[0])
    for ending in endings:
        own, suffix = ENDINGS[ending]
        more, row = [*more, *own], row + suffix
    if layers:
        more.append("--hidden=" + layers.removesuffix("-1").replace("-", ","))
    if number["method"].endswith("*") and column.startswith("rmnw_"):
        more.append("--meta_labels=clean")
    notes = [NEEDS[number["dataset"]]] if number["dataset"] in NEEDS else []
    if number["dataset"] == "clothing1m" and method not in ("mwnet", "erm"):
        notes.append(COPIED)
    if transferred:
        of = column.replace("cifar100", "cifar10")
        more += ["--meta_size=0", f"--weight_net=runs/{of}/mwnet/saved_models/weight_net"]
        notes.append(f"after configs/{of}.cfg")
    if number["dataset"] in NEEDS:
        more.append("--data_dir=<folder>")
    arguments = (f"--flagfile=configs/{column}.cfg", *_difference(column, method, row, more))
    fields = {k.name: number[k.name] for k in dataclasses.fields(Entry) if k.name in number}
    return Entry(**fields, arguments=arguments, row=row, note="; ".join(notes))


def _difference(column: str, method: str, row: str, more: Sequence[str]) -> list[str]:
    """Returns the flags after the flagfile, which by itself trains its own method and plainly."""
    own = next((name for name in NAMED_AFTER if column.startswith(f"{name}_")), "mwnet")
    data = [flag for flag in more if flag.startswith("--data_dir")]
    if method in (own, "erm") and list(more) == data:
        return data
    words = [column, row.lower().replace("+", "-")]
    for flag in more:
        name, _, value = flag.partition("=")
        if name == "--weight_net":
            words.append("transferred")
        elif name in ("--hidden", "--meta_labels", "--s_model_init"):
            words.append(value.replace(",", "-"))
        elif name == "--epochs":
            words.append(f"{value}-epochs")
    spelled, rest = with_own_options(method, more)
    return [f"--method={spelled}", "--compare=", *rest, f"--run_dir=runs/{'-'.join(words)}"]


def column_file(number: Mapping[str, str]) -> str:
    """Names the flagfile (without its ending) with a published number's data and schedule."""
    data, bias, level = number["dataset"], number["bias"], number["level"]
    if data == "clothing1m":
        return "clothing1m"
    if data == "places_lt":
        return "gdw_places_lt"
    if bias == "uniform+long_tail":
        rate, factor = level.split("+")
        return f"gdw_{data}_uniform_{round(100 * float(rate))}_longtail_{factor}"
    if bias == "long_tail":
        after = f"{number['source']}_" if number["source"] in NAMED_AFTER else ""
        return f"{after}{data}_longtail_{level}"
    rate = f"{round(100 * float(level)):02d}"
    if number["source"] in ("l2rw", "elr"):
        return f"{number['source']}_{data}_{bias}_{rate}"
    if number["method"] == "CMW-Net-SL":
        return f"cmwnet_sl_{data}_{bias}_{rate}"
    own = number["method"] in ("MNW-Net", "RMNW-Net", "MW-Net*") or bias == "flip"
    if own:
        return (
            f"rmnw_{data}_uniform_00"
            if rate == "00" and bias == "flip"
            else f"rmnw_{data}_{bias}_{rate}"
        )
    if bias == "flip2":
        return f"{data}_flip" if rate == "40" else f"{data}_flip_{rate}"
    return f"{data}_{bias}_{rate}"
