"""One response is no proof: what a watch and a wait make of responses from older and empty states of the server."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
import pytest

import tfruns
from tests.support.hostile import Request, page, response, run, serve
from tests.support.watching import Over, SteppedTimer, rounds, stepped, watch_of
from tfruns import ChangeKind, Client, JobRun, RetryPolicy, RunChange

ONCE = RetryPolicy(max_attempts=1)
Rows = list[dict[str, Any]]


def shown(request: Request, rows: Rows) -> bytes:
    """The response to any request for a list, as a real server makes it."""
    query = parse_qs(urlsplit(request.target).query)
    statuses, [prefix] = query.get("status"), query.get("searchPrefix", [""])
    found = [
        row
        for row in rows
        if (not statuses or row["status"] in statuses)
        and (row["id"].startswith(prefix) or row["name"].startswith(prefix))
    ]
    return response(200, page(found[request.offset : request.offset + request.limit], len(found)))


def kinds(changes: list[RunChange]) -> Counter[tuple[str, str]]:
    return Counter((change.kind.value, change.run.id) for change in changes)


async def watched(
    rows_of: Callable[[int, float], Rows], seconds: float, *, start: str = "existing", job_ids: Any = "job", **more: Any
) -> list[RunChange]:
    """What a watch reports in so many seconds of its own time. `rows_of(number, time)` is the list that a request with
    this number, counted for each job, is shown at that time."""
    changes: list[RunChange] = []
    counts: Counter[str] = Counter()

    async def pause(_: float) -> None:
        if timer.time > seconds:
            raise Over

    timer = SteppedTimer(pause)

    def handler(request: Request) -> bytes:
        job_id = urlsplit(request.target).path.split("/")[-2]
        counts[job_id] += 1
        return shown(request, rows_of(counts[job_id] - 1, timer.time))

    async with serve(handler) as (url, _), Client(url, "key", retry=ONCE) as client:
        watch = watch_of(client, job_ids, timer, **{"interval": (0.5, 5.0), "start": start, **more})
        with pytest.raises(Over):
            async with aclosing(watch.changes()) as found:
                async for change in found:
                    changes += [change]
    return changes


ROWS = [run(number, endTime=1_700_000_000_500) for number in range(5)]
EXISTING = Counter({("finished", f"run-{number}"): 1 for number in range(5)})
REOPENED = [{**row, "status": "RUNNING", "endTime": None} if row["id"] == "run-1" else row for row in ROWS]
OLDER = [{**row, "status": "CREATED", "endTime": None} if row["id"] == "run-1" else row for row in REOPENED]


@pytest.mark.parametrize(
    "rows_of",
    [
        pytest.param(lambda number, _: [] if number % 7 == 6 else ROWS, id="empty, one in seven"),
        pytest.param(lambda number, _: [] if number % 2 else ROWS, id="empty, every other"),
        pytest.param(lambda number, _: ROWS[1:] if number % 7 == 6 else ROWS, id="without the newest, one in seven"),
        pytest.param(lambda number, _: ROWS[1:] if number % 3 else ROWS, id="without the newest, two in three"),
        pytest.param(lambda number, _: REOPENED if number % 2 else ROWS, id="still open, every other"),
        pytest.param(lambda number, _: REOPENED if number % 3 else ROWS, id="still open, two in three"),
        pytest.param(lambda _, time: [] if time % 60 > 52 else ROWS, id="empty for seconds"),
        pytest.param(lambda _, time: ROWS[2:] if time % 60 > 55 else ROWS, id="behind for seconds"),
        pytest.param(lambda _, time: REOPENED if time % 60 > 55 else ROWS, id="still open for seconds"),
    ],
)
async def test_nothing_happens(rows_of: Callable[[int, float], Rows]) -> None:
    """No response from an older or an empty state is reported: each end once, and no deletion."""
    found = kinds(await watched(rows_of, 300))
    assert {key: count for key, count in found.items() if key != ("appeared", "run-1")} == EXISTING


@pytest.mark.parametrize("every", [3, 5])
async def test_a_list_that_is_empty_while_its_runs_are_found_by_themselves(every: int) -> None:
    """It says nothing about the many runs that the watch has forgotten: when many new ones come, so that more of the
    list is read, none of those is reported again."""
    rows = [run(number, endTime=1_700_000_000_500) for number in range(200)]

    def rows_of(number: int, time: float) -> Rows:
        return [] if number % every == every - 1 else rows if time > 30 else rows[60:]

    found = kinds(await watched(rows_of, 60))
    assert found == {("finished", f"run-{number}"): 1 for number in range(200)}


async def test_two_outages_of_many_jobs() -> None:
    """The more vanishes at once, the longer it must last: two minutes without a single run report nothing."""
    jobs = [f"job-{number}" for number in range(8)]
    changes = await watched(
        lambda _, time: [] if 60 < time < 180 or 240 < time < 270 else ROWS, 320, job_ids=jobs, interval=(5.0, 20.0)
    )
    assert Counter(change.job_id for change in changes) == Counter(dict.fromkeys(jobs, 5))
    assert {change.kind for change in changes} == {ChangeKind.FINISHED}


async def test_an_open_run_that_moves_back() -> None:
    """A state that was reported isn't reported again because a response shows the one before it."""
    changes = await watched(lambda number, time: OLDER if time < 5 or number % 2 else REOPENED, 300)
    assert [(change.kind, change.run.status) for change in changes if change.run.id == "run-1"] == [
        ("appeared", "CREATED"),
        ("changed", "RUNNING"),
    ]


