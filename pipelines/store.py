"""What was made from what: an SQLite file beside the artifacts.

    tasks       one row each time a component ran: its parameters, code, versions, metrics, how it ended
    artifacts   the folders that finished tasks made
    files       SHA-256 of each file in them, as it was made
    inputs      which artifacts a task was given

A component that was not run again, since nothing it depends on had changed, has no new row.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sqlite3
import time
from collections.abc import Iterator, Mapping
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
"""


class Store:
    """The store of one home folder.

    Args:
        home: the folder; made if it is not there.

    Raises:
        UserError: the file is damaged.
    """

    def __init__(self, home: str | pathlib.Path):
        self.path = pathlib.Path(home) / NAME
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._open() as connection:
                connection.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"'{self.path}' can not be read ({error}); allowed: as it was written, or none"
            ) from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection; what was done is kept as a whole, or not at all."""
        connection = sqlite3.connect(self.path, timeout=60)
        connection.row_factory = sqlite3.Row
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """What a query finds."""
        with self._open() as connection:
            return [dict(row) for row in connection.execute(query, values)]

    def begin(
        self,
        component: str,
        parameters: Mapping[str, Any],
        versions: Mapping[str, str],
        inputs: Mapping[str, str],
    ) -> int:
        """Notes that a component runs now, in this process; returns the task's number.

        Args:
            component: its name.
            parameters: name -> value.
            versions: of the libraries.
            inputs: name -> URI of an artifact.
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
        return task

    def finish(
        self, task: int, outputs: Mapping[str, str], metrics: Mapping[str, Any], model: str = ""
    ) -> None:
        """Notes what a task has made.

        Args:
            task: its number.
            outputs: name -> folder or file.
            metrics: what is said of it.
            model: digest of a pushed model, see `tf_mwnet.serving.model_digest`.
        """
        made = {uri: (name, _files(pathlib.Path(uri))) for name, uri in outputs.items()}
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
        """Notes why a task has ended."""
        with self._open() as connection:
            connection.execute(
                "UPDATE tasks SET state = ?, ended = ?, error = ? WHERE id = ?",
                (FAILED, time.time(), error, task),
            )

    def end_running(self, reason: str = "") -> list[str]:
        """Marks tasks whose processes are gone; returns their components.

        Args:
            reason: the last that they said, if they said anything.
        """
        gone = self.rows("SELECT * FROM tasks WHERE state = ?", RUNNING)
        for row in gone:
            self.fail(row["id"], reason or "its process was killed")
        return [row["component"] for row in gone]

    def damaged(self, below: pathlib.Path) -> list[str]:
        """URIs of artifacts in a folder whose files are not as made; added ones do not matter."""
        uris = []
        for row in self.rows("SELECT uri FROM artifacts"):
            path = pathlib.Path(row["uri"])
            if below not in path.parents or not path.exists():
                continue
            before = self.rows("SELECT path, sha256 FROM files WHERE uri = ?", row["uri"])
            now = _files(path)
            if any(now.get(f["path"]) != f["sha256"] for f in before):
                uris.append(row["uri"])
        return uris

    def maker(self, uri: str) -> dict[str, Any] | None:
        """The task that made an artifact."""
        tasks = self.rows(
            "SELECT tasks.* FROM tasks JOIN artifacts ON artifacts.task = tasks.id WHERE uri = ?", uri
        )
        return tasks[0] if tasks else None


def _files(path: pathlib.Path) -> dict[str, str]:
    if path.is_file():
        return {path.name: digest(path)}
    return digests(path)
