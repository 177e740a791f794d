"""The promise of a watch and its tokens, checked against a model.

Whichever tokens a watch is resumed from, and however slow, broken or away the jobs were: each change of a lasting state
is reported once. A state is lasting if it is there when everything responds again.
"""

import asyncio
from collections import Counter
from contextlib import aclosing
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hostile import serve
from tests.support.seeds import examples
from tests.support.watching import Over, watch_of
from tests.support.world import ENDS, World, WorldTimer, history_of
from tfruns import ChangeKind, Client, JobRun, RetryPolicy, RunChange
from tfruns._watch import diff, poll
from tfruns._watch.watcher import decode
from tfruns.models import JobRunStatus

JOBS = ("a", "b", "c")
ONCE = RetryPolicy(max_attempts=1)
UNKNOWN = "PAUSED"


@pytest.fixture(autouse=True, scope="module")
def small_pages() -> Any:
    """Small pages, so that short lists reach every path that long ones do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(poll, "PAGE_SIZE", 8)
        patch.setattr(poll, "MAX_PAGE_SIZE", 14)
        patch.setattr(diff, "KEPT", 8)
        patch.setattr(diff, "_OVERLAP", 4)
        yield


@attrs.define
class Account:
    """What a consumer knows by the reports that it was given, up to one of them."""

    reported: dict[tuple[str, str], JobRun] = attrs.field(factory=dict)
    deleted: set[tuple[str, str]] = attrs.field(factory=set)
    finished: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    polled_by: dict[str, int] = attrs.field(factory=dict)
    """Jobs whose first poll is known to have succeeded, each with the world's time by then."""

    def copy(self) -> "Account":
        return Account(self.reported.copy(), self.deleted.copy(), Counter(self.finished), self.polled_by.copy())

    def take(self, change: RunChange) -> None:
        key = change.job_id, change.run.id
        last = self.reported.get(key)
        assert key not in self.deleted, "a run that is gone is reported no more"
        if last is not None:
            assert change.before == last, "before is what was reported last"
        if change.kind == ChangeKind.DELETED:
            self.deleted.add(key)
            self.reported.pop(key, None)
            return
        assert change.run != last, "no state is reported twice"
        self.finished[key] += change.kind == ChangeKind.FINISHED
        assert self.finished[key] <= 1, "no end is reported twice"
        assert (change.kind == ChangeKind.FINISHED) == change.run.status.is_terminal
        self.reported[key] = change.run


