"""The inputs and outputs of each component. Its work is the function of the same name in `work`.

All components have the parameters ``home``, the folder of state and lineage ("" on a cluster, which
keeps its own), and ``code``, a digest of code and library versions, so that the engine runs a component
again when they change. ``flags`` are the flags of ``python -m tf_mwnet.main`` that matter to the
component.
"""

# No "from __future__ import annotations": the engine reads the annotations as objects.
import functools
import os

from kfp import dsl

IMAGE = os.environ.get("TF_MWNET_IMAGE", "tf-mwnet:python3")
component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)


@component
def example_gen(
    flags: list,
    stamp: str,
    runner: str,
    beam_options: list,
    home: str,
    code: str,
    examples: dsl.Output[dsl.Dataset],
) -> None:
    """Reads a TFDS set, a folder or an .npz; writes training, test and (clean) meta set as TFRecords."""
    from pipelines import tasks

    tasks.perform("example_gen", locals())


@component
def statistics_gen(
    examples: dsl.Input[dsl.Dataset],
    runner: str,
    beam_options: list,
    home: str,
    code: str,
    statistics: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Counts examples, pixel values and repeated inputs; writes the statistics and a page."""
    from pipelines import tasks

    tasks.perform("statistics_gen", locals())


@component
def schema_gen(
    examples: dsl.Input[dsl.Dataset],
    statistics: dsl.Input[dsl.Artifact],
    home: str,
    code: str,
    schema: dsl.Output[dsl.Artifact],
) -> None:
    """Derives a schema from the statistics of the training set."""
    from pipelines import tasks

    tasks.perform("schema_gen", locals())


@component
def example_validator(
    statistics: dsl.Input[dsl.Artifact],
    schema: dsl.Input[dsl.Artifact],
    max_duplicates: float,
    home: str,
    code: str,
    anomalies: dsl.Output[dsl.Artifact],
) -> None:
    """Compares statistics with a schema; fails if an anomaly is an error."""
    from pipelines import tasks

    tasks.perform("example_validator", locals())


@component
def bias_gen(
    examples: dsl.Input[dsl.Dataset],
    flags: list,
    home: str,
    code: str,
    biased: dsl.Output[dsl.Dataset],
    matrices: dsl.Output[dsl.Artifact],
) -> None:
    """Adds noise and imbalance to the examples; writes the requested and the realised noise matrix."""
    from pipelines import tasks

    tasks.perform("bias_gen", locals())


@component
def tuner(
    biased: dsl.Input[dsl.Dataset],
    flags: list,
    search: list,
    trials: int,
    home: str,
    code: str,
    best: dsl.Output[dsl.Artifact],
) -> None:
    """Searches over a few settings, judged on one half of the meta set; writes the best flags."""
    from pipelines import tasks

    tasks.perform("tuner", locals())


@component
def trainer(
    biased: dsl.Input[dsl.Dataset],
    flags: list,
    home: str,
    code: str,
    run: dsl.Output[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    best: dsl.Input[dsl.Artifact] = None,
    weight_net: dsl.Input[dsl.Model] = None,
) -> None:
    """Trains, or resumes; writes the run folder and the SavedModels of classifier and weight net."""
    from pipelines import tasks

    tasks.perform("trainer", locals())


@component
def evaluator(
    run: dsl.Input[dsl.Artifact],
    baseline: dsl.Input[dsl.Artifact],
    biased: dsl.Input[dsl.Dataset],
    margin: float,
    min_recall: float,
    confidence: float,
    home: str,
    code: str,
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Compares a run with a baseline on the test set; writes accuracy, recall and verdict."""
    from pipelines import tasks

    tasks.perform("evaluator", locals())


@component
def label_audit(
    run: dsl.Input[dsl.Artifact],
    biased: dsl.Input[dsl.Dataset],
    home: str,
    code: str,
    issues: dsl.Output[dsl.Dataset],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Audits the labels that a run was trained on; writes the suspicious ones and a page."""
    from pipelines import tasks

    tasks.perform("label_audit", locals())


@component
def infra_validator(
    model: dsl.Input[dsl.Model],
    biased: dsl.Input[dsl.Dataset],
    max_latency_ms: float,
    home: str,
    code: str,
    blessing: dsl.Output[dsl.Artifact],
) -> None:
    """Checks that a process with only TensorFlow can serve the SavedModels, and how fast."""
    from pipelines import tasks

    tasks.perform("infra_validator", locals())


@component
def pusher(
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    blessing: dsl.Input[dsl.Artifact],
    what: str,
    name: str,
    push_to: str,
    home: str,
    code: str,
    pushed: dsl.Output[dsl.Model],
) -> None:
    """Copies a blessed model to the next version in ``push_to/name``."""
    from pipelines import tasks

    tasks.perform("pusher", locals())


@component
def sweep_run(
    folder: str,
    setting: str,
    method: str,
    label: str,
    flags: str,
    home: str,
    code: str,
    run: dsl.Output[dsl.Artifact],
) -> None:
    """Does one run of a sweep, whose flags are one string, as a loop has them; writes its folder."""
    from pipelines import tasks

    tasks.perform("sweep_run", locals())


@component
def sweep_table(
    runs: dsl.Input[list[dsl.Artifact]],
    settings: list,
    home: str,
    code: str,
    table: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.Markdown],
) -> None:
    """Writes the table of a sweep, the numbers of each run and a picture."""
    from pipelines import tasks

    tasks.perform("sweep_table", locals())