async def test_a_deletion_while_a_replica_lags() -> None:
    """It is reported once, though the older state shows the run for another while; and so is a later creation."""

    def rows_of(number: int, time: float) -> Rows:
        if time < 10 or (number % 3 == 0 and time < 200) or (number % 2 and time < 60):
            return ROWS
        return (
            [run(9, id="run-2", createdAt=1_700_000_100_000), *ROWS[:2], *ROWS[3:]]
            if time > 400
            else ROWS[:2] + ROWS[3:]
        )

    found = kinds(await watched(rows_of, 600))
    assert found == EXISTING + Counter({("deleted", "run-2"): 1, ("finished", "run-2"): 1})


async def test_an_end_that_is_undone() -> None:
    """It is believed if it lasts; then the next end is another one."""

    def rows_of(number: int, time: float) -> Rows:
        return ROWS if time < 10 else REOPENED if time < 100 else ROWS

    changes = [change for change in await watched(rows_of, 300) if change.run.id == "run-1"]
    assert [(change.kind, change.run.status) for change in changes] == [
        ("finished", "FINISHED"),
        ("changed", "RUNNING"),
        ("finished", "FINISHED"),
    ]


async def test_a_retried_run_is_open_at_once() -> None:
    """More retries than before are proof that the server hasn't gone back."""
    retried = [{**row, "totalRetries": 1} if row["id"] == "run-1" else row for row in REOPENED]
    changes = await watched(lambda _, time: ROWS if time < 10 else retried, 12)
    assert [change.kind for change in changes if change.run.id == "run-1"] == ["finished", "changed"]


async def test_created_again_before_the_deletion_was_believed() -> None:
    """A run with the same id and a later creation is another run, at once; and an older state doesn't bring back the
    first."""
    again = [run(9, id="run-2", createdAt=1_700_000_100_000, status="RUNNING"), *ROWS[:2], *ROWS[3:]]
    changes = await watched(lambda number, time: ROWS if time < 10 or number % 3 == 1 else again, 100)
    assert [change.kind for change in changes if change.run.id == "run-2"] == ["finished", "changed"]


@pytest.mark.parametrize("start", ["now", "open"])
async def test_a_watch_that_begins_on_an_empty_response(start: str) -> None:
    """What is there already isn't taken for new, however long the first responses are empty; what is new is."""
    rows = [run(number, createdAt=1_700_000_000_000 - 3_600_000 * number) for number in range(30)]
    assert await watched(lambda number, _: rows if number > 1 else [], 60, start=start) == []
    assert await watched(lambda _, time: rows if time > 20 else [], 60, start=start) == []
    changes = await watched(lambda _, time: rows[:1] if time > 20 else [], 60, start=start)
    assert kinds(changes) == Counter({("finished", "run-0"): 1})


async def test_a_list_that_begins_with_the_oldest_runs() -> None:
    """From a server that ignores the default order, new runs are found at the end of the list."""
    rows = [run(number) for number in range(120, 0, -1)]

    async def create() -> None:
        rows.append(run(0))

    async with serve(lambda request: shown(request, rows)) as (url, _), Client(url, "key", retry=ONCE) as client:
        before, changes = await rounds(client, "job", create)
    assert (before, kinds(changes)) == ([], Counter({("finished", "run-0"): 1}))


