"""The components from biased examples to pushed models."""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from pipelines.settings import flag
from pipelines.work.evaluation import evaluate
from pipelines.work.shared import FACTS_JSON, experiment_of, keep_page, records_of, write_json
from tf_mwnet import data
from tf_mwnet.cli.flags import axes_of
from tf_mwnet.data.images import rows_of
from tf_mwnet.errors import UserError
from tf_mwnet.export import serving
from tf_mwnet.files import new_folder, read_json
from tf_mwnet.runs.saved_run import RESULT, finished
from tf_mwnet.types import LabelledSet, Source

if TYPE_CHECKING:
    from kfp import dsl


def _state(home: str, output: dsl.Artifact, *key: Any) -> pathlib.Path:
    """Returns the folder of unfinished work: the same work finds it again after it was cut off."""
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
    """Searches over settings; writes the flags of the best ones and a table of all trials."""
    from pipelines.work import tuning  # needs KerasTuner, which only the extra installs

    values = {name: _values(name, texts) for name, texts in axes_of(search, "search").items()}
    state = _state(home, best, "tuner", biased.uri, list(flags), list(search), trials, code)
    _, source = records_of(biased, flags)
    config = experiment_of(flags, dataset="records", data_dir=biased.path)
    settings, table = tuning.tune(config, source, values, state, int(trials))
    with new_folder(pathlib.Path(best.path)) as out:
        write_json(out / "flags.json", [flag(name, value) for name, value in settings.items()])
        table.to_csv(out / "trials.csv", index=False)
    shutil.rmtree(state, ignore_errors=True)
    return {"best": settings, "trials": len(table)}


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
    """Trains one method; resumes a training that was cut off.

    Raises:
        UserError: ``weight_net`` holds no model, or a flag does not fit.
    """
    from tf_mwnet.experiment import runner  # all of training: only this component needs it

    flags = list(flags)
    if best is not None:
        flags += read_json(pathlib.Path(best.path) / "flags.json", list)
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
        runner.run(config)
    config, summaries = finished(state)
    with new_folder(pathlib.Path(model.path)) as out:
        shutil.copytree(state / config.method / "saved_models", out, dirs_exist_ok=True)
    with new_folder(pathlib.Path(run.path)) as out:
        shutil.copytree(state, out, dirs_exist_ok=True)
    shutil.rmtree(state)
    numbers = {k: v for k, v in summaries[config.method].items() if isinstance(v, float | int)}
    run.metadata.update({"method": config.method})
    return {"method": config.method, "settings": json.loads(config.to_json())} | numbers


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
    """Judges a run by a baseline's on the test set; writes numbers and a picture."""
    from pipelines.work import pages
    from tf_mwnet.figures import plots

    source, test = _with_test_set(biased)
    result = evaluate(
        pathlib.Path(run.path), pathlib.Path(baseline.path), test, len(source.class_names),
        margin, min_recall, confidence,
    )  # fmt: skip
    content = result.to_dict()
    with new_folder(pathlib.Path(evaluation.path)) as out:
        write_json(out / FACTS_JSON, content)
        plots.save(pages.evaluation(result, source.class_names), out / "evaluation.png")
    numbers = {k: content[k] for k in ("accuracy", "baseline_accuracy", "difference")}
    for key, value in numbers.items():
        metrics.log_metric(key, value)
    write_json(pathlib.Path(metrics.path), numbers)
    for reason in result.reasons:
        logging.warning("not blessed: %s", reason)
    return content


def _with_test_set(biased: dsl.Dataset) -> tuple[Source, LabelledSet]:
    source = data.load("records", biased.path)
    if source.test is None:
        raise UserError(f"'{biased.path}' has no test set; allowed: records as bias_gen writes them")
    return source, source.test


def label_audit(
    run: dsl.Artifact, biased: dsl.Dataset, issues: dsl.Dataset, page: dsl.HTML
) -> dict[str, Any]:
    """Audits the labels that a run was trained on; writes the worst ones, and a page about them."""
    from pipelines.work import pages
    from tf_mwnet.audit import outputs
    from tf_mwnet.audit.examine import examine

    audit = examine(run.path, data_dir=biased.path)
    with new_folder(pathlib.Path(issues.path)) as out:
        outputs.write(audit, 64, out)
    keep_page(page, lambda out: pages.of_labels(out, audit))
    return outputs.summary(audit)


def infra_validator(
    model: dsl.Model, biased: dsl.Dataset, max_latency_ms: float, blessing: dsl.Artifact
) -> dict[str, Any]:
    """Serves the SavedModels in a process with TensorFlow alone; blesses them if all answer well."""
    _, test = _with_test_set(biased)
    images = rows_of(test.x, np.arange(min(100, len(test))))
    losses = np.linspace(0, 10, 100, dtype=np.float32)[:, None]
    answers: dict[str, dict[str, Any]] = {}
    for name, request in (("classifier", images), ("weight_net", losses)):
        for folder in serving.versions(pathlib.Path(model.path) / name).values():
            answers[name] = serving.check(folder, request, max_latency_ms)
            for problem in answers[name]["problems"]:
                logging.warning("not blessed: %s: %s", name, problem)
    blessed = "classifier" in answers and not any(a["problems"] for a in answers.values())
    with new_folder(pathlib.Path(blessing.path)) as out:
        write_json(out / FACTS_JSON, {"blessed": blessed, "models": answers})
    return {"blessed": blessed, "models": answers}


def pusher(
    model: dsl.Model,
    evaluation: dsl.Artifact,
    blessing: dsl.Artifact,
    what: str,
    name: str,
    push_to: str,
    pushed: dsl.Model,
) -> dict[str, Any]:
    """Copies a blessed model to the next version in ``push_to/name``; else writes why not."""
    judged = read_json(pathlib.Path(evaluation.path) / FACTS_JSON)
    served = read_json(pathlib.Path(blessing.path) / FACTS_JSON)
    versions = serving.versions(pathlib.Path(model.path) / what)
    problems = [p for m in served["models"].values() for p in m["problems"]]
    reasons = [*judged["reasons"], *problems] or ([] if versions else [f"the method has no {what}"])
    if reasons:
        logging.warning("%s is not pushed: %s", name, reasons[0])
        with new_folder(pathlib.Path(pushed.path)) as out:
            write_json(out / FACTS_JSON, {"pushed": None, "reasons": reasons})
        return {"pushed": None, "reasons": reasons}
    source = versions[max(versions)]
    facts = {"what": what, "accuracy": judged["accuracy"], "baseline": judged["baseline_accuracy"]}
    before = serving.versions(pathlib.Path(push_to) / name).values()
    target = serving.push(source, pathlib.Path(push_to) / name, facts)
    pushed.uri = str(target.absolute())
    new = target not in before
    logging.info("pushed: %s" if new else "%s is this model already", target)
    return {"pushed": str(target), "new": new, "digest": serving.model_digest(target)}
