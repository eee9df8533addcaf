"""From biased examples to pushed models."""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import logging

from pipelines.work.shared import FACTS, experiment_of, keep_page, records_of, write_json
from tf_mwnet.config import read_json
from tf_mwnet.errors import UserError
from tf_mwnet.files import new_folder
from tf_mwnet.types import LabelledSet, Source

if TYPE_CHECKING:
    from kfp import dsl


def _state(home: str, output: dsl.Artifact, *key: Any) -> pathlib.Path:
    """A folder that the same work finds again after it was cut off."""
    if not home:
        return pathlib.Path(output.path).parent / "work"
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return pathlib.Path(home).absolute() / "work" / name


def tuner(
    biased: dsl.Dataset,
    flags: Sequence[str],
    search: Sequence[str],
    trials: int,
    home: str,
    best: dsl.Artifact,
    code: str,
) -> dict[str, Any]:
    from pipelines.settings import flag
    from pipelines.work import tuning
    from tf_mwnet.cli.flags import axes_of

    values = {k: _values(k, v) for k, v in axes_of(search, "search").items()}
    state = _state(home, best, "tuner", biased.uri, list(flags), list(search), trials, code)
    _, source = records_of(biased, flags)
    asked = experiment_of(flags, dataset="records", data_dir=biased.path)
    found, table = tuning.tune(asked, source, values, state, int(trials))
    with new_folder(pathlib.Path(best.path)) as out:
        write_json(out / "flags.json", [flag(k, v) for k, v in found.items()])
        table.to_csv(out / "trials.csv", index=False)
    shutil.rmtree(state, ignore_errors=True)
    return {"best": found, "trials": len(table)}


def _values(name: str, texts: Sequence[str]) -> list[Any]:
    return [getattr(experiment_of([f"--{name}={text}"]), name) for text in texts]


def trainer(
    biased: dsl.Dataset,
    flags: Sequence[str],
    home: str,
    code: str,
    run: dsl.Artifact,
    model: dsl.Model,
    best: dsl.Artifact | None = None,
    weight_net: dsl.Model | None = None,
) -> dict[str, Any]:
    from tf_mwnet.experiment.runner import run as train
    from tf_mwnet.run_folder import RESULT, finished

    flags = list(flags)
    if best is not None:
        flags += read_json(pathlib.Path(best.path) / "flags.json")
    if weight_net is not None:
        net = pathlib.Path(weight_net.path)
        if not (net / "saved_model.pb").is_file():
            raise UserError(f"'{net}' holds no weight net: none was pushed; allowed: a blessed one")
        flags.append(f"--weight_net={net}")
    state = _state(home, run, "trainer", biased.uri, flags, code)
    config = experiment_of(
        flags, dataset="records", data_dir=biased.path, run_dir=state, auto_resume="true", compare=""
    )
    if not (state / RESULT).is_file():
        train(config)
    config, summaries = finished(state)
    with new_folder(pathlib.Path(model.path)) as out:
        shutil.copytree(state / config.method / "saved_models", out, dirs_exist_ok=True)
    with new_folder(pathlib.Path(run.path)) as out:
        shutil.copytree(state, out, dirs_exist_ok=True)
    shutil.rmtree(state)
    found = {k: v for k, v in summaries[config.method].items() if isinstance(v, float | int)}
    run.metadata.update({"method": config.method})
    return {"method": config.method, "settings": json.loads(config.to_json())} | found


