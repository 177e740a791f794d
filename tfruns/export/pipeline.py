"""One export from its start to its end: prepare, read, finish; and clean up, whatever happens."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
import msgspec

from tfruns.client import Client
from tfruns.errors import TfRunsError
from tfruns.export.destination import make_cache_folder
from tfruns.export.errors import ExportError
from tfruns.export.files import FileLock
from tfruns.export.finish import Content, Written
from tfruns.export.parts import Parts
from tfruns.export.prepare import Request, Target, choose_target
from tfruns.export.progress import ExportSummary, Progress
from tfruns.export.read import Reader
from tfruns.export.thread import WorkThread
from tfruns.export.watermark import JobState


@attrs.define
class _Opened:
    """What is open on the disk. Only the thread opens and closes it, so that a cancellation leaves nothing open."""

    request: Request
    state_lock: FileLock | None = None
    parts: Parts | None = None

    def open(self) -> tuple[Target, Parts]:
        """Find out where the runs go, and open the parts."""
        if (state := self.request.state_path) is not None:
            if not state.parent.is_dir():
                raise ExportError(f"there is no folder {state.parent} for the state")
            try:
                self.state_lock = FileLock(state.with_name(state.name + ".lock"))
            except BlockingIOError:
                raise ExportError(f"another export is at work with the state {state}") from None
        target = choose_target(self.request)
        make_cache_folder(self.request.work)
        self.parts = Parts(self.request.work, target.arguments)
        return target, self.parts

    def leave(self) -> None:
        """Close everything: jobs that were read whole are kept."""
        try:
            if self.parts is not None:
                self.parts.leave()
        finally:
            self._unlock()

    def delete(self) -> None:
        """Remove everything: the export is over."""
        assert self.parts is not None  # noqa: S101  # for the type checker
        self.parts.delete()
        self.parts = None
        self._unlock()

    def _unlock(self) -> None:
        if self.state_lock is not None:
            self.state_lock.release()


async def run_export(client: Client, request: Request, report: Callable[[Any], object] | None) -> ExportSummary:
    """Do what was requested. For the errors see `export_runs`."""
    began = time.monotonic()
    opened = _Opened(request)
    async with WorkThread() as thread:
        try:
            target, parts = await thread.run(opened.open)
            summary = await _read_and_finish(client, request, target, parts, thread, report)
            await thread.run(opened.delete)
        except BaseException:
            await thread.run(opened.leave)
            raise
    return attrs.evolve(summary, seconds=time.monotonic() - began)


async def _read_and_finish(
    client: Client,
    request: Request,
    target: Target,
    parts: Parts,
    thread: WorkThread,
    report: Callable[[Any], object] | None,
) -> ExportSummary:
    jobs, state = request.jobs, target.state
    progress = Progress(len(jobs), report)
    before = len(parts.done)
    progress.resumed(
        before, sum(job.runs for job in parts.done.values()), sum(job.rejected_runs for job in parts.done.values())
    )
    left = [(number, job_id) for number, job_id in jobs if number not in parts.done]
    known = {} if state is None else state.jobs
    reader = Reader(
        client,
        parts,
        request.form,
        request.filters,
        thread,
        progress,
        request.quarantines,
        request.page_size,
        [job_id for _, job_id in sorted(jobs, key=lambda job: (job[0] not in parts.done, job[1] not in known))],
    )
    await reader.read_all([job for job in left if job[1] not in known], is_first=state is not None)
    await reader.read_new([job for job in left if job[1] in known], known)
    if jobs and not parts.done:
        raise _every_job_failed(reader.skipped, target.destination.path)
    progress.writing()

    def finish() -> Written:
        written = target.destination.finish(
            Content(
                parts,
                jobs,
                thread.check,
                _gone(parts, jobs) if target.is_increment else None,
                request.replace,
                is_whole=not target.is_increment and not request.is_filtered,
            ),
            request.work,
        )
        if state is not None:
            state.exports += 1
            notes = {job_id: parts.done[number].note for number, job_id in jobs if number in parts.done}
            state.jobs |= {job_id: msgspec.convert(note["known"], JobState) for job_id, note in notes.items()}
            state.save()
        return written

    written = await thread.run(finish)
    rejected = sum(job.rejected_runs for job in parts.done.values())
    return ExportSummary(
        path=target.destination.path,
        jobs=len(parts.done),
        runs=sum(job.runs for job in parts.done.values()),
        skipped=reader.skipped,
        size=written.size,
        seconds=0,
        resumed_jobs=before,
        rejected=rejected,
        removed_files=written.removed_files,
        removed_rows=written.removed_rows,
        quarantine=target.destination.quarantine if rejected else None,
    )


def _gone(parts: Parts, jobs: Iterable[tuple[int, str]]) -> dict[str, dict[str, float]]:
    """The runs that were written before and must not be there any more, by job and id, each with its creation."""
    return {job_id: parts.done[number].note["removed"] for number, job_id in jobs if number in parts.done}


def _every_job_failed(skipped: dict[str, TfRunsError], path: Path | str) -> ExportError:
    first = next(iter(skipped.values()))
    what = "the job" if len(skipped) == 1 else f"each of the {len(skipped):,} jobs"
    error = ExportError(f"{what} failed, and nothing was written to {path}: {first}")
    error.__cause__ = first
    return error
