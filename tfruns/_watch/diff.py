"""What changed in a job between one look at it and the next. No I/O.

A `View` is what a watcher knows of a job: the runs that are still open, those of the newest that have ended, and the
floor, below which every run is known and has ended unless it is among the open ones. A `Look` is what the server showed
since. `compare` makes of both the steps that lead from the one to the other, and the view after them.

Why no change is lost: a look holds the newest runs without a gap, down to where the view knows all
(`is_known_down_to`), and every open run that stands further down. What the view doesn't hold and stands above its floor
is new. Steps are taken oldest run first, so that a view in the midst of them has a floor as well: below all that wasn't
told yet.
"""

import enum
import math
from collections.abc import Mapping, Sequence

import attrs

from tfruns.models import JobRun

KEPT = 50
"""How many of the newest runs that have ended a view keeps; more only where they were created at once."""

_OVERLAP = 20
"""How many known runs a look has to reach below the new ones: a run may show up late, behind newer ones."""


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
    """It has ended, well or not. If it is new as well, `before` is None."""
    DELETED = "deleted"
    """It isn't there any more."""

    __hash__ = str.__hash__


@attrs.frozen
class Step:
    """A change of one run. States between two looks are merged into one step."""

    kind: ChangeKind
    run: JobRun
    before: JobRun | None


@attrs.frozen
class Look:
    """What the server showed of a job."""

    newest: Sequence[JobRun]
    """The newest runs, in the server's order, without a gap."""
    is_all: bool
    """Whether those are all the runs there are."""
    others: Mapping[str, JobRun | None]
    """Runs that were looked for by themselves, later than the newest; None for one that isn't there."""
    total: int
    """How many runs there are, by the server's count."""

    @property
    def floor(self) -> float:
        """Above this time of creation `newest` holds every run."""
        if self.is_all:
            return -math.inf
        created = [run.created_at for run in self.newest]
        # Where the server's order isn't that of creation, nothing follows from what isn't among the newest.
        return created[-1] if created and created == sorted(created, reverse=True) else math.inf


@attrs.frozen
class View:
    """What is known of a job."""

    open: Mapping[str, JobRun | None]
    """The runs that haven't ended, by id; None for one that wasn't told yet."""
    ended: Mapping[str, JobRun]
    """The newest runs that have ended, by id: all that were created after the floor."""
    floor: float
    """In ms since 1970: what was created until then is known, and has ended unless it is open."""
    total: int
    """How many runs there were."""

    def is_known_down_to(self, runs: Sequence[JobRun]) -> bool:
        """Whether all that stands behind these runs, the newest there are, is known."""
        if not runs:
            return False
        last = runs[-1].created_at
        if last <= self.floor:
            return True
        created = [run.created_at for run in (*self.open.values(), *self.ended.values()) if run is not None]
        met = sum(run.id in self.open or run.id in self.ended for run in runs)
        # A run that is new may stand behind known ones that were created at the same time as the newest of them.
        return met >= _OVERLAP and last < max(created, default=self.floor)

    def after(self, steps: Sequence[Step], untold: Sequence[Step] = ()) -> "View":
        """The view once these steps were told, with those still to come."""
        below = min((step.run.created_at for step in untold if step.before is None), default=math.inf)
        return _trimmed(_told(self, steps), below)


def _told(view: View, steps: Sequence[Step]) -> View:
    open_, ended = dict(view.open), dict(view.ended)
    for step in steps:
        open_.pop(step.run.id, None)
        ended.pop(step.run.id, None)
        if step.kind == ChangeKind.DELETED:
            continue
        if step.run.status.is_terminal:
            ended[step.run.id] = step.run
        else:
            open_[step.run.id] = step.run
    return attrs.evolve(view, open=open_, ended=ended)


def _trimmed(view: View, below: float = math.inf) -> View:
    """The view with the ended runs it need not keep dropped, all created before `below`, and the floor above them."""
    if len(view.ended) <= KEPT:
        return view
    created = sorted((run.created_at for run in view.ended.values()), reverse=True)
    cut = min(created[KEPT - 1], below)
    kept = {run_id: run for run_id, run in view.ended.items() if run.created_at >= cut}
    floor = max((time for time in created if time < cut), default=view.floor)
    return attrs.evolve(view, ended=kept, floor=max(floor, view.floor))


def begin(look: Look, *, since: float = math.inf, tells_open: bool = False) -> View:
    """A view from which `compare` with the same look tells what a watch begins with.

    Args:
        look: the newest runs, at least those created since then, and all open runs besides.
        since: runs created at this time or later, in ms since 1970, are told.
        tells_open: whether all open runs are told.
    """
    runs = {run.id: run for run in (*look.others.values(), *look.newest) if run is not None}.values()
    open_ = {
        run.id: None if tells_open or run.created_at >= since else run for run in runs if not run.status.is_terminal
    }
    ended = {
        run.id: run for run in runs if run.status.is_terminal and look.floor < run.created_at and run.created_at < since
    }
    floor = look.floor
    if math.isinf(floor) and not look.is_all:  # it is in no order that could be relied on
        floor = max((run.created_at for run in look.newest if run.created_at < since), default=-math.inf)
    return View(open_, ended, floor, look.total)


def compare(view: View, look: Look) -> tuple[tuple[Step, ...], View]:
    """What happened since the view, oldest run first, and the view after it."""
    seen = {run.id: run for run in look.newest}
    steps: list[Step] = []
    refreshed = dict(view.open)
    for run_id, before in view.open.items():
        run = seen.get(run_id) or look.others.get(run_id)
        if run is not None:
            if before is None or _differ(before, run):
                steps.append(_step(run, before))
            else:
                refreshed[run_id] = run
        elif run_id in look.others:
            if before is not None:
                steps.append(Step(ChangeKind.DELETED, before, before))
            else:
                del refreshed[run_id]
    for run_id, before in view.ended.items():
        run = seen.get(run_id)
        if run is None and before.created_at > look.floor:
            steps.append(Step(ChangeKind.DELETED, before, before))
        elif run is not None and not run.status.is_terminal:
            steps.append(_step(run, before))
    steps += [
        _step(run, None)
        for run in seen.values()
        if run.created_at > view.floor and run.id not in view.open and run.id not in view.ended
    ]
    steps.sort(key=lambda step: step.run.created_at)
    told = _told(attrs.evolve(view, open=refreshed, total=look.total), steps)
    floor = min(view.floor, look.floor)
    down_there = {run.id: run for run in look.newest if run.status.is_terminal and run.created_at > floor}
    return tuple(steps), _trimmed(attrs.evolve(told, ended={**down_there, **told.ended}, floor=floor))


def _step(run: JobRun, before: JobRun | None) -> Step:
    if run.status.is_terminal:
        return Step(ChangeKind.FINISHED, run, before)
    return Step(ChangeKind.APPEARED if before is None else ChangeKind.CHANGED, run, before)


def _differ(before: JobRun, run: JobRun) -> bool:
    """Whether something happened to an open run: a duration grows by itself."""
    return run != before and attrs.evolve(run, duration=before.duration) != before
