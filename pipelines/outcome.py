"""The report at the end of a pipeline run, and the pages for people."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from pipelines.store import Store
from tf_mwnet.figures.tables import text
from tf_mwnet.files import write_atomically

# Component, its artifact, the file in the artifact's folder ("" if it is a file), and the page's name.
PAGES = (
    ("statistics_gen", "page", "", "data.html"),
    ("label_audit", "page", "", "labels.html"),
    ("evaluator", "evaluation", "evaluation.png", "evaluation.png"),
)


def keep_pages(store: Store, start: float, folder: pathlib.Path) -> list[pathlib.Path]:
    """Copies the pages made since ``start`` to ``folder``; returns their paths.

    Args:
        store: the pipeline's store.
        start: seconds since the epoch.
        folder: is created if there is a page.
    """
    copies = []
    for component, artifact, file, name in PAGES:
        made = store.rows(
            "SELECT uri FROM artifacts JOIN tasks ON tasks.id = artifacts.task"
            " WHERE component = ? AND name = ? AND started > ? AND state = 'done' ORDER BY tasks.id",
            component, artifact, start,
        )  # fmt: skip
        for number, row in enumerate(made, 1):
            path = folder / (name if number == 1 else name.replace(".", f"-{number}."))
            folder.mkdir(parents=True, exist_ok=True)
            _copy(store.place(row["uri"]) / file, path)
            copies.append(path)
    return copies


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    content = source.read_bytes()
    write_atomically(target, lambda file: file.write(content))


def result(judged: Mapping[str, Any]) -> str:
    """Says in a line how good a model is, and whether it is good enough.

    Args:
        judged: an `Evaluation.to_dict`.
    """
    low, high = (100 * share for share in judged["interval"])
    accuracy, baseline = 100 * judged["accuracy"], 100 * judged["baseline_accuracy"]
    verdict = "blessed" if judged["blessed"] else f"not blessed: {judged['reasons'][0]}"
    return f"accuracy {accuracy:.1f} % ({low:.1f} to {high:.1f}), baseline {baseline:.1f} %; {verdict}"


def report(store: Store, start: float, pages: pathlib.Path) -> str:
    """Returns the report of the tasks that ran since ``start``, and copies their pages.

    Args:
        store: the pipeline's store.
        start: seconds since the epoch.
        pages: folder of the copies.
    """
    ran = store.rows("SELECT * FROM tasks WHERE started > ? ORDER BY id", start)
    metrics = {row["id"]: json.loads(row["metrics"]) for row in ran}
    rows = [
        [row["component"], metrics[row["id"]].get("method", ""), f"{row['ended'] - row['started']:.0f}"]
        for row in ran
    ]
    lines = ["", text(["component", "method", "seconds"], rows, numbers=(2,)), ""] if rows else []
    judged = [row for row in ran if row["component"] == "evaluator"] or store.rows(
        "SELECT * FROM tasks WHERE component = 'evaluator' AND state = 'done' ORDER BY id DESC LIMIT 1"
    )
    lines += [f"result        {result(json.loads(row['metrics']))}" for row in judged]
    for row in ran:
        if row["component"] == "pusher":
            name, push = json.loads(row["parameters"])["name"], metrics[row["id"]]
            if not push["pushed"]:
                lines.append(f"not pushed    {name}: {push['reasons'][0]}")
            elif push.get("new", True):
                lines.append(f"pushed        {push['pushed']}")
            else:
                lines.append(f"unchanged     {push['pushed']} is this model already")
    lines += [f"page          {path}" for path in keep_pages(store, start, pages)]
    lines += [f"lineage       {store.path}", f"time          {time.time() - start:.0f} s"]
    return "\n".join(lines)
