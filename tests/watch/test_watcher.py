"""What a watch reports, which requests it makes for it, and how it ends."""

import asyncio
import math
import time
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest

import tfruns
from tests.support.hostile import Request, page, response, run, serve
from tests.support.watching import rounds, stepped
from tfruns import ChangeKind, Client, JobRun, RetryPolicy, RunChange
from tfruns._watch.diff import KEPT, Found, PollResult, Snapshot, compare
from tfruns._watch.poll import PAGE_SIZE
from tfruns._watch.schedule import PollSchedule, Trouble
from tfruns._watch.watcher import decode, encode
from tfruns.sandbox import Fault, Sandbox
from tfruns.types import RunFilter

ONCE = RetryPolicy(max_attempts=1)


async def finish_all(s: Sandbox) -> None:
    """Leave no run open."""
    for job_id in s.job_ids:
        for one in s.runs(job_id):
            if not one.status.is_terminal:
                await s.finish_run(job_id, one.id)


def summary(changes: list[RunChange]) -> list[tuple[str, str, str | None, str]]:
    return [(one.kind, one.run.id, one.before and one.before.status, one.run.status) for one in changes]  # type: ignore[misc]


async def test_the_life_of_a_run() -> None:
    """A run is reported as it appears, changes, finishes and is deleted."""
    async with Sandbox(1, 30) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids

        async def update(status: str) -> None:
            await s.update_run(job_id, "one", status=status)

        at_first, *later = await rounds(
            client,
            job_id,
            lambda: s.create_run(job_id, id="one"),
            lambda: update("RUNNING"),
            lambda: asyncio.sleep(0),
            lambda: s.finish_run(job_id, "one", "FAILED"),
            lambda: s.delete_run(job_id, "one"),
        )
        assert at_first == []
        assert [summary(changes) for changes in later] == [
            [("appeared", "one", None, "CREATED")],
            [("changed", "one", "CREATED", "RUNNING")],
            [],
            [("finished", "one", "RUNNING", "FAILED")],
            [("deleted", "one", "FAILED", "FAILED")],
        ]
        assert {change.job_id for changes in later for change in changes} == {job_id}


async def test_states_between_two_polls_are_merged() -> None:
    """A run that came and ended is one change; one that came and went is none."""
    async with Sandbox(1, 30) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids

        async def live_and_end() -> None:
            await s.create_run(job_id, id="ended")
            await s.update_run(job_id, "ended", status="RUNNING")
            await s.finish_run(job_id, "ended")
            await s.create_run(job_id, id="gone")
            await s.delete_run(job_id, "gone")

        assert summary((await rounds(client, job_id, live_and_end))[1]) == [("finished", "ended", None, "FINISHED")]


async def test_a_growing_duration_is_no_change() -> None:
    """But `before` has the duration that was seen last."""
    async with Sandbox(1, 30) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids
        await s.create_run(job_id, id="one", status="RUNNING", duration=1)
        _, grown, ended = await rounds(
            client,
            job_id,
            lambda: s.update_run(job_id, "one", duration=60),
            lambda: s.finish_run(job_id, "one"),
        )
        assert grown == []
        assert ended[0].before.duration == 60


@pytest.mark.parametrize("start", ["now", "open", "existing", "time"])
async def test_start(start: str) -> None:
    """Reported first: nothing, the open runs, those since a time, or all; each once, oldest first."""
    async with Sandbox(1, 2_500) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids
        runs = s.runs(job_id)
        since = runs[1_200].created
        expected = {
            "now": [],
            "open": [one for one in runs if not one.status.is_terminal],
            "existing": runs,
            "time": [one for one in runs if one.created >= since],
        }[start]
        at_first, quiet = await rounds(
            client, job_id, lambda: asyncio.sleep(0), start=since if start == "time" else start
        )
        assert {one.run.id for one in at_first} == {one.id for one in expected}
        assert len(at_first) == len(expected)
        assert all(one.before is None for one in at_first)
        assert all((one.kind == "finished") == one.run.status.is_terminal for one in at_first)
        assert [one.run.created_at for one in at_first] == sorted(one.run.created_at for one in at_first)
        assert quiet == []


