"""``python -m tf_mwnet.benchmark.zoo``: publishes the weight nets of a transfer benchmark.

Reads the runs of ``python -m tf_mwnet.benchmark.transfer`` and copies the weight net of each data set
and bias to ``<out>/<data set>_<bias>/<next version>``, with a picture. The weight net is that of one
seed, good or bad. Its model card has the accuracies on its own and on the other data sets, next to
those of plain training and of a weight net learned there.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from tf_mwnet.cli import command_flags, console
from tf_mwnet.files import read_json

console.start()

import pandas as pd  # noqa: E402
from absl import flags  # noqa: E402

from tf_mwnet.benchmark import transfer  # noqa: E402
from tf_mwnet.errors import UserError, choose, integers  # noqa: E402
from tf_mwnet.export import serving  # noqa: E402
from tf_mwnet.networks.weight_function import CARD  # noqa: E402
from tf_mwnet.reports import compare  # noqa: E402
from tf_mwnet.runs.saved_run import RESULT  # noqa: E402

PICTURE = "weight_function.png"
SHOWN = (transfer.PLAIN, transfer.ANEW, *transfer.TRANSFERRED)
NOTE = "A short run of a small network, not a published result."


def transferred(results: Sequence[dict[str, Any]], name: str, bias: str) -> dict[str, Any]:
    """Collects the accuracies reached with a data set's weight nets, for the model card.

    Args:
        results: see `transfer.rows`.
        name: the data set.
        bias: its bias.

    Returns:
        "test_accuracy", of the last epoch, 0 to 1: data set -> kind of training -> "mean", "std" and
        number of "seeds". "home" is the data set itself.
    """
    frame = pd.DataFrame(results)
    frame = frame[frame.bias == bias]
    accuracy: dict[str, Any] = {}
    for (target, how, source), part in frame.groupby(["target", "how", "source"], sort=False):
        if how in transfer.TRANSFERRED and source != name:
            continue
        place = accuracy.setdefault("home" if target == name else target, {})
        deviation = float(part["last"].std()) if len(part) > 1 else None
        place[how] = {"mean": float(part["last"].mean()), "std": deviation, "seeds": len(part)}
    return {"test_accuracy": accuracy}


def put(
    out: pathlib.Path,
    runs: pathlib.Path,
    name: str,
    bias: str,
    seed: int,
    results: Sequence[dict[str, Any]],
) -> pathlib.Path:
    """Copies one weight net to the next version in ``out``; returns its folder.

    Args:
        out: folder of the weight nets.
        runs: folder of the transfer benchmark.
        name, bias, seed: of the run that learned it.
        results: see `transfer.rows`.

    Raises:
        UserError: the run has not ended.
    """
    run = transfer.folder_of(runs, name, bias, seed, "anew")
    if not (run / RESULT).is_file():
        raise UserError(f"'{run}' holds no finished run; allowed: the folder of a transfer benchmark")
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "1"
        shutil.copytree(transfer.net_of(runs, name, bias, seed), model)
        card = read_json(model / CARD) | {"note": NOTE, "transfer": transferred(results, name, bias)}
        (model / CARD).write_text(json.dumps(card, indent=2) + "\n", "utf-8")
        shutil.copyfile(run / "plots" / "weight_function_mwnet.png", model / PICTURE)
        return serving.push(model, out / f"{name}_{bias}", {"what": "weight_net"})


HEADER = ["weight net", "used on", "plain training", "learned anew", "this one", "as at its end"]


def markdown(out: pathlib.Path) -> str:
    """Formats the accuracies in the model cards of a folder's newest weight nets, in percent."""
    lines = [HEADER, ["---"] * len(HEADER)]
    for base in sorted(path for path in out.iterdir() if serving.versions(path)):
        versions = serving.versions(base)
        card = read_json(versions[max(versions)] / CARD)
        accuracies = card.get("transfer", {}).get("test_accuracy", {})
        for target, kinds in sorted(accuracies.items(), key=lambda item: item[0] != "home"):
            where = f"{card['data_set']}, at home" if target == "home" else target
            lines.append([f"`{base.name}`", where, *(_percent(kinds.get(kind)) for kind in SHOWN)])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _percent(accuracy: dict[str, Any] | None) -> str:
    if accuracy is None:
        return ""
    deviation = None if accuracy["std"] is None else 100 * accuracy["std"]
    return compare.with_deviation(100 * accuracy["mean"], deviation, 1)


def define_flags() -> flags.FlagValues:
    """Returns the command's flags, separate from absl's global ones."""
    values = command_flags.new_flags()
    flags.DEFINE_string(
        "runs", "runs/transfer", "folder of the transfer benchmark's runs", flag_values=values
    )
    flags.DEFINE_list(
        "sets", list(transfer.SETS), "data sets whose weight nets to publish", flag_values=values
    )
    flags.DEFINE_list(
        "biases", list(transfer.BIASES), "biases they were learned under", flag_values=values
    )
    flags.DEFINE_integer("seed", 0, "seed of the weight nets to publish", flag_values=values)
    flags.DEFINE_list(
        "seeds", ["0", "1", "2"], "seeds that the card's accuracies average", flag_values=values
    )
    flags.DEFINE_string("out", "saved_models", "folder of the weight nets", flag_values=values)
    return values


def run(values: flags.FlagValues) -> str:
    """Publishes the weight nets that the flags name; returns the table to print.

    Raises:
        UserError: the value of a flag is not allowed, or a run has not ended.
    """
    runs, out = pathlib.Path(values.runs), pathlib.Path(values.out)
    for name in values.sets:
        choose("data set", name, dict.fromkeys(transfer.SETS))
    for bias in values.biases:
        choose("bias", bias, transfer.BIASES)
    results = transfer.rows(runs, transfer.SETS, values.biases, integers("seeds", values.seeds))
    for name in values.sets:
        for bias in values.biases:
            put(out, runs, name, bias, values.seed, results)
    return f"\n{markdown(out)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
