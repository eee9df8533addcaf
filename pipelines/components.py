"""The components: what each takes and gives. What it does is in `tasks`, under the same name.

Parameters that all have: ``home``, the folder where state and lineage are kept ("" for none, where a
cluster keeps them), and ``code``, a digest of what the result may depend on beside these and inputs.
``flags`` are those of ``python -m tf_mwnet.main`` that matter to the component.
"""

# No "from __future__ import annotations": the engine reads the annotations as they are.
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
    """A TFDS name, a folder or an .npz to TFRecord examples with ids: train, test and (clean) meta."""
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
    """Examples to counts, pixel statistics and inputs that are there twice; and a page of them."""
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
    """Statistics to the schema that the training set follows."""
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
    """Statistics and schema to anomalies; fails where one of them blocks."""
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
    """Examples to examples with noise and imbalance put in; the noise asked for and what came of it."""
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
    """A small search over settings, judged on one half of the meta set, to the best flags."""
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
    """Biased examples to a run folder and the SavedModels of classifier and weight net; resumes."""
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
    """A run, a baseline's run and the test set to accuracy, recall by class, and blessed or not."""
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
    """A run to the labels that look wrong, and its page."""
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
    """SavedModels to whether a process with TensorFlow alone can serve them, and how fast."""
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
    """A blessed model to the next version in ``push_to/name``."""
    from pipelines import tasks

    tasks.perform("pusher", locals())