async def test_a_long_list_that_is_not_quite_in_order() -> None:
    """A new run is reported, though no poll knows that it holds all that are newer than its last one."""
    rows = [run(number) for number in range(1, 1_100)]
    rows[3:5] = rows[4], rows[3]

    async def create() -> None:
        rows.insert(0, run(0))

    async with serve(lambda request: shown(request, rows)) as (url, _), Client(url, "key", retry=ONCE) as client:
        before, changes = await rounds(client, "job", create)
    assert (before, kinds(changes)) == ([], Counter({("finished", "run-0"): 1}))


async def test_a_token_of_a_watch_that_began_on_empty_responses() -> None:
    """Another process doesn't take for new what is there already either; what is new is."""
    old = [run(number, createdAt=1_700_000_000_000 - 3_600_000 * number) for number in range(30)]
    rows: dict[str, Rows] = {"a": old[:1], "b": []}

    def handler(request: Request) -> bytes:
        return shown(request, rows[urlsplit(request.target).path.split("/")[-2]])

    async def create() -> None:
        rows["a"].insert(0, run(-1))

    async def reappear() -> None:
        rows["b"] = old

    async def create_in_b() -> None:
        rows["b"] = [run(-2), *old]

    async with serve(handler) as (url, _), Client(url, "key", retry=ONCE) as client:
        _, [change] = await rounds(client, ["a", "b"], create)
        reported = await rounds(client, ["a", "b"], reappear, create_in_b, resume_token=change.resume_token)
        assert [kinds(changes) for changes in reported] == [Counter(), Counter(), Counter({("finished", "run--2"): 1})]
        rows["b"] = old
        assert await rounds(client, ["a", "b"], resume_token=change.resume_token) == [[]]
        rows["b"] = [run(-2)]
        [changes] = await rounds(client, ["a", "b"], resume_token=change.resume_token)
        assert kinds(changes) == Counter({("finished", "run--2"): 1})


async def test_a_token_amid_doubts() -> None:
    """It holds the run as it was reported last: a deletion that wasn't reported yet is reported after the restart."""
    rows = list(ROWS)

    def handler(request: Request) -> bytes:
        return shown(request, rows)

    async def pause(_: float) -> None:
        if not rows_left:
            raise Over
        rows[:] = rows_left.pop(0)

    async with serve(handler) as (url, _), Client(url, "key", retry=ONCE) as client:
        rows_left = [[run(-1, status="RUNNING"), *ROWS[1:]]]  # run-0 is gone when run--1 appears
        tokens: list[str] = []
        with pytest.raises(Over):
            async with aclosing(stepped(client, "job", pause).changes()) as changes:
                async for change in changes:
                    tokens += [change.resume_token]
        rows_left = [rows] * 9
        found: list[RunChange] = []
        with pytest.raises(Over):
            async with aclosing(stepped(client, "job", pause, resume_token=tokens[-1]).changes()) as changes:
                async for change in changes:
                    found += [change]
    assert kinds(found) == Counter({("deleted", "run-0"): 1})


@pytest.mark.parametrize(("status", "error"), [(404, tfruns.NotFoundError), (403, tfruns.PermissionDeniedError)])
@pytest.mark.usefixtures("quick_clock")
async def test_a_job_that_is_refused_for_a_moment(status: int, error: type[Exception]) -> None:
    """It ends neither a watch nor a wait; if it lasts, it does."""
    counts: Counter[str] = Counter()

    def handler(request: Request) -> bytes:
        counts["all"] += 1
        if counts["all"] % 2 == 0 or counts["all"] > 30:
            return response(status, {"statusCode": status, "message": "as the test says"})
        return shown(request, REOPENED)

    async def pause(_: float) -> None:
        pass

    async with serve(handler) as (url, _), Client(url, "key", retry=ONCE) as client:
        with pytest.raises(error):
            async with aclosing(stepped(client, "job", pause).changes()) as changes:
                await anext(changes)
        assert counts["all"] > 30
        counts.clear()
        with pytest.raises(error):
            await client.wait_for_run("job", "run-1", interval=1)
        assert counts["all"] > 30