def evaluator(
    run: dsl.Artifact,
    baseline: dsl.Artifact,
    biased: dsl.Dataset,
    margin: float,
    min_recall: float,
    confidence: float,
    evaluation: dsl.Artifact,
    metrics: dsl.Metrics,
) -> dict[str, Any]:
    from pipelines.work import evaluation as evaluations
    from pipelines.work import pages
    from tf_mwnet.figures import plots

    source, test = _with_test_set(biased)
    found = evaluations.evaluate(
        pathlib.Path(run.path), pathlib.Path(baseline.path), test, len(source.class_names),
        margin=margin, min_recall=min_recall, confidence=confidence,
    )  # fmt: skip
    content = found.to_dict()
    with new_folder(pathlib.Path(evaluation.path)) as out:
        write_json(out / FACTS, content)
        plots.save(pages.evaluation(found, source.class_names), out / "evaluation.png")
    numbers = {k: content[k] for k in ("accuracy", "baseline_accuracy", "difference")}
    for key, value in numbers.items():
        metrics.log_metric(key, value)
    write_json(pathlib.Path(metrics.path), numbers)
    for reason in found.reasons:
        logging.warning("not blessed: %s", reason)
    return content


def _with_test_set(biased: dsl.Dataset) -> tuple[Source, LabelledSet]:
    from tf_mwnet.data import load

    source = load("records", biased.path)
    if source.test is None:
        raise UserError(f"'{biased.path}' has no test set; allowed: records as bias_gen writes them")
    return source, source.test


def label_audit(
    run: dsl.Artifact, biased: dsl.Dataset, issues: dsl.Dataset, page: dsl.HTML
) -> dict[str, Any]:
    from pipelines.work import pages
    from tf_mwnet.audit import outputs
    from tf_mwnet.audit.examine import examine

    found = examine(run.path, data_dir=biased.path)
    with new_folder(pathlib.Path(issues.path)) as out:
        outputs.write(found, outputs.picture(found, 64), out)
    keep_page(page, lambda out: pages.of_labels(out, found))
    return outputs.facts(found)


def infra_validator(
    model: dsl.Model, biased: dsl.Dataset, max_latency_ms: float, blessing: dsl.Artifact
) -> dict[str, Any]:
    import numpy as np

    from tf_mwnet.data.images import rows_of
    from tf_mwnet.export import serving

    _, test = _with_test_set(biased)
    images = rows_of(test.x, np.arange(min(100, len(test))))
    losses = np.linspace(0, 10, 100, dtype=np.float32)[:, None]
    found: dict[str, dict[str, Any]] = {}
    for name, request in (("classifier", images), ("weight_net", losses)):
        for folder in serving.versions(pathlib.Path(model.path) / name).values():
            found[name] = serving.check(folder, request, max_latency_ms)
            for problem in found[name]["problems"]:
                logging.warning("not blessed: %s: %s", name, problem)
    blessed = "classifier" in found and not any(f["problems"] for f in found.values())
    with new_folder(pathlib.Path(blessing.path)) as out:
        write_json(out / FACTS, {"blessed": blessed, "models": found})
    return {"blessed": blessed, "models": found}


def pusher(
    model: dsl.Model,
    evaluation: dsl.Artifact,
    blessing: dsl.Artifact,
    what: str,
    name: str,
    push_to: str,
    pushed: dsl.Model,
) -> dict[str, Any]:
    from tf_mwnet.export import serving

    judged = read_json(pathlib.Path(evaluation.path) / FACTS)
    served = read_json(pathlib.Path(blessing.path) / FACTS)
    there = serving.versions(pathlib.Path(model.path) / what)
    problems = [p for m in served["models"].values() for p in m["problems"]]
    reasons = [*judged["reasons"], *problems] or ([] if there else [f"the method has no {what}"])
    if reasons:
        logging.warning("%s is not pushed: %s", name, reasons[0])
        with new_folder(pathlib.Path(pushed.path)) as out:
            write_json(out / FACTS, {"pushed": None, "reasons": reasons})
        return {"pushed": None, "reasons": reasons}
    source = there[max(there)]
    facts = {"what": what, "accuracy": judged["accuracy"], "baseline": judged["baseline_accuracy"]}
    target = serving.push(source, pathlib.Path(push_to) / name, facts)
    pushed.uri = str(target.absolute())
    logging.info("pushed: %s", target)
    return {"pushed": str(target), "digest": serving.model_digest(target)}
