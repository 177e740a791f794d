"""Tables of runs in SQLite, DuckDB and PostgreSQL: one road for all three, and what they do differently in a dialect.

The new rows are staged first: in a database of their own in the working folder, or in PostgreSQL in a temporary table.
Then, in one transaction, they replace the rows of the same runs, by job and id, and rows that the server contradicts
are removed: those of runs that it has deleted, and of runs that had to be set aside. Every other row, table, view and
index stays. A database that isn't there yet is the staged one, which is put in its place.

So a kill at any moment leaves the table as it was, and writing the same runs once more makes no difference.
"""

# ruff: noqa: S608  # names are quoted, and values are parameters

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from tfruns._table.columns import COLUMNS, JOB_ID, Kind
from tfruns.export.files import StoppedError
from tfruns.export.pipeline import Export, Key
from tfruns.export.results import ExportError

_KINDS = {JOB_ID: Kind.WORD, **{column.name: column.kind for column in COLUMNS}}
NAMES = ", ".join(_KINDS)
REST = [name for name in _KINDS if name not in (JOB_ID, "id")]
_MOST_NAMED = 4  # how many problems of a table an error names

Columns = dict[str, tuple[str, bool, bool]]
"""The columns of a table that is there: its type, whether it may be null, and whether it has a default."""


class Table(ABC):
    """The table of runs, and the staged rows, by their quoted names, in a transaction that is open."""

    kinds: ClassVar[Mapping[str, Kind]] = _KINDS
    mandatory: ClassVar = frozenset({JOB_ID, *(column.name for column in COLUMNS if not column.is_nullable)})
    addable: ClassVar = frozenset(column.name for column in COLUMNS if column.is_nullable)
    """The columns that are added where they are missing: a table of an older version lacks the newest fields."""
    key: ClassVar = (JOB_ID, "id")
    types: ClassVar[Mapping[Kind, str]]
    as_good: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # for a type, others that hold as much
    needs_key: ClassVar = True
    differs: ClassVar = "IS DISTINCT FROM"
    ends: ClassVar = ""  # what follows the columns of a new table
    instead: ClassVar = "Export to another file"  # what to do where the table doesn't fit

    def __init__(self, failed: str, table: str, staged: str) -> None:
        self.failed = failed  # what a message begins with
        self.table = table
        self.staged = staged

    @abstractmethod
    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement, and return its rows."""

    @abstractmethod
    def find(self) -> tuple[Columns, bool] | None:
        """The columns of the table, and whether two rows can't have the same key; None if it isn't there."""

    @abstractmethod
    def delete(self, keys: Sequence[Key]) -> int:
        """Delete the rows of some runs; returns how many there were."""

    @classmethod
    def definition(cls, table: str) -> str:
        columns = [
            f"{name} {cls.types[kind]}{' NOT NULL' * (name in cls.mandatory)}" for name, kind in cls.kinds.items()
        ]
        key = [f"PRIMARY KEY ({', '.join(cls.key)})"] * cls.needs_key
        return f"CREATE TABLE {table} ({', '.join(columns + key)}){cls.ends}"

    def is_there(self) -> bool:
        """Whether the table is there. One that doesn't fit is an error, but for columns that can be added."""
        if (found := self.find()) is None:
            return False
        if problems := [*self._problems(*found)]:
            raise self.refused(*problems)
        for name in self.kinds.keys() - found[0].keys():
            self.run(f"ALTER TABLE {self.table} ADD COLUMN {name} {self.types[self.kinds[name]]}")
        return True

    def _problems(self, columns: Columns, has_key: bool) -> Iterator[str]:
        for name, kind in self.kinds.items():
            type_, is_nullable, _ = columns.get(name, ("", True, True))
            if not type_:
                if name not in self.addable:
                    yield f"it has no column {name} {self.types[kind]}"
            elif type_ not in (self.types[kind], *self.as_good.get(self.types[kind], ())):
                yield f"its column {name} is {type_}, not {self.types[kind]}"
            elif name not in self.mandatory and not is_nullable:
                yield f"its column {name} may not be null"
        for name, (_, is_nullable, has_default) in columns.items():
            if name not in self.kinds and not is_nullable and not has_default:
                yield f"its column {name} may not be null and has no default"
        if self.needs_key and not has_key:
            yield f"it has no primary key ({', '.join(self.key)})"

    def refused(self, *problems: str) -> ExportError:
        more = f"; and {len(problems) - _MOST_NAMED:,} more" if len(problems) > _MOST_NAMED else ""
        return ExportError(f"{self.failed}: {'; '.join(problems[:_MOST_NAMED])}{more}. {self.instead}")

    def write(self, export: Export) -> int:
        """Write the staged rows; returns how many rows of other runs are gone."""
        if not self.is_there():
            self.run(self.definition(self.table))
        removed = 0
        if export.replace:
            ((removed,),) = self.run(f"SELECT count(*) FROM {self.table} AS old WHERE NOT {same_as(self.staged)}")
            self.run(f"DELETE FROM {self.table}")
        elif keys := export.contradicted():
            removed = self.delete(keys)
        self.upsert()
        return int(removed)

    def upsert(self) -> None:
        """Put the staged rows in the place of those of the same runs, where they differ."""
        new, old = (", ".join(f"{name}.{column}" for column in REST) for name in ("excluded", "old"))
        self.run(
            f"INSERT INTO {self.table} AS old ({NAMES}) SELECT {NAMES} FROM {self.staged} WHERE true"
            f" ON CONFLICT ({', '.join(self.key)}) DO UPDATE"
            f" SET {', '.join(f'{name} = excluded.{name}' for name in REST)} WHERE ({old}) {self.differs} ({new})"
        )


def same_as(table: str, key: tuple[str, str] = Table.key) -> str:
    """The condition that the run of a row `old`, which has this key, is in a table of runs."""
    return f"EXISTS (SELECT 1 FROM {table} AS new WHERE new.{JOB_ID} = old.{key[0]} AND new.id = old.{key[1]})"


@contextlib.contextmanager
def stopped_by(check: Callable[[], None], cancel: Callable[[], object]) -> Iterator[None]:
    """While the block runs, `cancel` ends its statement soon after `check` begins to raise."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            try:
                check()
            except StoppedError:
                with contextlib.suppress(Exception):
                    cancel()

    watcher = threading.Thread(target=watch, name="tfruns-export-watch")
    watcher.start()
    try:
        yield
    except Exception:
        check()  # a statement that was cancelled isn't a failure
        raise
    finally:
        over.set()
        watcher.join()