@attrs.define
class Play(WorldTimer):
    """A watch, its consumer and its world, moved on by a script whenever the watch has nothing to do."""

    script: list[list[tuple[Any, ...]]] = attrs.field(kw_only=True)
    start: str = attrs.field(kw_only=True)
    called: int = 0
    """The world's time when the watch was called for."""
    began: int = 0
    """The world's time when each job had its first poll, had failed it, or had been waited for in vain."""
    responded: dict[str, float] = attrs.field(factory=dict)
    """Jobs that have responded to their first poll, and when by the clock."""
    account: Account = attrs.field(factory=Account)
    handed_out: list[tuple[RunChange, Account]] = attrs.field(factory=list)
    late: set[str] = attrs.field(factory=set)
    """Jobs that were slow or failing before they were polled for the first time."""
    resume_from: int | None = None
    idle: int = 0
    over_at: float = 0.0

    def pause(self) -> None:
        for job_id, statuses in self.world.responses.items():
            if statuses and set(statuses) == {200} and job_id not in self.world.slow:
                self.account.polled_by.setdefault(job_id, self.world.time)
        for job_id in [job for job in JOBS if job not in self.world.slow and self.world.responses[job]]:
            self.responded.setdefault(job_id, self.time)
        waited = self.time - max(self.responded.values(), default=0.0)
        is_begun = self.account.polled_by and (len(self.responded) == len(JOBS) or waited > 10)
        self.began = self.began or (self.world.time if is_begun else 0)
        if not self.script:
            self.finish()
            return
        self.world.responses.clear()
        for act in self.script.pop(0):
            self.act(*act)
        self.late |= {job for job in (*self.world.slow, *self.world.failing) if job not in self.account.polled_by}
        if self.resume_from is not None:
            raise Over

    def finish(self) -> None:
        """Everything responds again; once each job was polled often enough to confirm what it said, it is over."""
        for gate in self.world.slow.values():
            gate.set()
        self.world.slow.clear()
        self.world.failing.clear()
        self.idle += 1
        assert self.idle < 2_000, "a job isn't polled any more"
        self.over_at = self.over_at or self.time + 120
        if self.time > self.over_at and all(len(self.world.responses[job_id]) >= 12 for job_id in JOBS):
            raise Over

    def act(self, what: str, job_id: str, number: int) -> None:
        world, runs = self.world, self.world.jobs[job_id]
        still_open = [at for at, run in enumerate(runs) if run["status"] not in ENDS]
        match what:
            case "create":
                for at in range((1, 3, 12)[number % 3]):
                    world.create(job_id, ("CREATED", "FINISHED", "RUNNING")[at % 3])
            case "end" if still_open:
                world.update(job_id, still_open[-1 - number % len(still_open)], ENDS[number % 3])
            case "move" if still_open:
                world.update(job_id, still_open[-1 - number % len(still_open)], (UNKNOWN, "RUNNING")[number % 2])
            case "delete" if runs:
                world.delete(job_id, number % len(runs))
            case "fail":
                world.failing[job_id] = (500, 404, 403, 422, 200, 301)[number % 6]
            case "slow":
                world.slow.setdefault(job_id, asyncio.Event())
            case "mend":
                world.failing.pop(job_id, None)
                if (gate := world.slow.pop(job_id, None)) is not None:
                    gate.set()
            case "restart" if self.handed_out:
                self.resume_from = number % len(self.handed_out)

    async def run(self) -> None:
        async with serve(self.world.respond) as (url, _), Client(url, "key", retry=ONCE) as client:
            token = None
            self.called = self.world.time
            for act in self.script.pop(0):
                if act[0] in ("fail", "slow"):
                    self.act(*act)
            self.late |= {*self.world.slow, *self.world.failing}
            while True:
                arguments: dict[str, Any] = {"interval": 3.0, "start": self.start, "resume_token": token}
                watch = watch_of(client, JOBS, self, on_error="skip", **arguments)
                try:
                    async with aclosing(watch.changes()) as changes:
                        async for change in changes:
                            self.account.take(change)
                            self.handed_out.append((change, self.account.copy()))
                except Over:
                    pass
                if self.resume_from is None:
                    break
                change, account = self.handed_out[self.resume_from]
                self.resume_from, token = None, change.resume_token
                self.account = account.copy()
                known = decode(token, JOBS, {})
                self.account.polled_by = {
                    job: when for job, when in account.polled_by.items() if isinstance(known[job], diff.Snapshot)
                }
                self.world.responses.clear()
        self.check()

    def check(self) -> None:
        """Whether each lasting change since the beginning was reported, and nothing that was there already."""
        for key in self.world.history:
            job_id = key[0]
            called, first, last = (self.world.state(*key, at) for at in (self.called, self.began, self.world.time))
            reported = self.account.reported.get(key)
            where = f"{key}: {first} became {last}, reported as {reported}"
            was_open = first is not None and first["status"] not in ENDS
            wanted = {"now": False, "open": was_open, "existing": True}[self.start]
            if last is None:
                assert reported is None or reported.status.is_terminal, f"gone, and not reported as such: {where}"
            elif first is None or wanted or (was_open and last["status"] in ENDS):
                assert reported is not None, f"not reported: {where}"
                assert reported.status == last["status"], f"not reported last: {where}"
            elif reported is not None and called is not None and called["status"] in ENDS:
                assert job_id in self.late, f"it was there already: {where}"
            if job_id in self.account.polled_by and key not in self.account.deleted:
                known = self.world.state(*key, self.account.polled_by[job_id])
                assert known is not None or last is None or reported is not None, f"not reported: {where}"
                if known is not None and known["status"] not in ENDS:
                    # A run that was still to be reported when it was deleted isn't reported at all.
                    was_known = called is not None and self.start == "now"
                    has_ended = reported is not None and reported.status.is_terminal
                    assert last is not None or has_ended or not was_known, f"gone, and not reported as such: {where}"
                    if last is not None and known["status"] != last["status"]:
                        assert reported is not None, f"not reported: {where}"
                        assert reported.status == JobRunStatus(last["status"]), f"not reported last: {where}"


ACT = st.tuples(
    st.sampled_from(["create", "end", "end", "move", "move", "delete", "fail", "slow", "mend", "mend", "restart"]),
    st.sampled_from(JOBS),
    st.integers(0, 10**4),
)
SIZES = st.sampled_from([0, 3, 8, 9, 13, 14, 15, 40])


@pytest.mark.property
@settings(max_examples=examples(6, share=0.05))
@given(
    script=st.lists(st.lists(ACT, min_size=0, max_size=5), min_size=2, max_size=12),
    sizes=st.tuples(SIZES, SIZES, SIZES),
    start=st.sampled_from(["now", "now", "open", "open", "existing"]),
    every=st.tuples(st.sampled_from([3, 7, 100]), st.sampled_from([5, 11, 100])),
)
def test_each_lasting_change_is_reported_once_from_any_token(
    script: list[list[tuple[Any, ...]]], sizes: tuple[int, ...], start: str, every: tuple[int, int]
) -> None:
    """Slow and failing first polls, outages, jobs that vanish and return, unknown statuses, any token."""
    jobs = {job_id: history_of(job_id, size, *every) for job_id, size in zip(JOBS, sizes, strict=True)}
    asyncio.run(Play(world=World(jobs), script=script, start=start).run())
