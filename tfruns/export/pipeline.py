"""One export, from its arguments to its summary: `Export` has its steps, in the order in which they happen.

Each page is handed to the export's thread, which turns it into a piece while other pages are fetched. One page is in
the thread at a time, and the walk fetches only a limited number of pages ahead, so that memory is bounded. It is
bounded in bytes, because a response that is larger than `MAX_PAGE_BYTES` is requested again in smaller pages.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import attrs
import msgspec

from tfruns._checks import check_job_ids, checked_int, checked_job_id
from tfruns._http.options import RetryPolicy
from tfruns._text import writable
from tfruns._walk.creation import PAUSES
from tfruns._watch.poll import find_runs, side_by_side
from tfruns.client import Client
from tfruns.errors import (
    NOT_ABOUT_ONE_JOB,
    APIConnectionError,
    APIError,
    APIStatusError,
    InternalServerError,
    TfRunsError,
)
from tfruns.export.checkpoint import NUMBER, Checkpoint, Chunk, JobCheckpoint, lock_of, work_folder_of
from tfruns.export.files import WorkThread, fresh_file, locked, new_folder, write_file
from tfruns.export.formats import Format, RejectedRun, Writer, packer, unfit, zstd
from tfruns.export.results import ExportError, ExportProgress, ExportSummary
from tfruns.export.store import Store
from tfruns.export.watermark import JobState, Reading, State
from tfruns.models import BadRun, RawPage, only
from tfruns.query import MAX_PAGE_SIZE, RunFilter, given_filters

Key = tuple[str, str]  # ids of a job and of a run
QUARANTINE = ".rejected.jsonl"

_NOT_WITH_STATE = ("sort_by", "order", "status", "created_after", "created_before")

MAX_PAGE_BYTES = 3 * 2**20  # the most bytes of a response: five times the size of 1,000 ordinary runs
_FIRST_PAGE = 100  # size of the first page of an increment: most jobs have fewer new runs
_SIDE_BY_SIDE = 16  # how many jobs are read side by side for an increment
_FEW = 8  # how many of them, if there is more than one page to read
_PAUSE = 1.0  # seconds before a request is sent again whose response said that something has gone
_PIECES_AT_ONCE = 4  # how many pieces are written after each page, at most, while others are fetched

_NOT_ABOUT_THE_JOB = frozenset({408, 425, 429, 502, 503, 504})  # statuses that say nothing about the job
_ONE_TRY = RetryPolicy(max_attempts=1, patience=86_400)


@attrs.define
class Destination(ABC):
    """Where runs are written: a file, a folder of files or a table. The thread calls its methods."""

    format_: Format = attrs.field(init=False)
    takes_turns: ClassVar = False  # whether it keeps several exports apart by itself
    window_step: ClassVar[int | None] = None
    """In a window, all runs are replaced from one multiple of so many milliseconds to another."""
    replaces: bool = attrs.field(default=False, init=False)
    """Whether an empty list takes away what is there, and isn't believed at once. From `begin` on."""

    @property
    @abstractmethod
    def path(self) -> Path | str:
        """Its name in the summary and in messages, without passwords."""

    @property
    def about(self) -> Mapping[str, str]:
        """What a state must contain about it, if a state belongs to this destination alone."""
        return {}

    @abstractmethod
    def begin(self, export: "Export") -> str:
        """Get ready, before anything is read. Returns what isn't there of what earlier exports have written. Raises
        ExportError if nothing can be written there, or it belongs to other exports."""

    def open(self, scratch: Path) -> Writer:
        """What takes the pieces, while others are read: it makes the file `fresh` in that folder."""
        return self.format_.open(scratch / "fresh")

    @abstractmethod
    def finish(self, export: "Export") -> Mapping[str, Any]:
        """Put in place what the writer has made, `announced`, or change nothing. Returns what the `ExportSummary` says
        of that."""


def _real_path(given: str | os.PathLike[str] | None) -> Path | None:
    return None if given is None else Path(os.path.realpath(given))