@pytest.mark.parametrize("start", ["open", "existing"])
async def test_a_token_amid_the_first_reports(start: str) -> None:
    """It goes on with the rest of what was there already."""
    async with Sandbox(1, 2_500) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids
        [everything] = await rounds(client, job_id, start=start)
        half = len(everything) // 2
        assert half > 20
        [rest] = await rounds(client, job_id, start=start, resume_token=everything[half - 1].resume_token)
        assert {one.run.id for one in rest} == {one.run.id for one in everything[half:]}
        assert len(rest) == len(everything) - half
        [nothing] = await rounds(client, job_id, start=start, resume_token=everything[-1].resume_token)
        assert nothing == []


async def test_a_quiet_job_costs_one_small_request_a_poll() -> None:
    """The first poll takes more: it has to find the open runs."""
    async with Sandbox(1, 1_200) as s, Client(s.url, s.api_key) as client:
        await finish_all(s)
        await rounds(client, s.job_ids[0], *[lambda: asyncio.sleep(0)] * 10)
        assert len(s.requests) == 4 + 10  # the first poll counts, and reads what is open: nothing, so once more
        assert all(f"limit={PAGE_SIZE}&" in one.query + "&" for one in list(s.requests)[4:])


@pytest.mark.parametrize(("new", "requests"), [(1, 1), (30, 1), (31, 2), (900, 2)])
async def test_new_runs_cost_one_request_up_to_thirty(new: int, requests: int) -> None:
    """And one more if there are more of them."""
    async with Sandbox(1, 1_200) as s, Client(s.url, s.api_key) as client:
        await finish_all(s)
        [job_id] = s.job_ids

        async def create() -> None:
            s.requests.clear()
            for _ in range(new):
                await s.create_run(job_id, status="FINISHED")

        _, changes = await rounds(client, job_id, create)
        assert len(changes) == new
        assert len(s.requests) == requests


@pytest.mark.parametrize(("deep", "requests"), [(1, 2), (2, 2), (40, 2)])
async def test_old_open_runs_cost_one_request_more(deep: int, requests: int) -> None:
    """One a poll, however many they are, and one for each that has ended."""
    async with Sandbox(1, 1_200) as s, Client(s.url, s.api_key) as client:
        await finish_all(s)
        [job_id] = s.job_ids
        for one in s.runs(job_id)[-deep:]:
            await s.update_run(job_id, one.id, status="RUNNING", end_time=None)
        last = s.runs(job_id)[-1].id

        async def forget() -> None:
            s.requests.clear()

        results = await rounds(
            client,
            job_id,
            forget,
            *[lambda: asyncio.sleep(0)] * 9,
            lambda: s.finish_run(job_id, last),
            start="open",
        )
        assert len(results[0]) == deep
        assert summary(results[-1]) == [("finished", last, "RUNNING", "FINISHED")]
        assert len(s.requests) == 11 * requests + (
            deep > 1
        )  # one more to see how the one that isn't open any more ended


async def test_deletion_of_an_old_open_run() -> None:
    """It is reported, however far down the run was."""
    async with Sandbox(1, 500) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids
        old = [one for one in s.runs(job_id)[200:] if not one.status.is_terminal]
        _, changes = await rounds(client, job_id, lambda: s.delete_run(job_id, old[-1].id))
        assert [(one.kind, one.run, one.before) for one in changes] == [("deleted", old[-1], old[-1])]


async def test_deletion_of_a_run_whose_name_many_have() -> None:
    """It is looked for by its name, too, in pages as large as can be."""
    async with Sandbox(1, 0) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids
        runs = [await s.create_run(job_id, name="nightly", status="FINISHED") for _ in range(2_500)]
        last = await s.update_run(job_id, runs[0].id, status="RUNNING", end_time=None)
        s.requests.clear()
        _, [change] = await rounds(client, job_id, lambda: s.delete_run(job_id, last.id))
        assert (change.kind, change.run) == ("deleted", last)
        assert len(s.requests) < 100


async def test_very_many_old_runs_end_at_once() -> None:
    """The list is read then, rather than each of them looked up."""
    async with Sandbox(1, 1_200) as s, Client(s.url, s.api_key) as client:
        await finish_all(s)
        [job_id] = s.job_ids
        many = [one.id for one in s.runs(job_id)[1_000:1_300]]
        for run_id in many:
            await s.update_run(job_id, run_id, status="RUNNING")

        async def end() -> None:
            s.requests.clear()
            for run_id in many:
                await s.finish_run(job_id, run_id)

        _, changes = await rounds(client, job_id, end)
        assert {one.run.id for one in changes} == set(many)
        assert len(s.requests) <= 2 + math.ceil(2_500 / 999) + 2


