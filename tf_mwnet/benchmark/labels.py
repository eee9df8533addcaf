"""``python -m tf_mwnet.benchmark.labels``: how well wrong labels are found, compared with cleanlab.

For each noise and seed, both get the same training set with the same wrong labels. Ours is an audit of
one training by each of --methods, on a schedule --longer times as long. Cleanlab's scores come from the
out-of-sample probabilities of the same network after --folds plain trainings; with --backbone or
--features there are also those of its Datalab on these features alone, by their nearest neighbours. The
flags of ``python -m tf_mwnet.main`` set data, network and schedule. Needs cleanlab: pip install
'tf-mwnet[benchmark]'.
"""

from __future__ import annotations

import csv
import dataclasses
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from tf_mwnet.cli import console

console.start()

import numpy as np  # noqa: E402
from absl import flags, logging  # noqa: E402
from scipy.special import softmax  # noqa: E402
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score  # noqa: E402
from sklearn.model_selection import StratifiedKFold  # noqa: E402

from tf_mwnet import methods  # noqa: E402
from tf_mwnet.audit.defaults import METHOD  # noqa: E402
from tf_mwnet.audit.examine import examine  # noqa: E402
from tf_mwnet.audit.neighbours import directions  # noqa: E402
from tf_mwnet.cli import outputs  # noqa: E402
from tf_mwnet.cli.flags import define_flags as run_flags  # noqa: E402
from tf_mwnet.cli.flags import fields_of  # noqa: E402
from tf_mwnet.config import Experiment  # noqa: E402
from tf_mwnet.data.streams import evaluation_stream  # noqa: E402
from tf_mwnet.errors import UserError, check_range  # noqa: E402
from tf_mwnet.experiment import resolve, runner  # noqa: E402
from tf_mwnet.figures import tables  # noqa: E402
from tf_mwnet.files import write_csv  # noqa: E402
from tf_mwnet.model import classifier_head  # noqa: E402
from tf_mwnet.types import LabelledSet, Source, Splits  # noqa: E402

NOISES = "uniform:0.2,uniform:0.4,uniform:0.6,flip2:0.2,flip2:0.4,flip:0.3"
ALONE = {"n_jobs": 1}  # a process that has used TensorFlow may hang when it forks
COLUMNS = ["data", "noise", "seed", "finder", "auc", "average_precision", "precision", "wrong",
           "estimated", "low", "high", "f1", "seconds"]  # fmt: skip


def scores(wrong: np.ndarray, quality: np.ndarray, issues: np.ndarray | None = None) -> dict[str, float]:
    """Measures how well a label quality finds wrong labels.

    Examples:
        >>> scores(np.array([True, False, False, True]), np.array([0.1, 0.8, 0.9, 0.2]))["auc"]
        1.0

    Args:
        wrong: which labels are wrong, bool ``[N]``.
        quality: high for right labels, ``[N]``.
        issues: which labels are flagged, bool ``[N]``.

    Returns:
        "auc"; "average_precision" of the wrong labels; "precision" among the E labels of lowest quality;
        and "wrong", which is E, the number of wrong labels; with issues also their "f1".
    """
    flagged = {} if issues is None else {"f1": float(f1_score(wrong, issues))}
    worst = np.argsort(quality, kind="stable")[: wrong.sum()]
    return {
        "auc": float(roc_auc_score(wrong, -quality)),
        "average_precision": float(average_precision_score(wrong, -quality)),
        "precision": float(wrong[worst].mean()),
        "wrong": int(wrong.sum()),
    } | flagged


def by_audit(config: Experiment, source: Source) -> dict[str, Any]:
    """Trains once and audits the training.

    Args:
        config: the run; its method is audited.
        source: the data.

    Returns:
        See `scores`; "estimated", the estimated number of wrong labels, with "low" and "high"; and
        "seconds" in total.
    """
    result = runner.run(config, source)
    start = time.perf_counter()
    audit = examine(result)
    seconds = result.methods[config.method]["seconds"] + time.perf_counter() - start
    table = audit.table[audit.table.set == "train"].dropna(subset="label_quality")
    wrong, quality = ~table.is_correct.to_numpy(), table.label_quality.to_numpy()
    figures = scores(wrong, quality, table.is_label_issue.to_numpy())
    low, high = audit.estimate.interval
    count = {"estimated": audit.estimate.num_issues, "low": low, "high": high}
    return figures | count | {"seconds": seconds}


