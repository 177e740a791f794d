"""The runs of a sandbox in a SQLite file, so that they are there again when it is started again.

Requests are never answered from it: SQLite would walk over all runs before a page deep in a list.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from os import PathLike, fspath
from typing import Any

_APPLICATION_ID = 0x74667275  # by which we know our own files
_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION_ID};
CREATE TABLE jobs (id TEXT PRIMARY KEY);
CREATE TABLE runs (job TEXT NOT NULL, id TEXT NOT NULL, json BLOB NOT NULL, PRIMARY KEY (job, id));
"""


class Database:
    """Jobs, and the JSON texts of their runs, in a file. Each change is written at once.

    Raises:
        OSError: the file can't be opened, or another process uses it.
        ValueError: it isn't a file that a sandbox has made.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = fspath(path)
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        except sqlite3.OperationalError as error:
            raise OSError(f"the database {self._path!r} can't be opened: {error}") from None
        try:
            self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        try:
            # What is written survives this process, killed or not; only a power cut may take the last of it.
            self._db.executescript("PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = NORMAL;")
            [(tables,)] = self._db.execute("SELECT count(*) FROM sqlite_master")
            [(application,)] = self._db.execute("PRAGMA application_id")
            if tables and application != _APPLICATION_ID:
                raise ValueError(f"{self._path!r} is a database, but none that a sandbox has made")
            self._db.execute("PRAGMA journal_mode = WAL")
            if not tables:
                self._db.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            raise OSError(f"the database {self._path!r} can't be used: {error}") from None
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self._path!r} isn't a SQLite database: {error}") from None

    def job_ids(self) -> tuple[str, ...]:
        """The jobs, in the order in which they were stored; none in a new file."""
        return tuple(job_id for (job_id,) in self._db.execute("SELECT id FROM jobs ORDER BY rowid"))

    def runs(self, job_id: str) -> Iterator[bytes]:
        """The texts of the job's runs, in no order."""
        return (text for (text,) in self._db.execute("SELECT json FROM runs WHERE job = ?", (job_id,)))

    def fill(self, jobs: Iterable[str], runs: Iterable[tuple[str, str, bytes]]) -> None:
        """Store jobs, and runs of them: job id, run id and text. All of them, or none if there is an error."""
        self._db.execute("BEGIN")
        try:
            self._db.executemany("INSERT INTO jobs VALUES (?)", ((job_id,) for job_id in jobs))
            self._db.executemany("INSERT INTO runs VALUES (?, ?, ?)", runs)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def put(self, job_id: str, run_id: str, text: bytes) -> None:
        """Store a run in place of the one with its id, if there is one."""
        self._do("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", job_id, run_id, text)

    def delete(self, job_id: str, run_id: str) -> None:
        """Forget a run."""
        self._do("DELETE FROM runs WHERE job = ? AND id = ?", job_id, run_id)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _do(self, statement: str, *values: Any) -> None:
        self._db.execute(statement, values)