async def test_a_burst_and_as_many_deletions() -> None:
    """Every new run is reported, though the number of runs hasn't grown."""
    async with Sandbox(1, 1_200) as s, Client(s.url, s.api_key) as client:
        await finish_all(s)
        [job_id] = s.job_ids

        async def churn() -> None:
            for one in s.runs(job_id)[1_000:1_900]:
                await s.delete_run(job_id, one.id)
            for number in range(800):
                await s.create_run(job_id, id=f"new-{number}")

        _, changes = await rounds(client, job_id, churn)
        assert [(one.kind, one.run.id) for one in changes] == [("appeared", f"new-{number}") for number in range(800)]


async def test_deletions_one_page_after_the_other() -> None:
    """Ended runs that move up as others are deleted are watched for deletion too."""
    async with Sandbox(1, 300) as s, Client(s.url, s.api_key) as client:
        await finish_all(s)
        [job_id] = s.job_ids
        runs = s.runs(job_id)

        def delete(start: int, stop: int) -> Any:
            async def work() -> None:
                for one in runs[start:stop]:
                    await s.delete_run(job_id, one.id)

            return work

        _, *gone = await rounds(client, job_id, delete(0, 40), delete(40, 80), delete(80, 120))
        assert [{one.run.id for one in changes} for changes in gone] == [
            {one.id for one in runs[start : start + 40]} for start in (0, 40, 80)
        ]


async def test_filters() -> None:
    """Most choose runs; the status chooses changes."""
    async with Sandbox(1, 100) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids

        async def create() -> None:
            for name in ("a-1", "b-1", "a-2"):
                await s.create_run(job_id, id=f"id-{name}", name=name)

        async def end() -> None:
            await s.finish_run(job_id, "id-a-1", "FAILED")
            await s.finish_run(job_id, "id-b-1", "FAILED")
            await s.finish_run(job_id, "id-a-2")

        _, none, failed = await rounds(client, job_id, create, end, search_prefix="a-", status="FAILED")
        assert none == []
        assert summary(failed) == [("finished", "id-a-1", "CREATED", "FAILED")]


async def test_a_token_stands_for_all_jobs() -> None:
    """Whichever job's change it comes from."""
    async with Sandbox(5, 60) as s, Client(s.url, s.api_key) as client:

        async def create() -> None:
            for job_id in s.job_ids:
                await s.create_run(job_id, id=f"of-{job_id}")

        _, changes = await rounds(client, s.job_ids, create)
        assert {(one.job_id, one.run.id) for one in changes} == {(job_id, f"of-{job_id}") for job_id in s.job_ids}
        [rest] = await rounds(client, s.job_ids, resume_token=changes[2].resume_token)
        assert {one.run.id for one in changes[3:]} == {one.run.id for one in rest}
        [nothing] = await rounds(client, s.job_ids, resume_token=changes[-1].resume_token)
        assert nothing == []


async def test_resumed_after_a_long_time() -> None:
    """What happened while nobody watched is reported: ends, deletions, and many new runs."""
    async with Sandbox(1, 1_200) as s:
        [job_id] = s.job_ids
        async with Client(s.url, s.api_key) as client:
            _, [change] = await rounds(client, job_id, lambda: s.create_run(job_id, id="first"))
        old = [one.id for one in s.runs(job_id) if not one.status.is_terminal][-1]
        for number in range(1_200):
            await s.create_run(job_id, id=f"new-{number}")
        await s.finish_run(job_id, old)
        await s.delete_run(job_id, "first")
        async with Client(s.url, s.api_key) as client:
            [changes] = await rounds(client, job_id, resume_token=change.resume_token)
        assert [(one.kind, one.run.id) for one in changes] == [
            ("finished", old),
            *(("appeared", f"new-{number}") for number in range(1_200)),
            ("deleted", "first"),  # which is confirmed later
        ]


async def test_a_job_that_is_new_to_the_token() -> None:
    """It begins as `start` says."""
    async with Sandbox(["a", "b"], 60) as s, Client(s.url, s.api_key) as client:
        _, [change] = await rounds(client, "a", lambda: s.create_run("a"))
        [changes] = await rounds(client, ["a", "b"], start="open", resume_token=change.resume_token)
        assert {one.run.id for one in changes} == {one.id for one in s.runs("b") if not one.status.is_terminal}