def by_cleanlab(config: Experiment, splits: Splits, folds: int) -> dict[str, Any]:
    """Finds wrong labels with cleanlab.

    Args:
        config: sets network and schedule.
        splits: contains the training set to judge.
        folds: number of trainings; each holds out a part of the set and predicts it.

    Returns:
        See `by_audit`.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    train, seconds = splits.train, 0.0
    probabilities = np.zeros((len(train), splits.spec.num_classes))
    cut = StratifiedKFold(folds, shuffle=True, random_state=config.seed)
    plain = dataclasses.replace(config, method="erm", compare="", noise="none", classes=())
    plain = dataclasses.replace(plain, class_counts=(), imbalance_factor=1.0, meta_size=0)
    if train.raw is not None:  # the folds have features already
        network = "linear" if config.network == "auto" else config.network
        plain = dataclasses.replace(plain, backbone="", features="", network=network)
    for kept, out in cut.split(train.y, train.y):
        source = Source(
            name="fold",
            train=_as_given(train.take(kept)),
            test=_as_given(train.take(out)),
            meta=None,
            class_names=splits.spec.class_names,
        )
        shutil.rmtree(config.run_dir, ignore_errors=True)
        result = runner.run(plain, source)
        seconds += result.methods["erm"]["seconds"]
        stream = evaluation_stream(result.splits.test, result.splits.spec)()
        logits = classifier_head.inference(result.classifiers["erm"])(stream)
        probabilities[out] = softmax(logits.astype(np.float64), axis=1)
    start = time.perf_counter()
    quality = get_label_quality_scores(train.y, probabilities)
    issues = find_label_issues(train.y, probabilities, **ALONE)
    seconds += time.perf_counter() - start
    figures = scores(splits.corrupted, quality, issues)
    return figures | {"estimated": int(issues.sum()), "seconds": seconds}


def by_datalab(splits: Splits) -> dict[str, Any]:
    """Finds wrong labels with cleanlab's Datalab, from features and their nearest neighbours alone.

    Args:
        splits: contains the training set to judge; the neighbours are those of `audit.neighbours`.

    Returns:
        See `by_audit`.
    """
    from cleanlab import Datalab

    start = time.perf_counter()
    vectors = directions(splits.train.x)
    lab = Datalab({"label": splits.train.y}, label_name="label", verbosity=0)
    arguments = {"clean_learning_kwargs": {"find_label_issues_kwargs": ALONE}}
    lab.find_issues(features=vectors, issue_types={"label": arguments})
    found = lab.get_issues("label")
    seconds = time.perf_counter() - start
    issues = found.is_label_issue.to_numpy()
    figures = scores(splits.corrupted, found.label_score.to_numpy(), issues)
    return figures | {"estimated": int(issues.sum()), "seconds": seconds}


def _as_given(part: LabelledSet) -> LabelledSet:
    return dataclasses.replace(part, true_y=part.y)


# -------------------------------------------------------------------- the command


def define_flags() -> flags.FlagValues:
    """Returns the flags of a run and those of the command."""
    values = run_flags()
    flags.DEFINE_string("noises", NOISES, "comma-separated kind:rate", flag_values=values)
    flags.DEFINE_list("seeds", ["0"], "seeds of data and training", flag_values=values)
    flags.DEFINE_list(
        "methods", [METHOD], "methods to train and audit, with their options", flag_values=values
    )
    flags.DEFINE_integer(
        "longer", 2, "epochs of an audited training, as a multiple of a fold's", flag_values=values
    )
    flags.DEFINE_integer("folds", 5, "trainings for cleanlab; 0 leaves it out", flag_values=values)
    flags.DEFINE_string(
        "csv", "", "file to write the numbers to; rows in it are not measured again", flag_values=values
    )
    return values


def _noises(text: str) -> list[tuple[str, float]]:
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return [(kind.strip(), float(rate)) for kind, rate in pairs]
    except ValueError:
        raise UserError(f"noises is '{text}'; allowed: kind:rate between commas") from None


def run(values: flags.FlagValues) -> str:
    """Measures what the flags ask for; returns the table to print.

    Raises:
        UserError: the value of a flag is not allowed, or cleanlab is not installed.
    """
    fields, noises = fields_of(values), _noises(values.noises)
    check_range("folds", values.folds, 0)
    check_range("longer", values.longer, 1)
    for method in values.methods:
        methods.parse(method)
    if values.folds:
        try:
            import cleanlab  # noqa: F401
        except ImportError:
            raise UserError(
                "cleanlab is not installed; allowed: pip install 'tf-mwnet[benchmark]', or --folds=0"
            ) from None
    outputs.check(values, csv=COLUMNS)
    path = pathlib.Path(values.csv) if values.csv else None
    rows: list[dict[str, Any]] = []
    if path and path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    source = resolve.load(Experiment(**fields))[1]
    for seed in values.seeds:
        for kind, rate in noises:
            seeds = {"seed": int(seed), "data_seed": int(seed)}
            config = Experiment(**fields | seeds | {"noise": kind, "noise_rate": rate})
            _measure(config, source, values, rows)
            if path:
                write_csv(path, rows, COLUMNS, digits=4)
    lines = [[_cell(row.get(name, "")) for name in COLUMNS] for row in rows]
    return tables.text(COLUMNS, lines, range(4, len(COLUMNS)), keys=4)


def _cell(value: Any) -> str:
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return str(value)


def _measure(
    config: Experiment, source: Source, values: flags.FlagValues, rows: list[dict[str, Any]]
) -> None:
    noise = f"{config.noise} {100 * config.noise_rate:g} %"
    name = source.name + ", features" * (source.train.raw is not None)
    facts = {"data": name, "noise": noise, "seed": config.seed}
    done = {r["finder"] for r in rows if all(str(r[k]) == str(v) for k, v in facts.items())}
    todo = [*values.methods, *["cleanlab"] * bool(values.folds)]
    todo += ["datalab"] * (bool(values.folds) and source.train.raw is not None)
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(config, run_dir=f"{folder}/run", meta_labels="noisy")
        drops = tuple(drop * values.longer for drop in config.lr_drops)
        longer = dataclasses.replace(config, epochs=config.epochs * values.longer, lr_drops=drops)
        for finder in (f for f in todo if f not in done):
            shutil.rmtree(config.run_dir, ignore_errors=True)
            if finder in ("cleanlab", "datalab"):
                splits = resolve.load(dataclasses.replace(config, method="erm"), source)[2]
                figures = (
                    by_datalab(splits)
                    if finder == "datalab"
                    else by_cleanlab(config, splits, values.folds)
                )
            else:
                figures = by_audit(dataclasses.replace(longer, method=finder), source)
            rows.append(facts | {"finder": finder} | figures)
            logging.info("%s", ", ".join(f"{k} {v}" for k, v in rows[-1].items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 for bad input."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
