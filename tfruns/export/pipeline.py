"""One export from its start to its end: prepare, read, finish; and clean up, whatever happens."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import msgspec

from tfruns.client import Client
from tfruns.errors import TfRunsError
from tfruns.export.checkpoint import NUMBER, Checkpoint
from tfruns.export.destination import Destination, make_cache_folder
from tfruns.export.files import FileLock, new_folder
from tfruns.export.finish import Assembly, Content, Written
from tfruns.export.prepare import Request
from tfruns.export.read import Reader
from tfruns.export.results import ExportError, ExportSummary, Progress
from tfruns.export.thread import WorkThread
from tfruns.export.watermark import JobState, State


@attrs.define
class _Opened:
    """What is open on the disk. Only the thread opens and closes it, so that a cancellation leaves nothing open."""

    request: Request
    thread: WorkThread
    locks: contextlib.ExitStack = attrs.Factory(contextlib.ExitStack)
    checkpoint: Checkpoint | None = None
    content: Content | None = None
    state: State | None = None

    def open(self) -> tuple[Destination, Content]:
        """Find out where the runs go, and open what was read before."""
        request, arguments = self.request, self.request.arguments
        destination, path = request.destination, request.state_path
        if path is not None:
            if not path.parent.is_dir():
                raise ExportError(f"there is no folder {path.parent} for the state")
            self._lock(path.with_name(path.name + ".lock"), f"with the state {path}")
        lock = destination.lock(request.work)
        make_cache_folder(lock)
        self._lock(lock, f"on {destination.path}")
        if path is not None:
            self.state = State.load(path, {**request.about, **destination.about}, is_new=request.replace)
            arguments[NUMBER] = self.state.exports
        destination = destination.begin(request.claim(self.state))
        make_cache_folder(request.work)
        self.checkpoint = Checkpoint(request.work, arguments)
        scratch = self.locks.enter_context(new_folder(destination.scratch(request.work)))
        check = self.thread.check
        is_increment = self.state is not None and self.state.exports > 0
        numbers = [number for number, _ in request.jobs]
        assembly = Assembly(self.checkpoint, numbers, destination.open, scratch, check)
        self.content = Content(
            self.checkpoint,
            request.jobs,
            check,
            scratch,
            assembly,
            is_increment=is_increment,
            replace=request.replace,
            is_whole=not is_increment and not request.is_filtered,
        )
        return destination, self.content

    def _lock(self, path: Path, where: str) -> None:
        try:
            self.locks.callback(FileLock(path).release)
        except BlockingIOError:
            raise ExportError(f"another export is at work {where}") from None

    def leave(self) -> None:
        """Close everything: jobs that were read whole are kept."""
        with self.locks:
            if self.content is not None:
                self.content.assembly.abandon()
            if self.checkpoint is not None:
                self.checkpoint.leave()

    def finish(self, destination: Destination) -> Written:
        """Write everything, and remove what was kept until then: the export is over."""
        content, state = self.content, self.state
        assert content is not None  # noqa: S101  # for the type checker
        if state is not None:
            state.writing = str(destination.path)
            state.save()
        written = destination.finish(content)
        if state is not None:
            state.exports, state.writing = state.exports + 1, None
            notes = {
                job_id: content.checkpoint.done[number].note
                for number, job_id in content.jobs
                if number in content.checkpoint.done
            }
            state.jobs |= {job_id: msgspec.convert(note["known"], JobState) for job_id, note in notes.items()}
            state.save()
        with self.locks:
            content.checkpoint.delete()
            self.checkpoint = self.content = None
        return written


async def run_export(client: Client, request: Request, report: Callable[[Any], object] | None) -> ExportSummary:
    """Do what was requested. For the errors see `export_runs`."""
    began = time.monotonic()
    async with WorkThread() as thread:
        opened = _Opened(request, thread)
        try:
            destination, content = await thread.run(opened.open)
            thread.start(destination.format_.load)
            summary = await _read_and_finish(client, opened, destination, content, report)
        except BaseException:
            await thread.run(opened.leave)
            raise
    return attrs.evolve(summary, seconds=time.monotonic() - began)


async def _read_and_finish(
    client: Client,
    opened: _Opened,
    destination: Destination,
    content: Content,
    report: Callable[[Any], object] | None,
) -> ExportSummary:
    request, state, checkpoint, jobs = opened.request, opened.state, content.checkpoint, content.jobs
    progress = Progress(len(jobs), report)
    before = len(checkpoint.done)
    progress.resumed(
        before,
        sum(job.runs for job in checkpoint.done.values()),
        sum(job.rejected_runs for job in checkpoint.done.values()),
    )
    left = [(number, job_id) for number, job_id in jobs if number not in checkpoint.done]
    known = {} if state is None else state.jobs
    reader = Reader(
        client,
        content,
        destination.format_,
        destination.replaces and not request.is_filtered,
        request.filters,
        opened.thread,
        progress,
        request.quarantines,
        request.page_size,
        [job_id for _, job_id in sorted(jobs, key=lambda job: (job[0] not in checkpoint.done, job[1] not in known))],
    )
    await reader.read_all([job for job in left if job[1] not in known], is_first=state is not None)
    await reader.read_new([job for job in left if job[1] in known], known)
    if not checkpoint.done:
        raise _every_job_failed(reader.skipped, destination.path)
    progress.writing()
    done = [*checkpoint.done.values()]
    written = await opened.thread.run(opened.finish, destination)
    rejected = sum(job.rejected_runs for job in done)
    return ExportSummary(
        path=destination.path,
        jobs=len(done),
        runs=sum(job.runs for job in done),
        skipped=reader.skipped,
        size=written.size,
        seconds=0,
        resumed_jobs=before,
        resumed_age=checkpoint.age,
        rejected=rejected,
        removed_files=written.removed_files,
        removed_rows=written.removed_rows,
        quarantine=destination.quarantine if rejected else None,
    )


def _every_job_failed(skipped: dict[str, TfRunsError], path: Path | str) -> ExportError:
    first = next(iter(skipped.values()))
    what = "the job" if len(skipped) == 1 else f"each of the {len(skipped):,} jobs"
    error = ExportError(f"{what} failed, and nothing was written to {path}: {first}")
    error.__cause__ = first
    return error
