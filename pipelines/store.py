"""Records which artifact was made from which, in an SQLite file next to the artifacts.

    tasks       a row per run of a component: its parameters, code, versions, metrics, and how it ended
    artifacts   the folders that finished tasks have made
    files       the SHA-256 of each file in them when it was made
    inputs      the artifacts that a task was given
    planned     where a task was told to put its artifacts

Places are relative to the home folder, which may be moved, or absolute outside of it.
A component that was not run again, because nothing had changed, gets no new row.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tf_mwnet.errors import UserError
from tf_mwnet.export.serving import digest, digests

NAME = "lineage.sqlite"
RUNNING, DONE, FAILED = "running", "done", "failed"
SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
  id INTEGER PRIMARY KEY, component TEXT NOT NULL, state TEXT NOT NULL, error TEXT NOT NULL DEFAULT '',
  started REAL NOT NULL, ended REAL, pid INTEGER NOT NULL,
  parameters TEXT NOT NULL, versions TEXT NOT NULL, metrics TEXT NOT NULL DEFAULT '{}');
CREATE TABLE IF NOT EXISTS artifacts (
  uri TEXT PRIMARY KEY, name TEXT NOT NULL, task INTEGER NOT NULL REFERENCES tasks(id),
  model TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS files (
  uri TEXT NOT NULL REFERENCES artifacts(uri), path TEXT NOT NULL, sha256 TEXT NOT NULL,
  PRIMARY KEY (uri, path));
CREATE TABLE IF NOT EXISTS inputs (
  task INTEGER NOT NULL REFERENCES tasks(id), name TEXT NOT NULL, uri TEXT NOT NULL,
  PRIMARY KEY (task, name));
CREATE TABLE IF NOT EXISTS planned (uri TEXT PRIMARY KEY, task INTEGER NOT NULL REFERENCES tasks(id));
"""


