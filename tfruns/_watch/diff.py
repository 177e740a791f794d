"""What changed in a job between one poll and the next. No I/O.

Why no change is lost: a poll holds the newest runs without a gap, down to where the snapshot knows all
(`since`), and every open run further down. A run above the snapshot's floor that the snapshot doesn't hold
is new. Changes are reported oldest run first, so that a snapshot between two changes has a floor too: below all runs
that weren't reported yet.

Why no change is reported that didn't happen: a response may come from an older or an empty state of the server. That
something was created or has ended is proof in itself; that something is gone, or as it was before, isn't.
`steps_back` finds what a poll says of the second kind, and `compare` leaves out what isn't believed yet.
"""

import enum
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import attrs
import msgspec
from msgspec.structs import replace

from tfruns.models import JobRun, JobRunStatus

KEPT = 50  # ended runs, the newest, in a snapshot; more only if several were created at once
_OVERLAP = 20  # known runs below the new ones in a poll: a run may show up late, behind newer ones
_MOST_DELETED = 1_000  # deleted runs in a snapshot: an older state of the server shows them again


class ChangeKind(enum.StrEnum):
    """What happened to a run.

    Example:
        >>> tfruns.ChangeKind("finished") is tfruns.ChangeKind.FINISHED
        True
    """

    APPEARED = "appeared"
    """It is new, and hasn't ended yet."""
    CHANGED = "changed"
    """A field other than `duration` changed, most often the status; it hasn't ended yet."""
    FINISHED = "finished"
    """It has ended, successfully or not. If it is new as well, `before` is None."""
    DELETED = "deleted"
    """It isn't there any more."""

    __hash__ = str.__hash__


@attrs.frozen(kw_only=True)
class RunChange:
    """What happened to a run between two polls of its job.

    Example:
        >>> async for change in client.watch_runs("job-a", start="existing"):
        ...     print(change.kind, change.run.name, change.run.status)
        ...     break
        >>> with open("watch.token", "w") as file:
        ...     length = file.write(change.resume_token)
    """

    kind: ChangeKind
    """What happened: `appeared`, `changed`, `finished` or `deleted`."""
    job_id: str
    """The job."""
    run: JobRun
    """The run as it is now; a deleted one as it was seen last."""
    before: JobRun | None
    """The run as it was reported last; None if it is new."""
    _make_token: Callable[[], str] = attrs.field(default=str, eq=False, repr=False, alias="make_token")

    @property
    def resume_token(self) -> str:
        """The position of the watch after this change: give it to `Client.watch_runs` to go on from here.

        A plain ASCII string. It grows with the jobs watched: it holds the open runs and up to 50 ended ones of each,
        compressed. It is made each time this property is read: store one now and then rather than each.

        If several jobs are watched, it stands for all of them, including those that couldn't be polled yet.
        """
        return self._make_token()


@attrs.frozen
class PollResult:
    runs: Mapping[str, JobRun | None]
    """By id; None for a run that was searched for by itself and wasn't found."""
    floor: float
    """They hold every run that was created after this time, in ms since 1970; maybe -inf for all runs, or inf."""
    total: int = 0
    """How many runs there are, by the server's count."""

    @property
    def found(self) -> list[JobRun]:
        return [run for run in self.runs.values() if run is not None]

    @property
    def latest(self) -> float:
        """The newest creation or end of a run in it, in ms since 1970: no later than the server's clock at the poll."""
        return max((max(run.created_at, _ended_at(run)) for run in self.found), default=-math.inf)


class Beginning(msgspec.Struct, frozen=True):
    """How the watch of a job begins: used until its first poll has succeeded. Times are in ms since 1970."""

    since: float
    """Runs created at this time or later are reported."""
    is_open_reported: bool = False
    """Whether the open runs are reported, too."""
    watermark: float | None = None
    """Runs that have ended since this time are reported, too. None until reports begin: till then a first poll shows
    the runs that existed when the watch began."""

    def reports(self, run: JobRun) -> bool:
        """Whether a run that the first poll finds is reported."""
        if run.created_at >= self.since or (self.is_open_reported and not run.status.is_terminal):
            return True
        return self.watermark is not None and _ended_at(run) >= self.watermark