@pytest.mark.usefixtures("quick_clock")
async def test_a_job_that_is_refused_in_two_ways_by_turns() -> None:
    """It is refused: the watch ends, and so does a wait."""
    counts: Counter[str] = Counter()

    def handler(request: Request) -> bytes:
        counts["all"] += 1
        if counts["all"] > 4:
            status = 403 + counts["all"] % 2
            return response(status, {"statusCode": status, "message": "as the test says"})
        return shown(request, REOPENED)

    async def pause(_: float) -> None:
        assert counts["all"] < 100

    async with serve(handler) as (url, _), Client(url, "key", retry=ONCE) as client:
        with pytest.raises((tfruns.NotFoundError, tfruns.PermissionDeniedError)):
            async with aclosing(stepped(client, "job", pause).changes()) as changes:
                await anext(changes)
        counts.clear()
        with pytest.raises((tfruns.NotFoundError, tfruns.PermissionDeniedError)):
            await asyncio.wait_for(client.wait_for_run("job", "run-1", interval=1), 30)


# --- waits ---


async def waited(rows_of: Callable[[int], Rows], **arguments: Any) -> JobRun:
    """`rows_of(number)` is the list that a request with this number is shown."""
    async with serve(lambda request: shown(request, rows_of(request.number))) as (url, _), Client(url, "key") as client:
        return await asyncio.wait_for(client.wait_for_run("job", "run-1", **{"interval": 0.01, **arguments}), 60)


async def test_a_wait_through_empty_responses() -> None:
    """They end no wait: the run is looked for again."""
    ended = await waited(lambda number: ROWS if number > 120 else [] if number % 3 == 1 else REOPENED)
    assert ended.status == "FINISHED"


@pytest.mark.usefixtures("quick_clock")
async def test_a_wait_for_a_run_that_was_deleted() -> None:
    """It ends once the run is missing for good."""
    with pytest.raises(tfruns.RunDeletedError, match="was deleted, it was RUNNING"):
        await waited(lambda number: ROWS[2:] if number > 3 else REOPENED, interval=1)


async def test_a_run_that_is_not_listed_yet() -> None:
    """It is waited for: ten seconds by default, and as long as the argument says; then there is no such run."""
    assert (await waited(lambda number: ROWS if number > 40 else [])).id == "run-1"
    with pytest.raises(tfruns.RunNotFoundError, match=r"'run-1', and none was listed within 0.3 s"):
        await waited(lambda _: [], listed_within=0.3)
    with pytest.raises(tfruns.RunNotFoundError, match=r"the name 'run-1'$"):
        await waited(lambda number: [] if number < 2 else ROWS, listed_within=0)
    with pytest.raises(tfruns.WaitTimeoutError, match=r"within 0.2 s$"):
        await waited(lambda _: [], timeout=0.2)
    with pytest.raises(ValueError, match="listed_within must be seconds"):
        await waited(lambda _: [], listed_within=-1)


@pytest.mark.parametrize(("status", "error"), [(404, tfruns.NotFoundError), (403, tfruns.PermissionDeniedError)])
@pytest.mark.usefixtures("quick_clock")
async def test_a_job_that_is_refused_before_the_run_is_listed(status: int, error: type[Exception]) -> None:
    """For a moment it ends no wait, once the job could be polled; if it lasts, it does, and at first at once."""
    refused: set[int] = set()

    def handler(request: Request) -> bytes:
        if request.number in refused:
            return response(status, {"statusCode": status, "message": "as the test says"})
        return shown(request, ROWS if request.number > 6 else [])

    for refused, is_refused in (({2, 3, 5}, False), ({*range(2, 99)}, True), ({0}, True)):
        async with serve(handler) as (url, requests), Client(url, "key", retry=ONCE) as client:
            waiting = asyncio.wait_for(client.wait_for_run("job", "run-1", listed_within=600), 60)
            if is_refused:
                with pytest.raises(error):
                    await waiting
                assert len(requests) == 1 or 0 not in refused
            else:
                assert (await waiting).status == "FINISHED"


# --- an hour of it ---