class Store:
    """The store of one home folder.

    Examples:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> task = store.begin("trainer", {"flags": ["--method=mwnet"]}, {"keras": "3.12"}, {})
        >>> store.finish(task, outputs={}, metrics={"accuracy": 0.9})
        >>> [(row["component"], row["state"]) for row in store.rows("SELECT * FROM tasks")]
        [('trainer', 'done')]

    Args:
        home: the folder; created if it does not exist.

    Raises:
        UserError: the file is damaged.
    """

    def __init__(self, home: str | pathlib.Path):
        self.path = pathlib.Path(home).absolute() / NAME
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._open() as connection:
                connection.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"'{self.path}' cannot be read ({error}); allowed: as it was written, or none"
            ) from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Opens a connection, whose changes are committed together or not at all."""
        connection = sqlite3.connect(self.path, timeout=60)
        connection.row_factory = sqlite3.Row
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Runs a query; returns its rows as dictionaries."""
        with self._open() as connection:
            return [dict(row) for row in connection.execute(query, values)]

    def place(self, uri: str) -> pathlib.Path:
        """Returns the absolute path of an artifact."""
        return self.path.parent / uri

    def begin(
        self,
        component: str,
        parameters: Mapping[str, Any],
        versions: Mapping[str, str],
        inputs: Mapping[str, str],
        planned: Iterable[str] = (),
    ) -> int:
        """Records that a component starts in this process; returns the task's id.

        Args:
            component: the component's name.
            parameters: name -> value.
            versions: library -> version.
            inputs: name -> URI of an artifact.
            planned: URIs of its outputs.
        """
        with self._open() as connection:
            connection.execute(
                "INSERT INTO tasks (component, state, started, pid, parameters, versions)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (component, RUNNING, time.time(), os.getpid(),
                 json.dumps(dict(parameters)), json.dumps(dict(versions))),
            )  # fmt: skip
            task: int = connection.execute("SELECT last_insert_rowid()").fetchone()[0]
            connection.executemany(
                "INSERT INTO inputs VALUES (?, ?, ?)", [(task, k, v) for k, v in inputs.items()]
            )
            connection.executemany(
                "INSERT OR REPLACE INTO planned VALUES (?, ?)", [(uri, task) for uri in planned]
            )
        return task

    def finish(
        self, task: int, outputs: Mapping[str, str], metrics: Mapping[str, Any], model: str = ""
    ) -> None:
        """Records that a task is done, and its outputs.

        Args:
            task: the task's id.
            outputs: name -> URI of a folder or file.
            metrics: values that can be written as JSON, by name.
            model: digest of a pushed model, see `tf_mwnet.export.serving.model_digest`.
        """
        made = {uri: (name, _files(self.place(uri))) for name, uri in outputs.items()}
        with self._open() as connection:
            for uri, (name, files) in made.items():
                connection.execute("DELETE FROM files WHERE uri = ?", (uri,))
                connection.execute(
                    "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?)", (uri, name, task, model)
                )
                connection.executemany(
                    "INSERT INTO files VALUES (?, ?, ?)", [(uri, *f) for f in files.items()]
                )
            connection.execute(
                "UPDATE tasks SET state = ?, ended = ?, metrics = ? WHERE id = ?",
                (DONE, time.time(), json.dumps(dict(metrics)), task),
            )

    def fail(self, task: int, error: str) -> None:
        """Records that a task has failed, and why."""
        with self._open() as connection:
            connection.execute(
                "UPDATE tasks SET state = ?, ended = ?, error = ? WHERE id = ?",
                (FAILED, time.time(), error, task),
            )

    def end_running(self, reason: str = "") -> list[str]:
        """Marks all running tasks as failed; returns their components.

        Args:
            reason: the last message of the task, or "" if there is none.
        """
        gone = self.rows("SELECT * FROM tasks WHERE state = ?", RUNNING)
        for row in gone:
            self.fail(row["id"], reason or "its process was killed")
        return [row["component"] for row in gone]

    def damaged(self, below: pathlib.Path) -> list[str]:
        """Returns the URIs of artifacts in a folder whose files have changed or are missing.

        Added files do not count.
        """
        uris = []
        for row in self.rows("SELECT uri FROM artifacts"):
            path = self.place(row["uri"])
            if below.absolute() not in path.parents or not path.exists():
                continue
            before = self.rows("SELECT path, sha256 FROM files WHERE uri = ?", row["uri"])
            now = _files(path)
            if any(now.get(f["path"]) != f["sha256"] for f in before):
                uris.append(row["uri"])
        return uris

    def unfinished(self) -> list[str]:
        """Returns the URIs of outputs that failed tasks may have begun to write."""
        rows = self.rows(
            "SELECT uri FROM planned JOIN tasks ON tasks.id = planned.task WHERE state = ?"
            " AND uri NOT IN (SELECT uri FROM artifacts)", FAILED,
        )  # fmt: skip
        return [row["uri"] for row in rows]

    def remove(self, uri: str) -> pathlib.Path | None:
        """Removes the files of an artifact that the store has listed, and folders that are empty then.

        What else lies there is kept, under another name; returns its path, or None.
        """
        path, listed = self.place(uri), self.rows("SELECT path FROM files WHERE uri = ?", uri)
        if path.is_file():
            path.unlink()
            return None
        for row in listed:
            (path / row["path"]).unlink(missing_ok=True)
        for folder in sorted((p for p in path.rglob("*") if p.is_dir()), reverse=True):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        if not any(path.iterdir()):
            path.rmdir()
            return None
        number = 1
        while (aside := path.with_name(f"{path.name}.kept-{number}")).exists():
            number += 1
        return path.rename(aside)

    def maker(self, uri: str) -> dict[str, Any] | None:
        """Returns the task that made an artifact, or None."""
        tasks = self.rows(
            "SELECT tasks.* FROM tasks JOIN artifacts ON artifacts.task = tasks.id WHERE uri = ?", uri
        )
        return tasks[0] if tasks else None


def _files(path: pathlib.Path) -> dict[str, str]:
    if path.is_file():
        return {path.name: digest(path)}
    return digests(path)
