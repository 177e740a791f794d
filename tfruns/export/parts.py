"""What an export has read so far: a database in a folder beside the destination, which outlives the process.

It holds the runs of each job as lines of JSON, and which jobs are complete. What was written for a job that isn't
complete is dropped when the export goes on, so that each run stands there once. SQLite's own lock keeps a second
exporter out, and its own journal sees that a kill at any moment leaves whole entries.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tfruns.export.errors import ExportError

_COMMIT_EVERY = 0.2  # seconds: each commit waits for the disk

NUMBER = "number of the export"
"""The argument that tells one export from the next: a journal with another is of one that is over."""

_TABLES = """
CREATE TABLE argument (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE page (job INTEGER, number INTEGER, lines BLOB NOT NULL, PRIMARY KEY (job, number)) STRICT;
CREATE TABLE done (job INTEGER PRIMARY KEY, runs INTEGER NOT NULL, note TEXT NOT NULL) STRICT;
"""


@attrs.frozen
class Done:
    """A job that was read whole."""

    runs: int
    note: Any
    """What else was noted of it, as JSON has it."""


class Journal:
    """The journal in a folder. Not for two threads at once.

    Args:
        folder: where it is kept; made if it isn't there, and gone once the journal is deleted.
        arguments: what the export is asked for: one with others can't go on from here.

    Raises:
        ExportError: another export is at work here, or one with other arguments was interrupted here; or it can't be
            read or written, as from all methods.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        self.folder = folder
        self.new = folder / "new"
        """A folder for the file that will be published, made when it is written."""
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ExportError(f"{folder} is in the way: what was read would be kept in a folder of that name")
        folder.mkdir(exist_ok=True)
        self._path = folder / "journal.sqlite"
        self._committed_at = time.monotonic()
        try:
            self._database = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise self._told(error) from None
        try:
            self._open(arguments)
        except BaseException:
            self._database.close()
            raise

    def _do(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise self._told(error) from None

    def _all(self, statement: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            for row in self._do(statement, values):  # noqa: UP028  # it would close the cursor, after the database
                yield row
        except sqlite3.DatabaseError as error:
            raise self._told(error) from None

    def _told(self, error: sqlite3.DatabaseError) -> ExportError:
        if "locked" in str(error):
            return ExportError(f"another export is at work here: {self.folder} is in use")
        return ExportError(f"the journal in {self.folder} can't be used (is the disk full?): {error}")

    def _open(self, arguments: Mapping[str, Any]) -> None:
        self._do("PRAGMA page_size = 65536")
        self._do("PRAGMA locking_mode = EXCLUSIVE")
        self._do("BEGIN EXCLUSIVE")
        self._do("PRAGMA user_version = 1")  # writing fails if another exporter has just removed the file
        given = {name: json.dumps(value, sort_keys=True) for name, value in arguments.items()}
        if not [*self._all("SELECT 1 FROM sqlite_master")]:
            for statement in _TABLES.split(";"):
                self._do(statement)
        before = dict(self._all("SELECT name, value FROM argument"))
        is_over = NUMBER in before and NUMBER in given and before[NUMBER] != given[NUMBER]
        # What holds no job is nothing to go on from: whoever mistyped the host may have the next try at once.
        if not self.holds_work() or is_over:
            for table in ("argument", "page", "done"):
                self._do(f"DELETE FROM {table}")  # noqa: S608
            for item in given.items():
                self._do("INSERT INTO argument VALUES (?, ?)", item)
        else:
            self._check(before, given)
            self._do("DELETE FROM page WHERE job NOT IN (SELECT job FROM done)")
        self.commit()

    def _check(self, before: Mapping[str, str], given: Mapping[str, str]) -> None:
        names = [name for name in {**before, **given} if before.get(name) != given.get(name)]
        if names:
            changes = "; ".join(
                f"{name} was {_short(before.get(name, 'null'))} and is {_short(given.get(name, 'null'))}"
                for name in names
            )
            raise ExportError(
                f"an export with other arguments was interrupted here: {changes}. Go on with those of before, or delete"
                f" {self.folder} to start afresh"
            )

    def holds_work(self) -> bool:
        """Whether there is a job that was read whole."""
        return bool([*self._all("SELECT 1 FROM done LIMIT 1")])

    def done(self) -> dict[int, Done]:
        """The jobs that were read whole, by number."""
        rows = self._all("SELECT job, runs, note FROM done")
        try:
            return {job: Done(runs, json.loads(note)) for job, runs, note in rows}
        except (TypeError, ValueError):
            raise ExportError(f"the journal in {self.folder} is damaged: delete it to start afresh") from None

    def add_page(self, job: int, number: int, lines: bytes) -> None:
        """Keep a page of a job: its runs, a line each."""
        self._do("INSERT INTO page VALUES (?, ?, ?)", (job, number, lines))

    def drop(self, job: int) -> None:
        """Forget the pages of a job that failed."""
        self._do("DELETE FROM page WHERE job = ?", (job,))

    def finish(self, job: int, runs: int, note: Any) -> None:
        """A job was read whole. It is safe soon after, with others that are finished meanwhile."""
        self._do("INSERT INTO done VALUES (?, ?, ?)", (job, runs, json.dumps(note)))
        if time.monotonic() - self._committed_at >= _COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        """See that all of this is safe."""
        if self._database.in_transaction:
            self._do("COMMIT")
        self._do("BEGIN IMMEDIATE")
        self._committed_at = time.monotonic()

    def pages(self, job: int) -> Iterator[bytes]:
        """The pages of a job, in order."""
        for (lines,) in self._all("SELECT lines FROM page WHERE job = ? ORDER BY number", (job,)):
            yield lines

    def close(self) -> None:
        """Leave it as it is: what was committed stays. Closing twice does nothing."""
        self._database.close()

    def leave(self) -> None:
        """The export failed: see that what was read whole is safe, or remove it if there is nothing to go on from."""
        with contextlib.suppress(ExportError):  # why the export failed matters more
            if not self.holds_work():
                return self.delete()
            self.commit()
        return self.close()

    def delete(self) -> None:
        """The export is over: remove it, with its folder."""
        # All of it while no other exporter can begin, who would do so in these files: whoever has opened them by now
        # finds that they have moved (SQLite sees that), and nothing of a later one's is removed.
        shutil.rmtree(self.new, ignore_errors=True)
        if self._database.in_transaction:
            self._do("COMMIT")
        self._do("PRAGMA journal_mode = MEMORY")  # removes SQLite's own journal
        with contextlib.suppress(PermissionError):  # on Windows
            self._path.unlink()
        self._database.close()
        with contextlib.suppress(OSError):
            if os.name == "nt":
                self._path.unlink()
            self.folder.rmdir()


def _short(value: str, most: int = 60) -> str:
    return value if len(value) <= most else value[: most - 1] + "…"
