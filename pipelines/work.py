"""What the components do: calls into `tf_mwnet`, each under its component's name.

Imports are in the functions, so that a component's process loads no more than it needs.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from absl import logging

from tf_mwnet.errors import UserError
from tf_mwnet.files import new_folder, write_atomically

FACTS = "facts.json"


def _write_json(path: pathlib.Path, content: Any) -> None:
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text), mode="w")


def _read_json(path: pathlib.Path) -> Any:
    from tf_mwnet.config import read_json

    return read_json(path)


def _page(output, write: Callable[[pathlib.Path], pathlib.Path]) -> None:
    """Keeps the page that ``write`` makes in a folder; it holds its pictures and tables itself."""
    with tempfile.TemporaryDirectory() as work:
        content = write(pathlib.Path(work)).read_bytes()
    write_atomically(pathlib.Path(output.path), lambda file: file.write(content))


def _flags(flags, **more: Any):
    from tf_mwnet.main import parse

    return parse([*flags, *(f"--{k}={v}" for k, v in more.items())])


def _records(artifact, flags=()):
    """Configuration for an artifact of records, and the records."""
    from tf_mwnet.loading import find

    return find(_flags(flags, dataset="records", data_dir=artifact.path))


def _bias(config):
    from tf_mwnet.loading import bias_of

    return dataclasses.replace(bias_of(config), early_stopping=0)


# -------------------------------------------------------------------- data


def example_gen(flags, runner, beam_options, examples) -> dict[str, Any]:
    from pipelines import beam_jobs
    from tf_mwnet import data
    from tf_mwnet.data import records
    from tf_mwnet.loading import find

    config = _flags(flags)
    if config.dataset == "folder":  # each image is decoded where it is written
        config = dataclasses.replace(config, cache="none")
    config, source = find(config)
    bias = _bias(config)
    noisy = config.meta_labels == "noisy" and source.meta is None
    bias = dataclasses.replace(
        bias,
        noise="none",
        imbalance_factor=1.0,
        class_counts=(),
        meta_size=0 if noisy else bias.meta_size,
    )
    splits = data.make_splits(source, bias)
    found = data.biased_source(source, splits, bias)
    found = dataclasses.replace(found, bias=None, truth_known=source.truth_known)
    settings = beam_jobs.options(runner, beam_options)
    records.write(
        found, examples.path, each=functools.partial(beam_jobs.write_shards, settings=settings)
    )
    sizes = {k: len(v) for k in ("train", "meta", "test") if (v := getattr(found, k)) is not None}
    examples.metadata.update(sizes)
    return {"data_set": found.name, "examples": sizes}


def statistics_gen(examples, runner, beam_options, statistics, page) -> dict[str, Any]:
    from pipelines import beam_jobs
    from tf_mwnet.data import records
    from tf_mwnet.data import statistics as found
    from tf_mwnet.reports import pipeline_pages

    folder = pathlib.Path(examples.path)
    with tempfile.TemporaryDirectory() as work:
        settings = beam_jobs.options(runner, beam_options)
        parts, groups = beam_jobs.look(folder, settings, pathlib.Path(work))
    facts = records.read_facts(folder)
    with new_folder(pathlib.Path(statistics.path)) as out:
        found.write(facts, parts, groups, out)
    _page(page, lambda out: pipeline_pages.of_data(out, facts, parts, groups))
    return {k: {"examples": int(p.counts.sum()), "mean": p.mean.tolist()} for k, p in parts.items()}


def schema_gen(examples, statistics, schema) -> None:
    from tf_mwnet.data import records, validation
    from tf_mwnet.data import statistics as found

    numbers, _ = found.read(pathlib.Path(statistics.path))
    facts = records.read_facts(pathlib.Path(examples.path))
    with new_folder(pathlib.Path(schema.path)) as out:
        validation.write_schema(validation.schema_of(facts, numbers), out)


def example_validator(statistics, schema, max_duplicates, anomalies) -> dict[str, Any]:
    from tf_mwnet.data import statistics as numbers
    from tf_mwnet.data import validation

    rule = validation.read_schema(pathlib.Path(schema.path))
    found = validation.anomalies(rule, *numbers.read(pathlib.Path(statistics.path)), max_duplicates)
    for info in found.anomaly_info.values():
        logging.warning("%s", info.description)
    if reasons := validation.blocking(found):
        raise UserError(f"the data can not be trained on: {'; '.join(reasons)}")
    with new_folder(pathlib.Path(anomalies.path)) as out:
        validation.write_anomalies(found, out)
    return {"anomalies": {k: v.description for k, v in found.anomaly_info.items()}}


def bias_gen(examples, flags, biased, matrices) -> dict[str, Any]:
    import numpy as np

    from tf_mwnet import data
    from tf_mwnet.data import records

    config, source = _records(examples, flags)
    bias = _bias(config)
    # Classes were chosen with the examples, and have other numbers now.
    splits = data.make_splits(source, dataclasses.replace(bias, classes=()))
    found = dataclasses.replace(
        data.biased_source(source, splits, dataclasses.replace(bias, classes=())),
        bias=dataclasses.asdict(bias),
    )
    records.write(found, biased.path)
    train, classes = splits.train, splits.spec.num_classes
    counts = np.bincount(train.y, minlength=classes).tolist()
    rate = float(splits.corrupted.mean()) if splits.truth_known else None
    with new_folder(pathlib.Path(matrices.path)) as out:
        if splits.transition is not None:
            np.savetxt(out / "transition_matrix.csv", splits.transition, "%.6f", ",")
        if splits.truth_known:
            realised = data.realised_matrix(train.true_y, train.y, classes)
            np.savetxt(out / "realised_matrix.csv", realised, "%.6f", ",")
        _write_json(out / FACTS, {"counts": counts, "noise_rate": rate})
    return {"bias": dataclasses.asdict(bias), "counts": counts, "noise_rate": rate}


# -------------------------------------------------------------------- models


def _state(home: str, output, *key: Any) -> pathlib.Path:
    """A folder that the same work finds again after it was cut off."""
    if not home:
        return pathlib.Path(output.path).parent / "work"
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return pathlib.Path(home).absolute() / "work" / name


def tuner(biased, flags, search, trials, home, best, code) -> dict[str, Any]:
    from pipelines.settings import flag
    from tf_mwnet import tuning
    from tf_mwnet.sweep import axes_of

    values = {k: _values(k, v) for k, v in axes_of(search, "search").items()}
    state = _state(home, best, "tuner", biased.uri, list(flags), list(search), trials, code)
    _, source = _records(biased, flags)
    asked = _flags(flags, dataset="records", data_dir=biased.path)
    found, table = tuning.tune(asked, source, values, state, int(trials))
    with new_folder(pathlib.Path(best.path)) as out:
        _write_json(out / "flags.json", [flag(k, v) for k, v in found.items()])
        table.to_csv(out / "trials.csv", index=False)
    shutil.rmtree(state, ignore_errors=True)
    return {"best": found, "trials": len(table)}


def _values(name: str, texts) -> list[Any]:
    return [getattr(_flags([f"--{name}={text}"]), name) for text in texts]


def trainer(biased, flags, home, code, run, model, best=None, weight_net=None) -> dict[str, Any]:
    from tf_mwnet.experiment import run as train
    from tf_mwnet.run_folder import RESULT, finished

    flags = list(flags)
    if best is not None:
        flags += _read_json(pathlib.Path(best.path) / "flags.json")
    if weight_net is not None:
        net = pathlib.Path(weight_net.path)
        if not (net / "saved_model.pb").is_file():
            raise UserError(f"'{net}' holds no weight net: none was pushed; allowed: a blessed one")
        flags.append(f"--weight_net={net}")
    state = _state(home, run, "trainer", biased.uri, flags, code)
    config = _flags(
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


def evaluator(run, baseline, biased, margin, min_recall, confidence, evaluation, metrics):
    from tf_mwnet import evaluation as evaluations
    from tf_mwnet.data import load
    from tf_mwnet.reports import pipeline_pages, plots

    source = load("records", biased.path)
    found = evaluations.evaluate(
        pathlib.Path(run.path), pathlib.Path(baseline.path), source.test, len(source.class_names),
        margin=margin, min_recall=min_recall, confidence=confidence,
    )  # fmt: skip
    content = found.to_dict()
    with new_folder(pathlib.Path(evaluation.path)) as out:
        _write_json(out / FACTS, content)
        plots.save(pipeline_pages.evaluation(found, source.class_names), out / "evaluation.png")
    numbers = {k: content[k] for k in ("accuracy", "baseline_accuracy", "difference")}
    for key, value in numbers.items():
        metrics.log_metric(key, value)
    _write_json(pathlib.Path(metrics.path), numbers)
    for reason in found.reasons:
        logging.warning("not blessed: %s", reason)
    return content


def label_audit(run, biased, issues, page) -> dict[str, Any]:
    from tf_mwnet.audit import examine, outputs
    from tf_mwnet.reports import pipeline_pages

    found = examine(run.path, data_dir=biased.path)
    with new_folder(pathlib.Path(issues.path)) as out:
        outputs.write(found, outputs.picture(found, 64), out)
    _page(page, lambda out: pipeline_pages.of_labels(out, found))
    return outputs.facts(found)


def infra_validator(model, biased, max_latency_ms, blessing) -> dict[str, Any]:
    import numpy as np

    from tf_mwnet import serving
    from tf_mwnet.data import load
    from tf_mwnet.data.images import rows_of

    test = load("records", biased.path).test
    images = rows_of(test.x, np.arange(min(100, len(test))))
    losses = np.linspace(0, 10, 100, dtype=np.float32)[:, None]
    found = {}
    for name, request in (("classifier", images), ("weight_net", losses)):
        for folder in serving.versions(pathlib.Path(model.path) / name).values():
            found[name] = serving.check(folder, request, max_latency_ms)
            for problem in found[name]["problems"]:
                logging.warning("not blessed: %s: %s", name, problem)
    blessed = "classifier" in found and not any(f["problems"] for f in found.values())
    with new_folder(pathlib.Path(blessing.path)) as out:
        _write_json(out / FACTS, {"blessed": blessed, "models": found})
    return {"blessed": blessed, "models": found}


def pusher(model, evaluation, blessing, what, name, push_to, pushed) -> dict[str, Any]:
    from tf_mwnet import serving

    judged = _read_json(pathlib.Path(evaluation.path) / FACTS)
    served = _read_json(pathlib.Path(blessing.path) / FACTS)
    there = serving.versions(pathlib.Path(model.path) / what)
    problems = [p for m in served["models"].values() for p in m["problems"]]
    reasons = [*judged["reasons"], *problems] or ([] if there else [f"the method has no {what}"])
    if reasons:
        logging.warning("%s is not pushed: %s", name, reasons[0])
        with new_folder(pathlib.Path(pushed.path)) as out:
            _write_json(out / FACTS, {"pushed": None, "reasons": reasons})
        return {"pushed": None, "reasons": reasons}
    source = there[max(there)]
    facts = {"what": what, "accuracy": judged["accuracy"], "baseline": judged["baseline_accuracy"]}
    target = serving.push(source, pathlib.Path(push_to) / name, facts)
    pushed.uri = str(target.absolute())
    logging.info("pushed: %s", target)
    return {"pushed": str(target), "digest": serving.model_digest(target)}


WORK: dict[str, Callable[..., dict[str, Any] | None]] = {
    f.__name__: f
    for f in (
        example_gen, statistics_gen, schema_gen, example_validator, bias_gen, tuner, trainer,
        evaluator, label_audit, infra_validator, pusher,
    )
}  # fmt: skip
OUTPUTS = {
    "example_gen": ("examples",),
    "statistics_gen": ("statistics", "page"),
    "schema_gen": ("schema",),
    "example_validator": ("anomalies",),
    "bias_gen": ("biased", "matrices"),
    "tuner": ("best",),
    "trainer": ("run", "model"),
    "evaluator": ("evaluation", "metrics"),
    "label_audit": ("issues", "page"),
    "infra_validator": ("blessing",),
    "pusher": ("pushed",),
}
