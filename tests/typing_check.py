"""What a type checker tells the users of tfruns. mypy and pyright read this file; nothing runs it.

Each `ignore` below stands where the checkers must object: both complain of one that isn't needed.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Unpack, assert_type

import attrs

import tfruns
from tfruns.export import ExportProgress, ExportSummary, export_runs
from tfruns.otel import instrument
from tfruns.sandbox import Clock, Fault, RateLimit, Sandbox
from tfruns.types import Filters, RunFilter, Status

if TYPE_CHECKING:
    import pyarrow


async def one_job(client: tfruns.Client) -> None:
    runs = client.iter_runs("job", status=["FAILED", tfruns.JobRunStatus.RUNNING], version_numbers=3, page_size=100)
    assert_type(runs, tfruns.RunPaginator)
    async for run in runs:
        assert_type(run, tfruns.JobRun)
    async for page in runs.pages():
        assert_type(page, tfruns.RunPage)
    async for raw in runs.raw_pages():
        assert_type(raw, tfruns.RawPage)
        assert_type(raw.texts, tuple[bytes, ...])
    assert_type(await runs.collect(), tfruns.RunList)
    collected: list[tfruns.JobRun] = await runs.collect()
    assert_type(collected[0], tfruns.JobRun)
    assert_type(await runs.first(), tfruns.JobRun | None)
    assert_type(await runs.count(), int)
    assert_type(await runs.fetch(0, 10), tfruns.RunPage)
    assert_type(await client.list_runs("job", limit=10, offset=20), tfruns.RunPage)
    assert_type(await client.count_runs("job", triggered_by=["a", "b"]), int)


class Source(Protocol):
    """What a user's own code needs of a client."""

    def iter_runs(self, job_id: str, /) -> AsyncIterator[tfruns.JobRun]: ...


async def iterators(client: tfruns.Client) -> None:
    source: Source = client
    assert_type(await anext(source.iter_runs("job")), tfruns.JobRun)
    async with aclosing(client.iter_runs("job")) as runs:
        assert_type(runs, tfruns.RunPaginator)
    async with aclosing(client.iter_runs_for(["job"])) as several:
        assert_type(await anext(several), tuple[str, tfruns.JobRun])


async def filters(client: tfruns.Client, text: str, statuses: list[Status], **given: Unpack[Filters]) -> None:
    client.iter_runs("job", status=tfruns.JobRunStatus(text), sort_by="startTime", order=tfruns.SortDirection.DESC)
    client.iter_runs("job", status=statuses, triggered_by={"a", "b"}, version_numbers=[1, 2.5, "3"])
    client.iter_runs_for(["job"], **given)
    assert_type(await client.count_runs("job", **given), int)
    chosen = RunFilter(status=["FAILED", tfruns.JobRunStatus.RUNNING], created_after=timedelta(hours=1))
    assert_type(chosen.status, tuple[str, ...] | None)
    assert_type(await client.list_runs("job", filter=chosen), tfruns.RunPage)
    await export_runs(client, ["job"], "runs.csv", filter=chosen)
    client.watch_runs("job", status="FAILED", search_prefix="a")


async def arrow(runs: tfruns.RunPaginator) -> None:
    table: pyarrow.Table = await runs.to_arrow()
    assert_type(table.num_rows, int)
    async for batch in runs.arrow_batches():
        assert_type(batch.num_rows, int)


async def many_jobs(client: tfruns.Client, ids: AsyncGenerator[str]) -> None:
    runs = client.iter_runs_for(["a", "b"], on_error="skip", ordered=True)
    async for found in runs:
        assert_type(found, tuple[str, tfruns.JobRun])
    async for job_id, page in runs.raw_pages():
        assert_type(job_id, str)
        assert_type(page, tfruns.RawPage | None)
    assert_type(runs.skipped, dict[str, tfruns.TfRunsError])
    assert_type(runs.progress, tfruns.JobsProgress)
    client.iter_runs_for(ids, on_error=lambda job_id, error: print(job_id, error.args))

    async def tell(job_id: str, error: tfruns.TfRunsError) -> None:
        """It may be async."""

    client.iter_runs_for(ids, on_error=tell)


async def follow(client: tfruns.Client) -> None:
    changes = client.watch_runs(["a", "b"], interval=(1, 10), start="open", on_error="skip")
    assert_type(changes, tfruns.RunWatch)
    assert_type(changes.skipped, dict[str, tfruns.TfRunsError])
    async for change in changes:
        assert_type(change.kind, tfruns.ChangeKind)
        assert_type(change.run, tfruns.JobRun)
        assert_type(change.before, tfruns.JobRun | None)
        assert_type(change.resume_token, str)
    assert_type(await client.wait_for_run("job", "run", timeout=60), tfruns.JobRun)


async def settings() -> None:
    async def key() -> str:
        return "key"

    async with tfruns.Client("https://acme.truefoundry.cloud", key, retry=tfruns.RetryPolicy(max_attempts=3)) as client:
        assert_type(client, tfruns.Client)
        assert_type(client.stats(), tfruns.ClientStats)
        client.add_hooks(on_failure=lambda event: print(event.attempts, event.error))
        instrument(client)
        assert_type(client.base_url, str)
    tfruns.Client(api_key=lambda: "key", on_request=lambda event: assert_type(event, tfruns.RequestEvent))
    tfruns.Client(on_response=lambda event: assert_type(event.status_code, int))
    tfruns.Client(on_retry=lambda event: assert_type(event.error, Exception))