@attrs.define
class Hour:
    """Many jobs in which something happens all the time, on a server whose responses can't be trusted."""

    rng: random.Random
    time: float = 0.0
    versions: dict[str, list[tuple[float, Rows]]] = attrs.field(factory=lambda: defaultdict(list))
    """The lists of each job, newest run first, each with the time since which it is so."""
    requests: Counter[str] = attrs.field(factory=Counter)
    created: int = 0
    deleted: set[str] = attrs.field(factory=set)
    seen: set[str] = attrs.field(factory=set)
    """Runs that a response has shown."""

    def now(self, job_id: str) -> Rows:
        return self.versions[job_id][-1][1]

    def happen(self, job_id: str, what: str) -> None:
        rows = list(self.now(job_id)) if self.versions[job_id] else []
        still_open = [at for at, row in enumerate(rows) if row["status"] in ("CREATED", "RUNNING")]
        match what:
            case "create":
                self.created += 1
                moment = 1_700_000_000_000 + int(self.time * 1000) + self.created
                rows.insert(0, run(self.created, createdAt=moment, status=self.rng.choice(["CREATED", "FINISHED"])))
            case "move" if still_open:
                at = self.rng.choice(still_open)
                rows[at] = {**rows[at], "status": "RUNNING" if rows[at]["status"] == "CREATED" else "FAILED"}
            case "delete" if rows:
                self.deleted.add(rows.pop(self.rng.randrange(len(rows)))["id"])
        self.versions[job_id].append((self.time, rows))

    def respond(self, request: Request) -> bytes:
        job_id = unquote(urlsplit(request.target).path.split("/")[-2])
        self.requests[job_id] += 1
        chance = random.Random(f"{job_id} {self.requests[job_id]}")
        minute = self.time / 60
        kind = chance.random()
        if minute > 60:
            kind = 0.5  # all is well
        elif 12 < minute < 13.5:
            kind = 0.0
        elif 30 < minute < 32:
            kind = 0.99
        if kind < 0.04:
            return shown(request, [])
        if kind > 0.95:
            status = chance.choice([500, 502, 503, 404, 403] if minute > 5 else [500, 502, 503])
            return response(status, {"statusCode": status, "message": "as the test says"})
        lag = chance.uniform(0, 180) if kind < 0.15 else 0.0
        rows = next((rows for since, rows in reversed(self.versions[job_id]) if since <= self.time - lag), [])
        self.seen |= {row["id"] for row in rows}
        return shown(request, rows)

    async def live(self, seconds: float) -> None:
        until = self.time + seconds
        while self.time < min(until, 3_600.0):
            self.time += min(seconds, self.rng.expovariate(0.0012 * len(self.versions)))
            self.happen(
                self.rng.choice(list(self.versions)),
                self.rng.choice(["create", "move", "move", "move", "move", "delete"]),
            )
        self.time = until
        if self.time > 5_400:
            raise Over


@pytest.mark.parametrize("count", [8, pytest.param(100, marks=pytest.mark.slow)])
async def test_an_hour_of_many_jobs(count: int) -> None:
    """Stale, empty and failing responses, alone and for minutes: nothing false, nothing missed, nothing repeated."""
    hour = Hour(random.Random(7))
    jobs = [f"job-{number}" for number in range(count)]
    for job_id in jobs:
        for _ in range(4):
            hour.happen(job_id, "create")
    reported: dict[str, list[RunChange]] = defaultdict(list)
    false = 0
    async with serve(hour.respond) as (url, _), Client(url, "key", retry=ONCE) as client:
        timer = SteppedTimer(hour.live)
        watch = watch_of(client, jobs, timer, interval=(200.0, 900.0), start="existing")
        with pytest.raises(Over):
            async with aclosing(watch.changes()) as changes:
                async for change in changes:
                    reported[change.run.id].append(change)
                    false += change.kind == ChangeKind.DELETED and change.run.id not in hour.deleted
    truth = {row["id"]: row for job_id in jobs for row in hour.now(job_id)}
    last = {run_id: changes[-1] for run_id, changes in reported.items()}
    missed = [run_id for run_id, row in truth.items() if run_id not in last or last[run_id].run.status != row["status"]]
    missed += [run_id for run_id, change in last.items() if run_id not in truth and change.kind != ChangeKind.DELETED]
    states = {run_id: [(change.kind, change.run.status) for change in changes] for run_id, changes in reported.items()}
    repeated = {run_id: each for run_id, each in states.items() if len(each) != len(set(each))}
    assert (false, missed, repeated) == (0, [], {})
    assert len(hour.deleted) > count / 4
    assert sum(change.kind == ChangeKind.DELETED for change in last.values()) > count / 4
