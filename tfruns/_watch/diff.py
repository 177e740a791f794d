"""What changed in a job between one poll and the next. No I/O.

A `Snapshot` is what a watch knows of a job: the runs that it follows, because they haven't ended; the newest of those
that have ended; and the floor, a time: every run created until then is known, and has ended unless it is followed. A
`Poll` is what the server has returned since. `compare` takes both, and returns the changes that lead from the snapshot
to the poll, and the snapshot after them.

Why no change is lost: a poll holds the newest runs without a gap, down to where the snapshot knows all
(`is_known_down_to`), and every followed run further down. A run above the snapshot's floor that the snapshot doesn't
hold is new. Changes are reported oldest run first, so that a snapshot between two changes has a floor too: below all
runs that weren't reported yet.

A job that couldn't be polled yet has a `Beginning` in place of a snapshot: it says which of the runs that the first
poll finds are reported.
"""

import enum
import math
from collections.abc import Mapping, Sequence

import attrs

from tfruns.models import JobRun
from tfruns.types import Start

KEPT = 50
"""How many of the newest runs that have ended a snapshot keeps; more only if several were created at once."""

_OVERLAP = 20
"""How many known runs a poll must hold below the new ones: a run may show up late, behind newer ones."""


class ChangeKind(enum.StrEnum):
    """What happened to a run.

    Example:
        >>> tfruns.ChangeKind("finished") is tfruns.ChangeKind.FINISHED
        True

    .. versionadded:: 0.1.0
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


@attrs.frozen
class Change:
    """A change of one run. States between two polls are merged into one change."""

    kind: ChangeKind
    run: JobRun
    before: JobRun | None


@attrs.frozen
class Poll:
    """The runs of a job that one poll has found."""

    newest: Sequence[JobRun]
    """The newest runs, in the server's order, without a gap."""
    is_all: bool
    """Whether those are all the runs there are."""
    others: Mapping[str, JobRun | None]
    """Runs further down, or that were searched for by id or name; None for one that isn't there."""
    total: int
    """How many runs there are, by the server's count."""

    @property
    def floor(self) -> float:
        """`newest` holds every run that was created after this time."""
        if self.is_all:
            return -math.inf
        created = [run.created_at for run in self.newest]
        # If the server's order isn't that of creation, a run that isn't among the newest may still be there.
        return created[-1] if created and created == sorted(created, reverse=True) else math.inf

    @property
    def latest(self) -> float:
        """The newest creation or end of a run in it, in ms since 1970: no later than the server's clock at the poll."""
        runs = (run for run in (*self.newest, *self.others.values()) if run is not None)
        return max((max(run.created_at, _ended_at(run)) for run in runs), default=-math.inf)


@attrs.frozen
class Beginning:
    """How the watch of a job begins: used until its first poll has succeeded."""

    start: Start | float
    """Which of the existing runs are reported, as in `Client.watch_runs`; a time is in ms since 1970."""
    watermark: float | None = None
    """Runs that were created or have ended since this time, in ms since 1970, are reported whatever `start` says. None
    until reports begin: till then a first poll shows the runs that existed when the watch began."""

    @property
    def since(self) -> float:
        """Runs created at this time or later, in ms since 1970, are reported."""
        start = {"now": math.inf, "open": math.inf, "existing": -math.inf}.get(str(self.start))
        since = float(self.start) if start is None else start
        return since if self.watermark is None else min(since, self.watermark)

    def is_known_down_to(self, runs: Sequence[JobRun]) -> bool:
        """Whether no run behind these, which are the newest, is reported because of its time of creation."""
        # The last one may have others behind it that were created at the same time.
        return bool(runs) and runs[-1].created_at < min(self.since, runs[0].created_at)

    def reports(self, run: JobRun) -> bool:
        """Whether a run that the first poll finds is reported."""
        if run.created_at >= self.since or (self.start == "open" and not run.status.is_terminal):
            return True
        return run.status.is_terminal and self.watermark is not None and _ended_at(run) >= self.watermark


def _ended_at(run: JobRun) -> float:
    """When the run ended, in ms since 1970; -inf if it hasn't, or the server doesn't say."""
    if not run.status.is_terminal:
        return -math.inf
    if run.end_time is not None:
        return run.end_time
    return -math.inf if run.duration is None else run.created_at + run.duration * 1000