@attrs.define(eq=False, kw_only=True)
class Export:
    # --- 1. its arguments ---

    client: Client
    destination: Destination
    filters: Mapping[str, Any]
    state_path: Path | None = attrs.field(converter=_real_path)
    replace: bool
    work_dir: Path | None = attrs.field(converter=_real_path)
    on_bad_run: str
    on_progress: Callable[[ExportProgress], object] | None
    page_size: int

    about: Mapping[str, Any] = attrs.field(init=False)
    """The control plane, the format and the filters, which are compared with those of earlier exports."""
    window: tuple[float, float] = attrs.field(init=False)
    """Which runs are meant, by their creation in milliseconds since 1970 UTC."""
    jobs: Sequence[str] = ()
    state: State | None = None
    checkpoint: Checkpoint = attrs.field(init=False)
    scratch: Path = attrs.field(init=False)  # a folder for what isn't complete
    skipped: dict[str, TfRunsError] = attrs.Factory(dict)  # the jobs that failed, by id, each with its error
    check: Callable[[], None] = attrs.field(init=False)
    """Raises if the work should end: to be called between its steps."""
    _work: Path = attrs.field(init=False)
    _end: float | None = attrs.field(init=False)
    _thread: WorkThread = attrs.Factory(WorkThread)
    _opened: contextlib.ExitStack = attrs.Factory(contextlib.ExitStack)
    """What is open on the disk. Only the thread opens and closes it, so that a cancellation leaves nothing open."""
    _few: asyncio.Semaphore = attrs.Factory(lambda: asyncio.Semaphore(_FEW))
    _jobs_done: int = 0  # as far as was reported, so that no number is left out: the thread is ahead
    _expected: int = 0  # how many runs
    _pack: Callable[[bytes], bytes] = attrs.Factory(packer)
    _writer: Writer | None = None
    _chunks: Iterator[Chunk | None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        destination, given = self.destination, self.filters
        if self.on_bad_run not in ("quarantine", "raise"):
            raise ValueError(f"on_bad_run must be one of quarantine, raise, got {self.on_bad_run!r}")
        if not isinstance(self.replace, bool):
            raise TypeError(f"replace must be True or False, got {self.replace!r}")
        checked_int(self.page_size, "page_size", least=1, most=MAX_PAGE_SIZE)
        wanted = RunFilter(**given)
        chosen = attrs.asdict(wanted) | given_filters(wanted)
        path = str(destination.path)
        if (self.state_path is not None or destination.format_.extra == "arrow") and writable(path) != path:
            raise ExportError(f"with a state, and for parquet and arrow, the path must be in UTF-8, got {path!r}")
        if self.state_path is not None:
            if any(chosen[name] is not None for name in _NOT_WITH_STATE):
                others = ", ".join(_NOT_WITH_STATE)
                raise ValueError(f"state goes with no {others}: it reads the newest runs of any status first")
            if self.state_path == destination.path:
                raise ValueError(f"state must name another file than the destination, got {str(self.state_path)!r}")
            if destination.path in self.state_path.parents:
                where = f"outside of {destination.path}, whose files are runs"
                raise ValueError(f"state must name a file {where}, got {self.state_path}")
        if self.work_dir is not None and not self.work_dir.is_dir():
            raise ExportError(f"there is no folder {self.work_dir} to work in: make it first")
        # With a state, files may get another name each time: an interrupted export goes on under the new name.
        named = destination.path if self.state_path is None or destination.about else self.state_path
        self._work = work_folder_of(named, self.work_dir)
        after, before = chosen["created_after"], chosen["created_before"]  # the same for all jobs
        if (step := destination.window_step) is not None:
            after = None if after is None else math.floor(after / step) * step
            before = None if before is None else math.ceil(before / step) * step
        self.window = (-math.inf if after is None else after, math.inf if before is None else before)
        self.filters = {**chosen, "created_after": after, "created_before": before}
        # With a timedelta, a second call means another time, and yet has the same argument.
        ago = {name: f"{value} ago" for name, value in given.items() if isinstance(value, timedelta)}
        about = {"control plane": self.client.base_url, "format": destination.format_.name, **self.filters, **ago}
        self.about = json.loads(json.dumps(about))  # as it is read from a file
        self._end = before if step is not None and "created_before" in ago else None
        self.check = self._thread.check

    @property
    def arguments(self) -> dict[str, Any]:
        """What has to be the same in a call that resumes this export."""
        digest = hashlib.sha256(json.dumps(self.jobs).encode()).hexdigest()
        return {
            **self.about,
            NUMBER: self._end if self.state is None else self.state.exports,
            "on_bad_run": None if self.on_bad_run == "quarantine" else "raise",
            "replace": self.replace or None,
            "jobs": f"{len(self.jobs):,} with the digest {digest[:12]}",
        }

    @property
    def is_increment(self) -> bool:
        """Whether only runs that are new or have changed are read."""
        return self.state is not None and self.state.exports > 0

    @property
    def is_whole(self) -> bool:
        """Whether all runs of the jobs are read."""
        left_out = {name for name, value in self.filters.items() if value is not None} - {"sort_by", "order"}
        return not self.is_increment and not left_out

    # --- 2. its course ---

    async def run(self, job_ids: Iterable[str] | AsyncIterable[str]) -> ExportSummary:
        began = time.monotonic()
        self.jobs = await _read_ids(job_ids)
        async with self._thread:
            try:
                await self._thread.run(self._open)
                self._thread.start(self.destination.format_.load)
                await self._read()
                written = await self._thread.run(self._finish)
            except BaseException:
                await self._thread.run(self._opened.close)  # jobs that were read whole are kept
                raise
        kept = self.checkpoint
        return ExportSummary(
            path=self.destination.path,
            jobs=len(kept.done),
            runs=kept.runs,
            skipped=self.skipped,
            seconds=time.monotonic() - began,
            resumed_jobs=kept.resumed_jobs,
            resumed_age=kept.age,
            rejected=kept.rejected_runs,
            **written,
        )

    def _report(self, *, is_writing: bool = False) -> None:
        kept = self.checkpoint
        if self.on_progress is not None:
            self.on_progress(
                ExportProgress(
                    jobs=len(self.jobs),
                    jobs_done=self._jobs_done,
                    jobs_skipped=len(self.skipped),
                    runs=kept.runs,
                    runs_expected=max(kept.runs, self._expected),
                    is_writing=is_writing,
                    rejected=kept.rejected_runs,
                )
            )

    # --- 3. locks, state, destination, and what an interrupted export has read ---

    def _open(self) -> None:
        destination, path = self.destination, self.state_path
        if path is not None:
            if not path.parent.is_dir():
                raise ExportError(f"there is no folder {path.parent} for the state")
            self._lock(path.with_name(path.name + ".lock"), f"with the state {path}")
        # Whatever the working folder, only one export writes there.
        folder = self._work if destination.takes_turns else work_folder_of(destination.path, None)
        self._lock(lock_of(folder), f"on {destination.path}")
        if path is not None:
            self.state = State.load(path, {**self.about, **destination.about}, is_new=self.replace)
        destination.format_.check()
        if (missing := destination.begin(self)) and self.is_increment:
            problem = f"isn't there, but by {path} it was written before: delete that to write it anew"
            raise ExportError(f"{missing} {problem}")
        self.checkpoint = Checkpoint(self._work, self.arguments)
        self._chunks = self._in_order()
        self._opened.callback(self.checkpoint.leave)
        place, scratch = destination.path, self._work / "new"
        if isinstance(place, Path) and self._work.parent != place.parent:  # on the file system of the place
            scratch = place.with_name(place.name + ".tfruns-new")
        self.scratch = self._opened.enter_context(new_folder(scratch))
        self._opened.callback(self._abandon)

    def _lock(self, path: Path, where: str) -> None:
        try:
            self._opened.enter_context(locked(path))
        except BlockingIOError:
            raise ExportError(f"another export is at work {where}") from None

    # --- 4. pages of all jobs, side by side ---

    async def _read(self) -> None:
        kept = self.checkpoint
        self._jobs_done, self._expected = kept.resumed_jobs, kept.runs
        self._report()
        known = {} if self.state is None else self.state.jobs
        left = [job_id for job_id in self.jobs if job_id not in kept.done]
        pauses = PAUSES if self.destination.replaces or self.replace else ()
        await self._read_whole([job_id for job_id in left if job_id not in known], pauses)
        known_jobs = (job_id for job_id in left if job_id in known)

        async def read_increments() -> None:
            for job_id in known_jobs:
                await self._read_increment(job_id, Reading(known[job_id]))

        await side_by_side(read_increments() for _ in range(_SIDE_BY_SIDE))
        await self._thread.run(kept.commit)
        if not kept.done:
            first = next(iter(self.skipped.values()))
            what = "the job" if len(self.skipped) == 1 else f"each of the {len(self.skipped):,} jobs"
            raise ExportError(f"{what} failed, and nothing was written to {self.destination.path}: {first}") from first
        self._report(is_writing=True)

    async def _read_whole(self, job_ids: Collection[str], pauses: Sequence[float]) -> None:
        """Read jobs side by side. After each pause, lists that are empty are read again before they replace runs."""
        left: list[str] = []
        runs_before = self.checkpoint.runs
        readings = {job_id: None if self.state is None else Reading(JobState()) for job_id in job_ids}
        has_runs: set[str] = set()
        page_size = None if self.page_size == MAX_PAGE_SIZE else self.page_size  # None: no larger than a window needs
        walk = self.client.iter_runs_for(job_ids, on_error=self._skip, page_size=page_size, **self.filters)
        async with aclosing(walk.raw_pages(keep_bad=True, max_page_bytes=MAX_PAGE_BYTES)) as pages:
            async for job_id, page in pages:
                if page is not None:
                    has_runs.add(job_id)
                    self._expected = max(self._expected, runs_before + walk.progress.runs_expected)
                    if await self._thread.run(self._keep, job_id, readings[job_id], page):
                        self._report()
                elif pauses and job_id not in has_runs:
                    left.append(job_id)
                else:
                    await self._finish_job(job_id, readings[job_id])
                del page  # before the next is made
        if left:
            await asyncio.sleep(pauses[0])
            await self._read_whole(left, pauses[1:])

    async def _finish_job(self, job_id: str, reading: Reading | None) -> None:
        await self._thread.run(self.checkpoint.finish, job_id, reading)
        self._jobs_done += 1
        self._report()

    # --- 5. increments: new runs of a job, and those that hadn't ended ---

    async def _read_increment(self, job_id: str, reading: Reading) -> None:
        first = min(_FIRST_PAGE, self.page_size)
        try:
            await self._walk(job_id, reading, page_size=first, max_runs=first)  # one page, which is enough for most
            known_until = None if reading.before.newest is None else reading.before.until
            is_end = reading.read < first and (reading.read > 0 or known_until is None)
            if not (is_end or reading.is_past):
                async with self._few:
                    if reading.read == 0:  # one empty response is no proof that a list is empty that wasn't
                        await asyncio.sleep(_PAUSE)
                    await self._thread.run(self.checkpoint.drop, job_id)
                    reading.begin()
                    await self._walk(job_id, reading, created_after=known_until)
            await self._find_open(job_id, reading)
            await self._finish_job(job_id, reading)
        except TfRunsError as error:
            await self._skip(job_id, error)

    async def _walk(self, job_id: str, reading: Reading, *, wanted: Collection[str] = (), **options: Any) -> None:
        """Read runs of one job; in a search, until those that are wanted were found."""
        walk = self.client.iter_runs(job_id, **{"page_size": self.page_size, **self.filters, **options})
        async with aclosing(walk.raw_pages(keep_bad=True, max_page_bytes=MAX_PAGE_BYTES // 2)) as pages:
            async for page in pages:
                if await self._thread.run(self._keep, job_id, reading, page):
                    self._report()
                del page
                if wanted and reading.unseen.isdisjoint(wanted):
                    return

    async def _find_open(self, job_id: str, reading: Reading) -> None:
        """Find the runs that must be found, and weren't read yet. One response is no proof that a run has gone."""
        reading.is_search = True
        await self._find(job_id, reading, reading.unseen)
        for pause in (_PAUSE,) if reading.total else PAUSES:
            if vanished := reading.vanished:
                await asyncio.sleep(pause)
                await self._find(job_id, reading, vanished)
        for run_id in sorted(reading.unseen):
            reading.mark_deleted(run_id)

    async def _find(self, job_id: str, reading: Reading, wanted: Collection[str]) -> None:
        left = set(wanted)

        async def read(some: Collection[str], **filters: Any) -> None:
            few = {"page_size": 10} if "search_prefix" in filters else {}
            await self._walk(job_id, reading, wanted=some, **few, **filters)
            left.intersection_update(reading.unseen)

        oldest = min(map(reading.created_at, left), default=None)
        await find_runs(left, read, total=reading.total, still_open=reading.still_open, created_after=oldest)

    # --- 6. a page becomes a piece ---

    def _keep(self, job_id: str, reading: Reading | None, page: RawPage) -> int:
        """Keep those runs of a page that weren't written yet, and return how many they are. (In the thread.)"""
        self.check()
        bad = [*page.bad]
        if reading is not None:
            page = reading.record(page)
            bad = reading.record_bad(bad)
        try:
            piece = self._encode(job_id, page)
        except ValueError:
            problems = [unfit(job_id, run, self.destination.format_) for run in page.data]
            for run, text, found in zip(page.data, page.texts, problems, strict=True):
                if found:
                    bad.append(BadRun(id=run.id, created_at=run.created_at, text=text, problems=found))
                    if reading is not None:
                        reading.set_aside(bad[-1])
            page = only(page, [at for at, found in enumerate(problems) if not found])
            piece = self._encode(job_id, page)
        rejected = [RejectedRun.of(job_id, run) for run in bad]
        if rejected and self.on_bad_run == "raise":
            first = rejected[0]
            raise ExportError(f"job {job_id!r}, run {first.run_id!r} can't be written: {first.why}")
        self.checkpoint.add(job_id, piece, len(page.data), [each.line for each in rejected])
        self._write(_PIECES_AT_ONCE)
        return len(page.data) + len(rejected)

    def _encode(self, job_id: str, page: RawPage) -> bytes:
        return self._pack(self.destination.format_.encode(job_id, page)) if page.data else b""

    # --- 7. pieces are written, job after job in their order ---

    def _in_order(self) -> Iterator[Chunk | None]:
        """All pieces; None while the next is of a job that isn't read whole."""
        done = self.checkpoint.done
        for job_id in self.jobs:
            while not (job_id in done or job_id in self.skipped):
                yield None
            yield from done[job_id].pieces if job_id in done else ()

    def _write(self, most: int | None) -> None:
        """Write at most so many pieces, as far as the order allows. (In the thread.)"""
        for chunk in itertools.islice(self._chunks, most):
            if chunk is None:
                return
            self.check()
            self._writer = self._writer or self.destination.open(self.scratch)
            try:
                self._writer.write(self.checkpoint.read(chunk))
            except zstd.ZstdError:
                raise self.checkpoint.damaged() from None

    def _abandon(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(Exception):  # the first error is the one to raise
                self._writer.close()
            self._writer = None

    # --- 8. jobs that fail ---

    async def _skip(self, job_id: str, error: TfRunsError) -> None:
        if isinstance(error, (*NOT_ABOUT_ONE_JOB, ExportError)) or not await self._is_of_job(job_id, error):
            raise error
        await self._thread.run(self.checkpoint.drop, job_id)
        self.skipped[job_id] = error
        self._report()

    async def _is_of_job(self, job_id: str, error: TfRunsError) -> bool:
        """Whether the server fails on this job alone: also if it responds with a 500 here, and well to another job."""
        if not _is_of_server(error):
            return True
        if not isinstance(error, InternalServerError) or error.status_code in _NOT_ABOUT_THE_JOB:
            return False
        known = () if self.state is None else self.state.jobs
        others = [*reversed(self.checkpoint.done), *known, *self.jobs]  # first those that are likely to respond well
        witness = next((each for each in others if each != job_id and each not in self.skipped), None)
        if witness is None:
            return False
        try:
            await self.client.count_runs(witness, retry=_ONE_TRY)
        except APIError as other:
            return not _is_of_server(other)
        return True

    # --- 9. the end ---

    def _finish(self) -> Mapping[str, Any]:
        """Write everything, and remove what was kept until then. (In the thread.)"""
        state, path = self.state, self.state_path
        self._write(None)
        self._writer = self._writer or self.destination.open(self.scratch)
        self.check()
        self._writer.close()
        self._writer = None
        written = self.destination.finish(self)
        if state is not None and path is not None:
            state.exports, state.writing = state.exports + 1, None
            state.jobs |= {kept.job_id: kept.known for kept in self._done if kept.known is not None}
            state.save(path)
        self.checkpoint.delete()
        self._opened.close()
        return written

    @contextlib.contextmanager
    def announced(self) -> Iterator[None]:
        """While the block puts in place what was made, or the first of it, the state says so. If that fails, a state
        that was to begin anew is as it was, like all else."""
        state, path = self.state, self.state_path
        if state is None or path is None:
            yield
            return
        before = path.read_bytes() if self.replace and path.exists() else None
        state.writing = str(self.destination.path)
        state.save(path)
        try:
            yield
        except BaseException:
            if before is not None:
                write_file(path, before)
            raise

    def put_quarantine(self, store: Store, name: str, *, is_all: bool | None = None) -> Path | str | None:
        """Put the runs that were set aside in a file beside `name`, or remove it. Returns its name if any were. Where
        older runs stay beside the new ones (`is_all` isn't None), so do older lines, but for these runs and, if all
        were read, for those of these jobs in this window."""
        if is_all is not None and self.state is not None:
            name = self.destination.format_.for_increment(name, self.state.exports)
        name, path = name + QUARANTINE, self.scratch / "rejected"
        old = store.fetch(name, self.scratch)
        with open(fresh_file(path), "wb") as file:
            if old is not None and is_all is not None and not self.replace:
                file.writelines(self._older_lines(old, self.done_jobs if is_all else ()))
            file.writelines(each.line for runs in self.rejected_runs() for each in runs)
        if path.stat().st_size:
            store.put(path, name, self.check)
        elif old is not None and _is_quarantine(old):
            store.remove(name)
        return store.path(name) if self.checkpoint.rejected_runs else None

    def _older_lines(self, path: Path, job_ids: Collection[str]) -> Iterator[bytes]:
        jobs, keys = set(job_ids), set(self.rejected_keys())
        with path.open("rb") as lines:
            for line in lines:
                with contextlib.suppress(msgspec.DecodeError):
                    old = msgspec.json.decode(line, type=RejectedRun)
                    if (old.job_id, old.run_id) in keys or (old.job_id in jobs and _is_in(self.window, old)):
                        continue
                yield line

    @property
    def _done(self) -> Iterator[JobCheckpoint]:
        """What was read of the jobs that were read whole, in their order."""
        return (self.checkpoint.done[job_id] for job_id in self.done_jobs)

    @property
    def done_jobs(self) -> list[str]:
        return [job_id for job_id in self.jobs if job_id in self.checkpoint.done]

    @property
    def deleted_runs(self) -> dict[Key, float]:
        """The runs that were written before and have to go, each with its creation in milliseconds since 1970 UTC."""
        return {(kept.job_id, run_id): at for kept in self._done for run_id, at in kept.removed.items()}

    def rejected_runs(self) -> Iterator[list[RejectedRun]]:
        """The runs that were set aside, some at a time."""
        for kept in self._done:
            for chunk in kept.rejected:
                self.check()
                lines = self.checkpoint.read(chunk).splitlines()
                yield [msgspec.json.decode(line, type=RejectedRun) for line in lines]

    def rejected_keys(self) -> list[Key]:
        return [(each.job_id, each.run_id) for runs in self.rejected_runs() for each in runs]

    def contradicted(self) -> list[Key]:
        """The runs whose older rows the server contradicts: they no longer exist, or were set aside."""
        return [*self.deleted_runs, *self.rejected_keys()]


async def _read_ids(job_ids: Iterable[str] | AsyncIterable[str]) -> list[str]:
    check_job_ids(job_ids)
    ids = [job_id async for job_id in job_ids] if isinstance(job_ids, AsyncIterable) else job_ids
    if not (found := list(dict.fromkeys(map(checked_job_id, ids)))):
        raise ValueError("job_ids is empty: an export without a job would replace what is there")
    return found


def _is_of_server(error: TfRunsError) -> bool:
    """Whether the whole server fails, maybe for a while: it ends the export, as the next job would fail too."""
    if isinstance(error, APIStatusError):
        return error.status_code in _NOT_ABOUT_THE_JOB or error.status_code >= 500
    return isinstance(error, APIConnectionError)


class _Created(msgspec.Struct):
    created_at: float = msgspec.field(name="createdAt")


def _is_quarantine(path: Path) -> bool:
    """Whether an export has written a file of this name, or somebody else."""
    with path.open("rb") as lines, contextlib.suppress(msgspec.DecodeError):
        msgspec.json.decode(next(lines, b""), type=RejectedRun)
        return True
    return False


def _is_in(window: tuple[float, float], run: RejectedRun) -> bool:
    with contextlib.suppress(msgspec.DecodeError):
        return window[0] <= msgspec.json.decode(run.text, type=_Created).created_at < window[1]
    return window == (-math.inf, math.inf)  # nothing says when it was created