async def test_a_busy_consumer() -> None:
    """A job isn't polled while its changes wait to be taken."""
    async with Sandbox(1, 60) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids
        async with aclosing(client.watch_runs(job_id, interval=0.001, start="open")) as changes:
            first = await anext(changes)
            requests = len(s.requests)
            await s.update_run(job_id, first.run.id, status="RUNNING", command="a")
            await asyncio.sleep(0.1)
            assert len(s.requests) == requests
            await s.update_run(job_id, first.run.id, status="RUNNING", command="b")
            async for change in changes:
                if change.run.id == first.run.id:
                    assert (change.before, change.run.command) == (first.run, "b")
                    break


async def test_the_pace() -> None:
    """Short pauses while runs change, longer ones up to the most while nothing happens."""
    waits: list[float] = []
    async with Sandbox(1, 60) as s, Client(s.url, s.api_key) as client:

        async def pause(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 20:
                await s.create_run(s.job_ids[0])

        async with aclosing(stepped(client, s.job_ids, pause, interval=(2.0, 30.0)).changes()) as changes:
            await anext(changes)
            later = asyncio.ensure_future(anext(changes))
            while len(waits) < 30:
                await asyncio.sleep(0)
            later.cancel()
            await asyncio.gather(later, return_exceptions=True)
    assert all(2 <= wait <= 30 for wait in waits)
    assert min(waits[10:20]) > 20
    assert waits[20] == 2
    assert waits[21] < 4
    assert len(set(waits)) > 20  # no two jobs stay in step


def test_a_fixed_interval() -> None:
    """It is kept; after a failure the pause is the longest."""
    trouble = Trouble("the watch", time.monotonic)
    assert {PollSchedule("job", (5, 5), trouble).next(changed=changed) for changed in (True, False)} == {5}
    away = tfruns.APIConnectionError("away")
    assert PollSchedule("job", (1, 60), trouble).after_failure(away, was_polled=True) == 60


async def test_cancelled_with_polls_in_flight() -> None:
    """No task is left."""
    async with Sandbox(3, 60) as s, Client(s.url, s.api_key) as client:
        s.faults.append(Fault(latency=30.0))
        watch = client.watch_runs(s.job_ids)
        pending = asyncio.ensure_future(anext(watch))
        while not [task for task in asyncio.all_tasks() if task.get_name().startswith("tfruns watch")]:
            await asyncio.sleep(0.01)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await watch.aclose()
        assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("tfruns")] == []


async def test_closing_the_client() -> None:
    """It ends the watch at once."""
    async with Sandbox(1, 60) as s:
        client = Client(s.url, s.api_key)
        watch = client.watch_runs(s.job_ids, interval=3_600)
        pending = asyncio.ensure_future(anext(watch))
        while len(s.requests) < 2:
            await asyncio.sleep(0.01)
        await client.aclose()
        with pytest.raises(tfruns.ClientClosedError):
            await asyncio.wait_for(pending, 30)


