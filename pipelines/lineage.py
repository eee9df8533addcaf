"""``python -m pipelines.lineage saved_models/<name>/<version>``: prints the origin of a pushed model.

Traces the model back to data, bias, seeds, configuration, library versions and metrics, with the store
in the pipeline's home folder (``--home``). The model is recognised by its content, wherever it lies.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from pipelines.store import NAME, Store
from tf_mwnet.cli import command_flags, console
from tf_mwnet.errors import UserError
from tf_mwnet.export.serving import model_digest

WIDTH = 42  # of the column of names, in characters


def define_flags() -> flags.FlagValues:
    """Returns the command's flags, separate from absl's global ones."""
    values = command_flags.new_flags()
    flags.DEFINE_string("home", "runs/pipeline", "home folder of the pipeline", flag_values=values)
    text = "folder of the model; may also be the first argument"
    flags.DEFINE_string("model", "", text, flag_values=values)
    flags.DEFINE_boolean("json", False, "print JSON", flag_values=values)
    return values


def trace(store: Store, model: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the tasks that led to a pushed model, the last one first.

    Args:
        store: store of the pipeline that pushed the model.
        model: folder of the SavedModel.

    Returns:
        The rows of the table "tasks", with "inputs": name -> id of the task that made it.

    Raises:
        UserError: there is no model, or the store does not know it.
    """
    if not (model / "saved_model.pb").is_file():
        raise UserError(f"'{model}' is no SavedModel; allowed: saved_models/<name>/<version>")
    digest = model_digest(model)
    makers = store.rows("SELECT task FROM artifacts WHERE model = ? ORDER BY task DESC", digest)
    if not makers:
        raise UserError(f"'{store.path}' knows nothing of '{model}'; allowed: --home of its pipeline")
    queue, seen = [makers[0]["task"]], {}
    while queue:
        number = queue.pop(0)
        if number in seen:
            continue
        row = store.rows("SELECT * FROM tasks WHERE id = ?", number)[0]
        inputs = {r["name"]: r["uri"] for r in store.rows("SELECT * FROM inputs WHERE task = ?", number)}
        for name in ("parameters", "versions", "metrics"):
            row[name] = json.loads(row[name])
        seen[number] = row | {"inputs": {}}
        for name, uri in inputs.items():
            if maker := store.maker(uri):
                seen[number]["inputs"][name] = maker["id"]
                queue.append(maker["id"])
    return [seen[number] for number in sorted(seen, reverse=True)]


def text(tasks: Sequence[dict[str, Any]]) -> str:
    """Formats tasks for people."""
    lines = []
    for row in tasks:
        when = datetime.datetime.fromtimestamp(row["started"]).isoformat(" ", "seconds")
        lines.append(f"{row['component']} #{row['id']}, {when}, {row['ended'] - row['started']:.0f} s")
        made = ", ".join(f"{name} from #{number}" for name, number in row["inputs"].items())
        for name, value in (("inputs", made), *row["parameters"].items(), *_flat(row["metrics"])):
            if value not in ("", [], None) and name not in ("home",):
                shown = " ".join(map(str, value)) if isinstance(value, list) else value
                shown = f"{shown:.4g}" if isinstance(shown, float) else shown
                lines.append(f"    {name:<{WIDTH}}{shown}")
        lines.append("")
    versions = ", ".join(f"{k} {v}" for k, v in tasks[0]["versions"].items())
    return "\n".join([*lines, f"versions: {versions}"])


def _flat(metrics: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for name, value in metrics.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{name}.")
        elif not (isinstance(value, list) and value and isinstance(value[0], list)):
            pairs.append((f"{prefix}{name}", value))
    return pairs


def run(values: flags.FlagValues) -> str:
    """Returns the text to print.

    Raises:
        UserError: the model or the store does not exist, or the store does not know the model.
    """
    if not values.model:
        raise UserError("no model is given; allowed: saved_models/<name>/<version>")
    home = pathlib.Path(values.home)
    if not (home / NAME).is_file():
        raise UserError(f"home '{home}' has no {NAME}; allowed: the folder of a pipeline that has run")
    tasks = trace(Store(home), pathlib.Path(values.model))
    return json.dumps(tasks, indent=2) if values.json else text(tasks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, see `console.command`."""
    given = sys.argv[1:] if arguments is None else arguments
    named = [a if a.startswith("-") else f"--model={a}" for a in given]
    return console.command(__doc__, define_flags(), run, named)


if __name__ == "__main__":
    sys.exit(main())
