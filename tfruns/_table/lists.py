"""Runs as tables for notebooks and other libraries: those of a walk that was read, and those of lists."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tfruns._payload import Interchange
from tfruns._text import MOST_SHOWN, counted, html_table
from tfruns.models import JobRun

if TYPE_CHECKING:
    import pyarrow

_T = TypeVar("_T")
_BATCH = 10_000  # rows: a column of texts holds at most 2 GiB


def _arrow_stream(runs: Sequence[JobRun], requested_schema: object) -> object:
    from tfruns._table.arrow import SCHEMA, record_batch

    batch: Any = record_batch("", runs).select(SCHEMA.names[1:])
    return batch.__arrow_c_stream__(requested_schema)


Interchange.arrow_stream = _arrow_stream


class _Collected(list[_T]):
    _item: Any

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Any) -> Any:
        from pydantic_core import core_schema as core

        def validate(value: Any, read: Callable[[Any], Any]) -> Any:
            return value if isinstance(value, cls) else cls(read(value))

        return core.no_info_wrap_validator_function(validate, core.list_schema(handler.generate_schema(cls._item)))

    def _columns(self) -> tuple[Sequence[str], Sequence[JobRun]]:
        raise NotImplementedError

    def to_arrow(self) -> "pyarrow.Table":
        """These runs, as one Arrow table with `tfruns.arrow.SCHEMA` (extra `arrow`).

        Returns:
            The table, its rows in the order of this list.

        Raises:
            ImportError: pyarrow isn't installed.
            ValueError: a number is beyond what 64 bits hold.

        Example:
            >>> runs = await client.iter_runs("my-job-id", status="FAILED").collect()
            >>> table = runs.to_arrow()
            >>> table.num_rows == len(runs)
            True
        """
        from tfruns._table.arrow import mixed_batch, table

        job_ids, runs = self._columns()
        places = range(0, len(self), _BATCH)
        return table([mixed_batch(job_ids[at : at + _BATCH], runs[at : at + _BATCH]) for at in places])

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        table: Any = self.to_arrow()
        return table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        shown = repr(self[:MOST_SHOWN])
        return shown if len(self) <= MOST_SHOWN else f"{shown[:-1]}, … and {len(self) - MOST_SHOWN:,} more]"


class RunList(_Collected[JobRun]):
    """The runs of a job, as `RunPaginator.collect` returns them: a list that is a table, too.

    A notebook shows it as one, and `to_arrow` makes one. Whatever reads Arrow's streams can read it:
    `pyarrow.RecordBatchReader.from_stream(runs)`. (Polars, pandas and DuckDB would take it for a list of objects: give
    them `runs.to_arrow()`.)

    Attributes:
        job_id: the job.

    Example:
        >>> runs = await client.iter_runs("my-job-id", status="FAILED").collect()
        >>> print(len(runs) == runs.to_arrow().num_rows, runs.job_id)
        True my-job-id
    """

    _item = JobRun

    def __init__(self, runs: Iterable[JobRun] = (), *, job_id: str = "") -> None:
        super().__init__(runs)
        self.job_id = job_id

    def _columns(self) -> tuple[Sequence[str], Sequence[JobRun]]:
        return [self.job_id] * len(self), self

    def _repr_html_(self) -> str:
        return html_table(self, counted(len(self), "run"))


class JobsRunList(_Collected[tuple[str, JobRun]]):
    """The runs of many jobs, as `JobsPaginator.collect` returns them: `(job_id, run)` for each. See `RunList`.

    Example:
        >>> runs = await client.iter_runs_for(["job-a", "job-b"], status="FAILED").collect()
        >>> for job_id, run in runs:
        ...     print(job_id, run.name, run.error)
    """

    _item = tuple[str, JobRun]

    def _columns(self) -> tuple[Sequence[str], Sequence[JobRun]]:
        return [job_id for job_id, _ in self], [run for _, run in self]

    def _repr_html_(self) -> str:
        job_ids, runs = self._columns()
        return html_table(runs, counted(len(self), "run"), job_ids)