def _ended_at(run: JobRun) -> float:
    """When the run ended, in ms since 1970; -inf if it hasn't, or the server doesn't say."""
    if not run.status.is_terminal:
        return -math.inf
    if run.end_time is not None:
        return run.end_time
    return -math.inf if run.duration is None else run.created_at + run.duration * 1000


_STAGES = {
    JobRunStatus.CREATED: 0,
    JobRunStatus.SCHEDULED: 1,
    JobRunStatus.TERMINATION_REQUESTED: 3,
    JobRunStatus.TERMINATING: 4,
    **{status: 5 for status in JobRunStatus if status.is_terminal},
}


def progress(run: JobRun) -> tuple[float, ...]:
    """Where a run stands in its life. It never becomes less, except as `steps_back` says."""
    stage = _STAGES.get(run.status, 2)
    return run.created_at, run.total_retries, stage, 0 if run.status.is_terminal else run.duration or 0


class Snapshot(msgspec.Struct, frozen=True):
    """What a watch knows of a job."""

    known: Mapping[str, JobRun | None]
    """Runs by id: those that were created after the floor, and older ones that are followed because they haven't ended.
    One that wasn't reported yet is None, and followed until it is."""
    floor: float
    """In ms since 1970: every run created until then has ended, unless it is followed."""
    deleted: Mapping[str, float] = msgspec.field(default_factory=dict)
    """The runs that were reported as deleted last, by id, each with its creation in ms since 1970."""
    began_empty: tuple[Beginning, float] | None = None
    """If no poll has found a run yet: how the watch of the job began, and when, in seconds since 1970."""
    doubted: frozenset[str] = frozenset()
    """The known runs of which something isn't believed or reported yet: the next poll searches for them."""

    @property
    def since(self) -> float:
        """A poll reads all runs created at this time or later, in ms since 1970: those before are known."""
        created = sorted((run.created_at for run in self.known.values() if run is not None), reverse=True)
        last = max([self.floor, *created[_OVERLAP - 1 : _OVERLAP]])
        # A new run may stand behind known ones that were created at the same time as the newest known one.
        return last if last in created[:1] else math.nextafter(last, math.inf)

    def was_deleted(self, run: JobRun) -> bool:
        """Whether this run was reported as deleted; not one that was created again later, with the same id."""
        return run.created_at <= self.deleted.get(run.id, -math.inf)


@attrs.frozen
class Found:
    """What a poll has found: the changes since the snapshot before it, oldest run first, and the snapshot after it."""

    before: Snapshot
    changes: Sequence[RunChange]
    after: Snapshot

    def snapshot(self, reported: int) -> Snapshot:
        """What is known once so many of the changes were reported."""
        left = self.changes[reported:]
        if not left:
            return self.after
        below = min((change.run.created_at for change in left if change.before is None), default=math.inf)
        doubted = self.before.doubted.union(change.run.id for change in left if change.before is not None)
        return _trimmed(replace(_changed(self.before, self.changes[:reported]), doubted=doubted), below)


def _changed(snapshot: Snapshot, changes: Sequence[RunChange]) -> Snapshot:
    known, deleted = dict(snapshot.known), dict(snapshot.deleted)
    for change in changes:
        run = change.run
        known[run.id] = run
        deleted.pop(run.id, None)
        if change.kind == ChangeKind.DELETED:
            del known[run.id]
            deleted[run.id] = run.created_at
    for run_id in [*deleted][:-_MOST_DELETED]:
        del deleted[run_id]
    return replace(snapshot, known=known, deleted=deleted)


def _trimmed(snapshot: Snapshot, below: float = math.inf) -> Snapshot:
    """The snapshot without ended runs that needn't be kept: only ones created before `below`, under the new floor."""
    ended = {run_id: run for run_id, run in snapshot.known.items() if run is not None and run.status.is_terminal}
    if len(ended) <= KEPT:
        return snapshot
    created = sorted((run.created_at for run in ended.values()), reverse=True)
    cut = min(created[KEPT - 1], below)
    dropped = {run_id for run_id, run in ended.items() if run.created_at < cut and run_id not in snapshot.doubted}
    known = {run_id: run for run_id, run in snapshot.known.items() if run_id not in dropped}
    floor = max((time for time in created if time < cut), default=snapshot.floor)
    return replace(snapshot, known=known, floor=max(floor, snapshot.floor))


