"""The pipeline: connects the outputs of components to the inputs of others."""

# No "from __future__ import annotations": the engine reads the annotations as objects.
import dataclasses
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kfp import dsl
from kfp.dsl.pipeline_channel import PipelineChannel

from pipelines import components as parts
from pipelines.settings import Settings, flags_of, stamp
from tf_mwnet.config import Experiment
from tf_mwnet.sweep.jobs import Job, environment_of


def _prepared(settings: Settings, config: Experiment, shared: Mapping[str, Any]) -> PipelineChannel:
    """Adds the components from raw data to biased records, which it returns."""
    beam = {"runner": settings.runner, "beam_options": list(settings.beam_options)}
    examples = parts.example_gen(
        flags=flags_of(config, "example_gen"),
        stamp=stamp(config) if settings.home else "",
        **beam,
        **shared,
    ).outputs["examples"]
    statistics = parts.statistics_gen(examples=examples, **beam, **shared).outputs["statistics"]
    schema = parts.schema_gen(examples=examples, statistics=statistics, **shared).outputs["schema"]
    validated = parts.example_validator(
        statistics=statistics, schema=schema, max_duplicates=settings.max_duplicates, **shared
    )
    bias = parts.bias_gen(examples=examples, flags=flags_of(config, "bias_gen"), **shared)
    return bias.after(validated).outputs["biased"]


def _trained(
    settings: Settings,
    config: Experiment,
    biased: PipelineChannel,
    kinds: Mapping[str, str],
    shared: Mapping[str, Any],
    weight_net: PipelineChannel | None = None,
) -> dict[str, PipelineChannel]:
    """Adds the components from biased records to pushed models.

    Args:
        settings: the pipeline's settings.
        config: the run to train.
        biased: the records.
        kinds: what to push, "weight_net" or "classifier" -> suffix of its name.
        shared: parameters of all components.
        weight_net: a pushed weight net to train with, frozen; None to learn one.

    Returns:
        What was pushed, by the keys of ``kinds``.
    """
    flags = flags_of(config, "trainer")
    other = dataclasses.replace(config, method=settings.baseline, weight_net="")
    extra = {} if weight_net is None else {"weight_net": weight_net}
    if settings.search and weight_net is None:
        extra["best"] = parts.tuner(
            biased=biased, flags=flags, search=list(settings.search), trials=settings.trials, **shared
        ).outputs["best"]
    baseline = parts.trainer(biased=biased, flags=flags_of(other, "trainer"), **shared)
    main = parts.trainer(biased=biased, flags=flags, **extra, **shared)
    evaluation = parts.evaluator(
        run=main.outputs["run"], baseline=baseline.outputs["run"], biased=biased, margin=settings.margin,
        min_recall=settings.min_recall, confidence=settings.confidence, **shared,
    ).outputs["evaluation"]  # fmt: skip
    parts.label_audit(run=main.outputs["run"], biased=biased, **shared)
    blessing = parts.infra_validator(
        model=main.outputs["model"], biased=biased, max_latency_ms=settings.max_latency_ms, **shared
    ).outputs["blessing"]
    pushed = {}
    for what, label in kinds.items():
        task = parts.pusher(
            model=main.outputs["model"], evaluation=evaluation, blessing=blessing, what=what,
            name=f"{settings.name}{label}", push_to=settings.push_to, **shared,
        )  # fmt: skip
        task.set_caching_options(False)  # it checks itself whether the model was pushed already
        pushed[what] = task.outputs["pushed"]
    return pushed


def build(settings: Settings) -> Callable[[], Any]:
    """Returns the pipeline of some settings, for the engine to run or to compile."""
    shared = {"home": "." if settings.home else "", "code": settings.code}

    @dsl.pipeline(name=_name(settings.name), description="From raw data to a served weight function.")
    def pipeline() -> None:
        biased = _prepared(settings, settings.run, shared)
        both = {"weight_net": "", "classifier": "-classifier"}
        pushed = _trained(settings, settings.run, biased, both, shared)
        if settings.transfer:
            biased = _prepared(settings, settings.transfer, shared)
            label = {"classifier": "-transferred-classifier"}
            _trained(settings, settings.transfer, biased, label, shared, pushed["weight_net"])

    return pipeline


def build_sweep(
    name: str, jobs: Sequence[Job], parallel: int, cpus: int, gpus: int, shared: Mapping[str, Any]
) -> Callable[[], Any]:
    """Returns the pipeline of a sweep: its runs in parallel, then their table.

    Args:
        name: of the pipeline.
        jobs: the runs.
        parallel: runs at a time; 0 for as many as the cluster has room for.
        cpus, gpus: of each run.
        shared: parameters of all components.
    """
    items = [
        {"folder": job.folder.name, "setting": job.setting, "method": job.method, "label": job.label,
         "flags": shlex.join(job.flags)} for job in jobs
    ]  # fmt: skip

    @dsl.pipeline(name=_name(name), description="Many runs, and one table.")
    def pipeline() -> None:
        with dsl.ParallelFor(items=items, parallelism=parallel or None) as item:
            values = {key: getattr(item, key) for key in items[0]}
            run = parts.sweep_run(**values, **shared)
            run.set_cpu_request(str(cpus)).set_cpu_limit(str(cpus)).set_retry(2)
            for name, value in environment_of(cpus).items():
                run.set_env_variable(name, value)
            if gpus:
                run.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)
        settings = list(dict.fromkeys(job.setting for job in jobs))
        parts.sweep_table(runs=dsl.Collected(run.outputs["run"]), settings=settings, **shared)

    return pipeline


def _name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"tf-mwnet-{text}".lower()).strip("-")