@attrs.frozen
class Snapshot:
    """What a watch knows of a job."""

    open: Mapping[str, JobRun | None]
    """The runs that are followed, because they haven't ended, by id; None for one that wasn't reported yet."""
    ended: Mapping[str, JobRun]
    """The newest runs that have ended, by id: all that were created after the floor."""
    floor: float
    """In ms since 1970: every run created until then is known, and has ended unless it is followed."""
    total: int
    """How many runs there were."""

    def is_known_down_to(self, runs: Sequence[JobRun]) -> bool:
        """Whether all runs behind these, which are the newest, are known."""
        if not runs:
            return False
        last = runs[-1].created_at
        if last <= self.floor:
            return True
        created = [run.created_at for run in (*self.open.values(), *self.ended.values()) if run is not None]
        met = sum(run.id in self.open or run.id in self.ended for run in runs)
        # A new run may stand behind known runs that were created at the same time as the newest known one.
        return met >= _OVERLAP and last < max(created, default=self.floor)

    def after(self, reported: Sequence[Change], unreported: Sequence[Change] = ()) -> "Snapshot":
        """The snapshot once `reported` were reported, and `unreported` weren't yet."""
        below = min((change.run.created_at for change in unreported if change.before is None), default=math.inf)
        return _trimmed(_changed(self, reported), below)


def _changed(snapshot: Snapshot, changes: Sequence[Change]) -> Snapshot:
    open_, ended = dict(snapshot.open), dict(snapshot.ended)
    for change in changes:
        open_.pop(change.run.id, None)
        ended.pop(change.run.id, None)
        if change.kind == ChangeKind.DELETED:
            continue
        if change.run.status.is_terminal:
            ended[change.run.id] = change.run
        else:
            open_[change.run.id] = change.run
    return attrs.evolve(snapshot, open=open_, ended=ended)


def _trimmed(snapshot: Snapshot, below: float = math.inf) -> Snapshot:
    """The snapshot without ended runs that needn't be kept: only ones created before `below`, under the new floor."""
    if len(snapshot.ended) <= KEPT:
        return snapshot
    created = sorted((run.created_at for run in snapshot.ended.values()), reverse=True)
    cut = min(created[KEPT - 1], below)
    kept = {run_id: run for run_id, run in snapshot.ended.items() if run.created_at >= cut}
    floor = max((time for time in created if time < cut), default=snapshot.floor)
    return attrs.evolve(snapshot, ended=kept, floor=max(floor, snapshot.floor))


def first_snapshot(poll: Poll, beginning: Beginning) -> Snapshot:
    """A snapshot which `compare`, with the same poll, turns into the changes that the watch of a job begins with."""
    runs = {run.id: run for run in (*poll.others.values(), *poll.newest) if run is not None}.values()
    floor = poll.floor
    if math.isinf(floor) and not poll.is_all:  # the runs aren't in the order of creation
        floor = max((run.created_at for run in poll.newest if run.created_at < beginning.since), default=-math.inf)
    above = {run.id for run in poll.newest if run.created_at > floor}
    open_: dict[str, JobRun | None] = {}
    ended: dict[str, JobRun] = {}
    for run in runs:
        reports = beginning.reports(run)
        # An ended run above the floor that the snapshot doesn't hold counts as new. Any other run to report is
        # followed until it is reported.
        if not run.status.is_terminal or (reports and run.id not in above):
            open_[run.id] = None if reports else run
        elif not reports and run.id in above:
            ended[run.id] = run
    return Snapshot(open_, ended, floor, poll.total)


def compare(snapshot: Snapshot, poll: Poll) -> tuple[tuple[Change, ...], Snapshot]:
    """What happened since the snapshot, oldest run first, and the snapshot after it."""
    seen = {run.id: run for run in poll.newest}
    changes: list[Change] = []
    refreshed = dict(snapshot.open)
    for run_id, before in snapshot.open.items():
        run = seen.get(run_id) or poll.others.get(run_id)
        if run is not None:
            if before is None or _differ(before, run):
                changes.append(_change(run, before))
            else:
                refreshed[run_id] = run
        elif run_id in poll.others:
            if before is not None:
                changes.append(Change(ChangeKind.DELETED, before, before))
            else:
                del refreshed[run_id]
    for run_id, before in snapshot.ended.items():
        run = seen.get(run_id)
        if run is None and before.created_at > poll.floor:
            changes.append(Change(ChangeKind.DELETED, before, before))
        elif run is not None and not run.status.is_terminal:
            changes.append(_change(run, before))
    changes += [
        _change(run, None)
        for run in seen.values()
        if run.created_at > snapshot.floor and run.id not in snapshot.open and run.id not in snapshot.ended
    ]
    changes.sort(key=lambda change: change.run.created_at)
    changed = _changed(attrs.evolve(snapshot, open=refreshed, total=poll.total), changes)
    floor = min(snapshot.floor, poll.floor)
    further_down = {run.id: run for run in poll.newest if run.status.is_terminal and run.created_at > floor}
    return tuple(changes), _trimmed(attrs.evolve(changed, ended={**further_down, **changed.ended}, floor=floor))


def _change(run: JobRun, before: JobRun | None) -> Change:
    if run.status.is_terminal:
        return Change(ChangeKind.FINISHED, run, before)
    return Change(ChangeKind.APPEARED if before is None else ChangeKind.CHANGED, run, before)


def _differ(before: JobRun, run: JobRun) -> bool:
    """Whether an open run changed in more than its duration, which grows by itself."""
    return run != before and attrs.evolve(run, duration=before.duration) != before