def snapshot_before(known: Snapshot | Beginning, poll: PollResult, now: float) -> Snapshot:
    """The snapshot to compare this poll with, at `now`, in seconds since 1970.

    An empty list is no proof: if a later one spans far more time than has passed since, by the clock of the server, its
    runs were there when the watch began.
    """
    if isinstance(known, Beginning):
        snapshot = _first_snapshot(poll, known)
        return snapshot if poll.found else replace(snapshot, began_empty=(known, now))
    if known.began_empty is None or not poll.found:
        return known
    beginning, since = known.began_empty
    created = [run.created_at for run in poll.found]
    is_older = max(created) - min(created) > 60_000 * (1 + max(0, now - since))
    return _first_snapshot(poll, beginning) if is_older else replace(known, began_empty=None)


def _first_snapshot(poll: PollResult, beginning: Beginning) -> Snapshot:
    """A snapshot which `compare`, with the same poll, turns into the changes that the watch of a job begins with."""
    known: dict[str, JobRun | None] = {}
    for run in poll.found:
        reports = beginning.reports(run)
        # An ended run above the floor counts as new if the snapshot doesn't hold it. One further down that is to be
        # reported is followed until it is.
        if not run.status.is_terminal or reports != (run.created_at > poll.floor):
            known[run.id] = None if reports else run
    return Snapshot(known, poll.floor)


def steps_back(snapshot: Snapshot, poll: PollResult) -> dict[str, JobRunStatus | None]:
    """What the poll says that an older state of the server would say too: runs that are gone (None), that stand where
    they stood before, or that are there again after they were deleted, by id, each with its status."""
    back: dict[str, JobRunStatus | None] = {}
    for run_id, run in poll.runs.items():
        before = snapshot.known.get(run_id)
        if run is None:
            if run_id in snapshot.known:
                back[run_id] = None
        elif snapshot.was_deleted(run) or (before and _is_change(before, run) and progress(run) < progress(before)):
            back[run_id] = run.status
    return back


def compare(job_id: str, snapshot: Snapshot, poll: PollResult, doubted: Collection[str] = ()) -> Found:
    """What happened since the snapshot; without what the poll says about the runs whose ids are doubted."""
    known = dict(snapshot.known)
    changes: list[RunChange] = []

    def report(run: JobRun, before: JobRun | None, kind: ChangeKind | None = None) -> None:
        if kind is None:
            kind = ChangeKind.APPEARED if before is None else ChangeKind.CHANGED
            kind = ChangeKind.FINISHED if run.status.is_terminal else kind
        changes.append(RunChange(kind=kind, job_id=job_id, run=run, before=before))

    for run_id, before in snapshot.known.items():
        if run_id in doubted or run_id not in poll.runs:
            continue
        run = poll.runs[run_id]
        if run is not None and (before is None or _is_change(before, run)):
            report(run, before)
        elif run is not None and not run.status.is_terminal:
            known[run_id] = run
        elif run is None and before is not None:
            report(before, before, ChangeKind.DELETED)
        elif run is None:
            del known[run_id]
    unknown = [run for run in poll.found if run.id not in snapshot.known and run.id not in doubted]
    for run in unknown:
        if run.created_at > snapshot.floor:
            report(run, None)
    changes.sort(key=lambda change: change.run.created_at)
    snapshot = replace(snapshot, doubted=frozenset(doubted).intersection(snapshot.known))
    # Runs that have moved up as others were deleted are known from now on, so that their deletion is seen. One that
    # should have ended, and is open here, comes from an older state, as may a list about which there are doubts.
    below = [run for run in unknown if run.created_at <= snapshot.floor and not snapshot.was_deleted(run)]
    open_below = (run.created_at for run in below if not run.status.is_terminal)
    floor = max([math.inf if doubted else poll.floor, *open_below])
    moved_up = {run.id: run for run in below if run.created_at > floor}
    after = replace(snapshot, known={**moved_up, **known}, floor=min(snapshot.floor, floor))
    return Found(snapshot, changes, _trimmed(_changed(after, changes)))


def _is_change(before: JobRun, run: JobRun) -> bool:
    """Whether a run changed in more than its duration, which grows by itself; after its end, whether it is open, or
    another run."""
    if before.status.is_terminal and run.status.is_terminal:
        return run.created_at != before.created_at
    return run != before and attrs.evolve(run, duration=before.duration) != before
