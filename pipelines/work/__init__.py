"""The work of the components: functions named like them, which call `tf_mwnet`.

* `data`, `models` and `sweeps` have the functions; `shared` has their helpers.
* `statistics`, `validation`, `tuning`, `evaluation` and `pages` are used by the pipeline alone.

What takes long to import (Beam, training, KerasTuner, pages) is imported in the functions, so that the
other components' processes start without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.work.data import bias_gen, example_gen, example_validator, schema_gen, statistics_gen
from pipelines.work.models import evaluator, infra_validator, label_audit, pusher, trainer, tuner
from pipelines.work.sweeps import sweep_run, sweep_table

WORK: dict[str, Callable[..., dict[str, Any] | None]] = {
    f.__name__: f
    for f in (
        example_gen, statistics_gen, schema_gen, example_validator, bias_gen, tuner, trainer,
        evaluator, label_audit, infra_validator, pusher, sweep_run, sweep_table,
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
    "sweep_run": ("run",),
    "sweep_table": ("table", "page"),
}