async def test_what_a_snapshot_keeps() -> None:
    """The open runs and the newest ended ones, not all that there were."""
    async with Sandbox(1, 60) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids

        async def burst() -> None:
            for _ in range(300):
                await s.create_run(job_id, status="FINISHED")

        results = await rounds(client, job_id, *[burst] * 4)
        token = results[-1][-1].resume_token
        snapshot = decode(token, [job_id], {})[job_id]
        assert isinstance(snapshot, Snapshot)
        still_open = sum(not one.status.is_terminal for one in s.runs(job_id))
        ended = [one for one in snapshot.known.values() if one is not None and one.status.is_terminal]
        assert (len(snapshot.known), len(ended)) == (still_open + KEPT, KEPT)
        assert len(results[-1][150].resume_token) < 2 * len(token)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"job_ids": []}, ValueError, "job_ids is empty"),
        ({"job_ids": [""]}, ValueError, "job_id is empty"),
        ({"job_ids": 3}, TypeError, "job_id must be a string, got 3"),
        ({"interval": 0}, ValueError, "interval must be above 0"),
        ({"interval": (5, 2)}, ValueError, "the least seconds and then the most"),
        ({"interval": "often"}, TypeError, "interval must be above 0"),
        ({"interval": [1, 2]}, TypeError, r"or a tuple of the least and the most, such as \(2, 30\), got \[1, 2\]"),
        ({"interval": (1, math.nan)}, ValueError, "interval must be above 0"),
        ({"start": "later"}, ValueError, "start must be one of 'now', 'open', 'existing', or a datetime"),
        ({"start": "opn"}, ValueError, "got 'opn': did you mean 'open'"),
        ({"on_error": "skp"}, ValueError, "got 'skp': did you mean 'skip'"),
        ({"start": datetime(2026, 1, 1)}, ValueError, "a datetime with a time zone"),  # noqa: DTZ001
        ({"start": 5}, TypeError, "start must be one of"),
        ({"job_ids": b"job"}, TypeError, "job_id must be a string, got b'job'"),
        ({"on_error": "ignore"}, ValueError, "on_error must be 'raise', 'skip' or a function"),
        ({"status": "DONE"}, ValueError, "status must be one of"),
        ({"filter": RunFilter(order="asc")}, ValueError, "an order or a time of creation"),
        ({"filter": RunFilter(created_after=1e12)}, ValueError, "an order or a time of creation"),
        (
            {"filter": RunFilter(status="FAILED"), "search_prefix": "a"},
            ValueError,
            "no single filter, got search_prefix",
        ),
        ({"resume_token": 5}, TypeError, "resume_token must be a string"),
        ({"resume_token": ""}, ValueError, "resume_token must begin with 'tfruns1.'"),
        ({"resume_token": "tfruns2.abc"}, ValueError, "resume_token must begin with 'tfruns1.'"),
        ({"resume_token": "tfruns1.abc"}, ValueError, "resume_token is damaged"),
        ({"resume_token": "tfruns1.äöü"}, ValueError, "resume_token is damaged"),
    ],
)
async def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    """They fail at the call, and the message says what is allowed."""
    async with Client("http://localhost", "key") as client:
        with pytest.raises(error, match=says):
            client.watch_runs(**{"job_ids": "job", **arguments})


async def test_one_checked_filter() -> None:
    """It is taken in place of single ones, and means the same, in a token too."""
    async with Sandbox(["job"], 60) as s, Client(s.url, s.api_key) as client:
        token = ""
        for arguments in ({"filter": RunFilter(search_prefix="new", status="FAILED")}, {"search_prefix": "new"}):

            async def create() -> None:
                for name in ("new-1", "old-1"):
                    await s.create_run("job", name=name, status="FAILED")
                await s.create_run("job", name="new-2", status="RUNNING")

            _, changes = await rounds(client, "job", create, resume_token=token or None, **arguments)
            assert [one.run.name for one in changes] == (["new-1", "new-2"] if token else ["new-1"])
            token = changes[-1].resume_token


async def made_token() -> str:
    async with Sandbox(["job"], 60) as s, Client(s.url, s.api_key) as client:
        _, [change] = await rounds(client, "job", lambda: s.create_run("job"), search_prefix="train")
        return str(change.resume_token)


async def test_a_token_is_plain_and_compact() -> None:
    """It decodes to what it was made from."""
    token = await made_token()
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token
    assert len(token) < 16_000
    filters = {"search_prefix": "train"}
    state = decode(token, ["job"], filters)
    assert isinstance(state["job"], Snapshot)
    assert state["job"].known
    assert decode(encode(state, filters), ["job"], filters) == state


