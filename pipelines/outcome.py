"""What a run of the pipeline says at its end, and what it leaves for people to look at."""

from __future__ import annotations

import json
import pathlib
import time

from pipelines.store import Store
from tf_mwnet.figures.tables import text
from tf_mwnet.files import write_atomically

# Component, what it gives, the file in it if that is a folder, and the name of a copy for people.
PAGES = (
    ("statistics_gen", "page", "", "data.html"),
    ("label_audit", "page", "", "labels.html"),
    ("evaluator", "evaluation", "evaluation.png", "evaluation.png"),
)


def keep_pages(store: Store, start: float, folder: pathlib.Path) -> list[pathlib.Path]:
    """Copies what was made for people to look at since ``start`` to where they find it."""
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
            _copy(pathlib.Path(row["uri"]) / file, path)
            copies.append(path)
    return copies


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    content = source.read_bytes()
    write_atomically(target, lambda file: file.write(content))


def report(store: Store, start: float, pages: pathlib.Path) -> str:
    """What the command prints at its end."""
    ran = store.rows("SELECT * FROM tasks WHERE started > ? ORDER BY id", start)
    metrics = {row["id"]: json.loads(row["metrics"]) for row in ran}
    rows = [
        [row["component"], metrics[row["id"]].get("method", ""), f"{row['ended'] - row['started']:.0f}"]
        for row in ran
    ]
    lines = ["", text(["component", "method", "seconds"], rows, numbers=(2,)), ""]
    for row in ran:
        if row["component"] == "pusher":
            name, push = json.loads(row["parameters"])["name"], metrics[row["id"]]
            lines.append(
                f"pushed        {push['pushed']}" if push["pushed"]
                else f"not pushed    {name}: {push['reasons'][0]}"
            )  # fmt: skip
    lines += [f"page          {path}" for path in keep_pages(store, start, pages)]
    lines += [f"lineage       {store.path}", f"time          {time.time() - start:.0f} s"]
    return "\n".join(lines)