async def export(client: tfruns.Client, path: Path) -> None:
    def tell(progress: ExportProgress) -> None:
        assert_type(progress.runs, int)

    summary = await export_runs(client, ["a"], path, format="csv", on_progress=tell)
    assert_type(summary, ExportSummary)
    assert_type(summary.path, Path | str)
    assert_type(summary.skipped, Mapping[str, tfruns.TfRunsError])


def fields(run: tfruns.JobRun, subject: tfruns.Subject, page: tfruns.RunPage) -> None:
    assert_type(run.id, str)
    assert_type(run.status, tfruns.JobRunStatus)
    assert_type(run.status.is_terminal, bool)
    assert_type(run.created_at, int | float)
    assert_type(run.created, datetime)
    assert_type(run.end_time, int | float | None)
    assert_type(run.ended, datetime | None)
    assert_type(run.duration, int | None)
    assert_type(run.exit_code, int | None)
    assert_type(run.triggered_by_subject, tfruns.Subject | None)
    assert_type(run.to_dict(), dict[str, Any])
    assert_type(subject.subject_type, tfruns.SubjectType)
    assert_type(subject.subject_slug, str | None)
    assert_type(page.data, tuple[tfruns.JobRun, ...])
    assert_type(page.pagination.total, int)
    assert_type(page.pagination.limit, int | None)


def made_by_hand() -> None:
    subject = tfruns.Subject(subject_id="s", subject_type=tfruns.SubjectType.USER)
    run = tfruns.JobRun(
        id="1",
        name="run",
        application_name="app",
        deployment_version="3",
        created_at=1.5,
        command="python",
        status=tfruns.JobRunStatus.RUNNING,
        triggered_by_subject=subject,
    )
    assert_type(run, tfruns.JobRun)
    assert_type(attrs.evolve(run, status=tfruns.JobRunStatus.FAILED), tfruns.JobRun)
    assert_type(tfruns.RunPage((run,), tfruns.Pagination(1, limit=10)), tfruns.RunPage)

    class Named(tfruns.JobRun):
        @property
        def label(self) -> str:
            return f"{self.name} {self.status}"

    def show(named: Named) -> None:
        assert_type(named.label, str)
        assert_type(named.status, tfruns.JobRunStatus)


def errors(error: tfruns.TfRunsError) -> None:
    match error:
        case tfruns.RateLimitError():
            assert_type(error.status_code, int)
            assert_type(error.message, str)
            assert_type(error.headers, Mapping[str, str])
        case tfruns.DecodeError():
            assert_type(error.problems, tuple[tfruns.FieldProblem, ...])
        case tfruns.RunFailedError():
            assert_type(error.run, tfruns.JobRun | None)
        case tfruns.APIError():
            assert_type(error.offset, int)
        case tfruns.IncompleteWalkError():
            assert_type(error.seen, int)


async def sandbox() -> None:
    async with Sandbox(
        ["a"], runs=5, faults=["status=503", Fault(nth=1, latency=1)], rate_limit=RateLimit(per_second=5)
    ) as sandbox_:
        assert_type(sandbox_, Sandbox)
        assert_type(sandbox_.clock, Clock)
        assert_type(sandbox_.job_ids, tuple[str, ...])
        assert_type(await sandbox_.create_run("a", status="FAILED"), tfruns.JobRun)
        sandbox_.faults.append("status=503")
        sandbox_.faults += ["latency=1", Fault(nth=1, latency=1)]
        assert_type(sandbox_.faults[0], Fault)


async def what_must_be_refused(client: tfruns.Client, run: tfruns.JobRun) -> None:
    client.iter_runs("job", page_size="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.iter_runs("job", status="FIALED")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.iter_runs("job", status=["FAILED", "fialed"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    client.iter_runs("job", sort_by="createdAt")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.iter_runs("job", order="down")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.iter_runs_for(["job"], status="FIALED")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.list_runs("job", order="down")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.list_runs("job", created_after=5.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.count_runs("job", status="FIALED")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.count_runs("job", stauts="FAILED")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.watch_runs("job", status="FIALED")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await export_runs(client, ["job"], "runs.csv", status="FIALED")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RunFilter(status="FIALED")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tfruns.Client(host="https://acme.truefoundry.cloud")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.iter_runs("job", status=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.iter_runs("job", stauts="FAILED")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.iter_runs("job", 100)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    client.iter_runs_for(["a"], on_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.watch_runs("a", start="newest")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for _ in client.iter_runs("job"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    tfruns.JobRun("1", "run")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    tfruns.JobRun(id="1", name="run")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    tfruns.Subject("s", tfruns.SubjectType.USER)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    tfruns.Pagination("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tfruns.Pagination(total=3, page=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    run.name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    run.started_at  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018
    tfruns.Client(on_retry=lambda a, b: None)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType]
    tfruns.Client(retry=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tfruns.Cleint()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    page: Awaitable[tfruns.RunPage] = client.list_runs("job")
    page.data  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018