async def test_a_damaged_or_foreign_token() -> None:
    """It is refused, and the message says which of both it is."""
    token = await made_token()
    for bad in (token[:-1], token[:-7], token[: len(token) // 2], token[:9], token + "AAAA", token[:99] + token[100:]):
        with pytest.raises(ValueError, match="resume_token is damaged"):
            decode(bad, ["job"], {"search_prefix": "train"})
    with pytest.raises(ValueError, match="other filters: {'search_prefix': 'train'}, got {}"):
        decode(token, ["job"], {})
    with pytest.raises(ValueError, match="other jobs: 'job'"):
        decode(token, ["another"], {"search_prefix": "train"})


async def test_an_order_that_is_not_that_of_creation() -> None:
    """It makes for no false deletions."""
    shown = [run(n, createdAt=1_700_000_000_000 + n % 7) for n in range(200)]

    def handler(request: Any) -> bytes:
        if "status=" in request.target:
            return response(200, page([]))
        return response(200, page(shown[request.offset : request.offset + request.limit], len(shown)))

    async with serve(handler) as (url, _), Client(url, "key") as client:

        async def delete() -> None:
            shown.insert(0, run(777, createdAt=1_700_000_000_900))

        results = await rounds(client, "job", delete)
    assert [(one.kind, one.run.id) for changes in results for one in changes] == [("finished", "run-777")]


@pytest.mark.usefixtures("quick_clock")
async def test_a_first_poll_that_is_in_flight_when_reports_begin() -> None:
    """It is done again: what has ended since the newest event of the other jobs is reported."""
    may_respond, begun = asyncio.Event(), 1_700_000_000_000

    async def reply(request: Request) -> bytes:
        if "/late/" in request.target:
            await may_respond.wait()
            return response(200, page([run(5, createdAt=begun - 100, endTime=begun + 5)]))
        return response(200, page([run(1, createdAt=begun + 10), run(0)] if request.number > 3 else [run(0)]))

    async with asyncio.timeout(20), serve(reply) as (url, _), Client(url, "key") as client:
        async with aclosing(client.watch_runs(["job", "late"], interval=1)) as changes:
            first = await anext(changes)
            may_respond.set()
            second = await anext(changes)
    assert [(one.job_id, one.kind, one.run.id) for one in (first, second)] == [
        ("job", "finished", "run-1"),
        ("late", "finished", "run-5"),
    ]


def sample(number: int, status: str = "FINISHED") -> JobRun:
    return JobRun(
        id=f"run-{number}",
        name="name",
        application_name="app",
        deployment_version="1",
        created_at=number,
        command="true",
        status=tfruns.JobRunStatus(status),
    )


def test_a_snapshot_amid_a_burst() -> None:
    """Its floor stays below what is still to be reported."""
    ended = {f"run-{n}": sample(n) for n in range(100, 100 + 2 * KEPT)}
    steps = [RunChange(kind=ChangeKind.FINISHED, job_id="job", run=sample(number), before=None) for number in (99, 110)]
    before = Snapshot(ended, 50)
    view = Found(before, steps, before).snapshot(1)
    assert view.floor < 110


def test_what_a_poll_could_not_find_out() -> None:
    """It is left as it was."""
    view = Snapshot({"run-5": sample(5, "RUNNING"), "run-90": sample(90)}, 80)
    look = PollResult({"run-90": sample(90)}, 90)
    assert compare("job", view, look) == Found(view, [], view)


def test_a_run_that_was_deleted_before_it_was_reported() -> None:
    """It is neither reported nor searched for again."""
    view = Snapshot({"run-5": None, "run-90": sample(90)}, 80)
    found = compare("job", view, PollResult({"run-5": None, "run-90": sample(90)}, 80))
    assert (found.changes, [*found.after.known]) == ([], ["run-90"])


def test_deletions_that_are_forgotten() -> None:
    """That of a run that is there again, and all but the last thousand: they stand in each token."""
    known: dict[str, JobRun | None] = {f"run-{n}": sample(n, "RUNNING") for n in range(1_100)}
    after = compare("job", Snapshot(known, 0), PollResult(dict.fromkeys(known), 1_099)).after
    assert [*after.deleted] == [*known][100:]
    again = compare("job", after, PollResult({"run-1099": sample(1_099)}, 1_098)).after
    assert [*again.deleted] == [*known][100:1_099]


async def test_start_before_the_first_run() -> None:
    """Then every run is reported."""
    async with Sandbox(1, 70) as s, Client(s.url, s.api_key) as client:
        [everything] = await rounds(client, s.job_ids, start=datetime(1990, 1, 1, tzinfo=UTC))
        assert len(everything) == 70


async def test_a_run_that_only_its_name_finds() -> None:
    """It isn't taken for deleted."""
    shown = [run(n, status="RUNNING" if n == 90 else "FINISHED") for n in range(100)]

    def handler(request: Any) -> bytes:
        if "searchPrefix=run-" in request.target:
            return response(200, page([]))
        if "searchPrefix=name-" in request.target or "status=" in request.target:
            return response(200, page([shown[90]]))
        return response(200, page(shown[request.offset : request.offset + request.limit], len(shown)))

    async with serve(handler) as (url, requests), Client(url, "key") as client:
        results = await rounds(client, "job", lambda: asyncio.sleep(0))
        assert results == [[], []]
        assert "searchPrefix=name-90" in requests[-1].target
