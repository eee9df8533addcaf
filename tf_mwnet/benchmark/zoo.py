"""``python -m tf_mwnet.benchmark.zoo``: weight nets of a transfer benchmark, with cards and pictures.

Takes the runs of ``python -m tf_mwnet.benchmark.transfer`` and puts the weight net of each data set and
bias (that of one seed, whatever it came to) into ``<out>/<data set>_<bias>/<next version>``. The model
card says what it gave at home and on the other data sets, beside plain training and a weight net learned
anew.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from tf_mwnet.cli import console

console.start()

import pandas as pd  # noqa: E402
from absl import flags  # noqa: E402

from tf_mwnet.benchmark import transfer  # noqa: E402
from tf_mwnet.config import read_json  # noqa: E402
from tf_mwnet.errors import UserError, choose, integers  # noqa: E402
from tf_mwnet.export import serving  # noqa: E402
from tf_mwnet.networks.weight_function import CARD  # noqa: E402
from tf_mwnet.reports import compare  # noqa: E402
from tf_mwnet.run_folder import RESULT  # noqa: E402

PICTURE = "weight_function.png"
SHOWN = (transfer.PLAIN, transfer.ANEW, *transfer.TRANSFERRED)
NOTE = "A short run of a small network, not a published result."


def transferred(results: Sequence[dict[str, Any]], name: str, bias: str) -> dict[str, Any]:
    """What a data set's weight nets gave, as the card says it.

    Args:
        results: see `transfer.rows`.
        name: the data set.
        bias: its bias.

    Returns:
        "test_accuracy", of the last epoch: data set -> kind of training -> mean, standard deviation and
        number of seeds; 0 to 1. "home" is the data set itself.
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
    """Puts one weight net into ``out``; returns its folder.

    Raises:
        UserError: its run has not ended.
    """
    run = transfer.folder_of(runs, name, bias, seed, "anew")
    if not (run / RESULT).is_file():
        raise UserError(f"'{run}' holds no finished run; allowed: the folder of a transfer benchmark")
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "1"
        shutil.copytree(transfer.net_of(runs, name, bias, seed), model)
        card = read_json(model / CARD) | {"note": NOTE, "transfer": transferred(results, name, bias)}
        (model / CARD).write_text(json.dumps(card, indent=2) + "\n")
        shutil.copyfile(run / "plots" / "weight_function_mwnet.png", model / PICTURE)
        return serving.push(model, out / f"{name}_{bias}", {"what": "weight_net"})


HEADER = ["weight net", "used on", "plain training", "learned anew", "this one", "as at its end"]


def markdown(out: pathlib.Path) -> str:
    """What the cards of the newest weight nets in a folder say: accuracies in percent, as a table."""
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
    values = console.new_flags()
    flags.DEFINE_string(
        "runs", "runs/transfer", "folder of the transfer benchmark's runs", flag_values=values
    )
    flags.DEFINE_list(
        "sets", list(transfer.SETS), "data sets whose weight nets are taken", flag_values=values
    )
    flags.DEFINE_list(
        "biases", list(transfer.BIASES), "biases they were learned under", flag_values=values
    )
    flags.DEFINE_integer("seed", 0, "whose weight net is taken", flag_values=values)
    flags.DEFINE_list(
        "seeds", ["0", "1", "2"], "what the card's accuracies are means of", flag_values=values
    )
    flags.DEFINE_string("out", "saved_models", "folder of the weight nets", flag_values=values)
    return values


def run(values: flags.FlagValues) -> str:
    """Does what the flags ask for; returns what the command prints."""
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
    """Runs the command line; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
