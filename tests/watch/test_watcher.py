"""What a watch tells, which requests it makes for it, and how it ends."""

import asyncio
import logging
import math
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest

import tfruns
from tests.support.hostile import answer, page, run, serve
from tests.support.watching import rounds, stepped
from tfruns import ChangeKind, Client, JobRun, RetryPolicy, RunChange
from tfruns._watch.diff import KEPT, Change, Poll, Snapshot, compare
from tfruns._watch.pace import Pace
from tfruns._watch.poll import PAGE_SIZE
from tfruns._watch.token import decode, encode
from tfruns.sandbox import Fault, Sandbox

ONCE = RetryPolicy(max_attempts=1)


async def finish_all(s: Sandbox) -> None:
    """Leave no run open."""
    for job_id in s.job_ids:
        for one in s.runs(job_id):
            if not one.status.is_terminal:
                await s.finish_run(job_id, one.id)


def told(changes: list[RunChange]) -> list[tuple[str, str, str | None, str]]:
    return [(one.kind, one.run.id, one.before and one.before.status, one.run.status) for one in changes]


async def test_a_run_is_told_as_it_appears_changes_and_finishes() -> None:
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
        assert [told(changes) for changes in later] == [
            [("appeared", "one", None, "CREATED")],
            [("changed", "one", "CREATED", "RUNNING")],
            [],
            [("finished", "one", "RUNNING", "FAILED")],
            [("deleted", "one", "FAILED", "FAILED")],
        ]
        assert {change.job_id for changes in later for change in changes} == {job_id}


async def test_states_between_two_looks_are_merged() -> None:
    async with Sandbox(1, 30) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids

        async def live_and_end() -> None:
            await s.create_run(job_id, id="ended")
            await s.update_run(job_id, "ended", status="RUNNING")
            await s.finish_run(job_id, "ended")
            await s.create_run(job_id, id="gone")
            await s.delete_run(job_id, "gone")

        assert told((await rounds(client, job_id, live_and_end))[1]) == [("finished", "ended", None, "FINISHED")]


async def test_a_duration_that_grows_is_no_change_but_is_kept_up_with() -> None:
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
async def test_it_starts_from_now_from_a_time_with_the_open_runs_or_with_all(start: str) -> None:
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
async def test_a_token_in_the_midst_of_what_was_there_goes_on_with_the_rest(start: str) -> None:
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


async def test_a_quiet_job_costs_one_small_request_a_look() -> None:
    async with Sandbox(1, 2_500) as s, Client(s.url, s.api_key) as client:
        await finish_all(s)
        await rounds(client, s.job_ids[0], *[lambda: asyncio.sleep(0)] * 10)
        assert len(s.requests) == 2 + 10  # the first look asks for the open runs too
        assert all(f"limit={PAGE_SIZE}&" in one.query + "&" for one in list(s.requests)[2:])


@pytest.mark.parametrize(("deep", "requests"), [(1, 2), (2, 2), (40, 2)])
async def test_old_runs_that_are_open_cost_one_request_more(deep: int, requests: int) -> None:
    async with Sandbox(1, 2_500) as s, Client(s.url, s.api_key) as client:
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
        assert told(results[-1]) == [("finished", last, "RUNNING", "FINISHED")]
        assert len(s.requests) == 11 * requests + (
            deep > 1
        )  # one more to see how the one that isn't open any more ended


async def test_an_old_run_that_is_deleted_while_it_is_open_is_told() -> None:
    async with Sandbox(1, 500) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids
        old = [one for one in s.runs(job_id)[200:] if not one.status.is_terminal]
        _, changes = await rounds(client, job_id, lambda: s.delete_run(job_id, old[-1].id))
        assert [(one.kind, one.run, one.before) for one in changes] == [("deleted", old[-1], old[-1])]


async def test_when_very_many_old_runs_end_at_once_the_list_is_read_rather_than_each_of_them() -> None:
    async with Sandbox(1, 2_500) as s, Client(s.url, s.api_key) as client:
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


async def test_a_burst_behind_which_as_many_were_deleted_is_told_whole() -> None:
    async with Sandbox(1, 2_000) as s, Client(s.url, s.api_key) as client:
        await finish_all(s)
        [job_id] = s.job_ids

        async def churn() -> None:
            for one in s.runs(job_id)[1_000:1_900]:
                await s.delete_run(job_id, one.id)
            for number in range(800):
                await s.create_run(job_id, id=f"new-{number}")

        _, changes = await rounds(client, job_id, churn)
        assert [(one.kind, one.run.id) for one in changes] == [("appeared", f"new-{number}") for number in range(800)]


async def test_runs_that_come_into_sight_as_others_are_deleted_are_watched_for_deletion() -> None:
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


async def test_the_filters_choose_runs_and_the_status_chooses_changes() -> None:
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
        assert told(failed) == [("finished", "id-a-1", "CREATED", "FAILED")]


async def test_many_jobs_are_told_apart_and_their_token_stands_for_all() -> None:
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


async def test_a_token_knows_what_happened_while_nobody_watched() -> None:
    async with Sandbox(1, 2_000) as s:
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
            ("deleted", "first"),
            *(("appeared", f"new-{number}") for number in range(1_200)),
        ]


async def test_a_job_that_the_token_does_not_know_begins_as_start_says() -> None:
    async with Sandbox(["a", "b"], 60) as s, Client(s.url, s.api_key) as client:
        _, [change] = await rounds(client, "a", lambda: s.create_run("a"))
        [changes] = await rounds(client, ["a", "b"], start="open", resume_token=change.resume_token)
        assert {one.run.id for one in changes} == {one.id for one in s.runs("b") if not one.status.is_terminal}


async def test_a_look_that_fails_is_a_warning_and_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with Sandbox(1, 60) as s, Client(s.url, s.api_key, retry=ONCE) as client:
        [job_id] = s.job_ids
        faults: list[Fault] = [Fault(status=503), Fault(status=429), Fault(breaks="reset"), Fault(status=408)]

        def fail(fault: Fault) -> Any:
            async def work() -> None:
                s.faults[:] = [fault]
                await s.create_run(job_id)

            return work

        async def mend() -> None:
            s.faults.clear()

        with caplog.at_level(logging.WARNING, "tfruns"):
            _, *failed, mended = await rounds(client, job_id, *map(fail, faults), mend)
        assert failed == [[]] * len(faults)
        assert len(mended) == len(faults)
        goes_on = [record for record in caplog.records if "the watch goes on" in record.message]
        assert len(goes_on) == len(faults)
        assert all(job_id in record.message for record in goes_on)


@pytest.mark.parametrize(
    ("status", "error"), [(401, tfruns.AuthenticationError), (403, tfruns.PermissionDeniedError), (404, None)]
)
async def test_what_will_not_pass_ends_the_watch(status: int, error: type[Exception] | None) -> None:
    async with Sandbox(1, 60) as s, Client(s.url, s.api_key) as client:

        async def refuse() -> None:
            s.faults.append(Fault(status=status))

        with pytest.raises(error or tfruns.NotFoundError):
            await rounds(client, s.job_ids, refuse)


async def test_no_look_is_made_while_the_consumer_is_busy() -> None:
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


async def test_it_looks_more_often_while_runs_move_and_within_the_limits() -> None:
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


def test_a_fixed_interval_is_kept_and_a_failure_waits_the_longest() -> None:
    assert {Pace((5, 5)).next(changed=changed) for changed in (True, False)} == {5}
    assert Pace((1, 60)).after_failure() == 60


async def test_ending_it_leaves_no_task_even_while_looks_are_under_way() -> None:
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


async def test_closing_the_client_ends_it_at_once() -> None:
    async with Sandbox(1, 60) as s:
        client = Client(s.url, s.api_key)
        watch = client.watch_runs(s.job_ids, interval=3_600)
        pending = asyncio.ensure_future(anext(watch))
        while len(s.requests) < 2:
            await asyncio.sleep(0.01)
        await client.aclose()
        with pytest.raises(tfruns.ClientClosedError):
            await asyncio.wait_for(pending, 30)


async def test_memory_is_bounded_by_what_is_open_and_not_by_what_was_there() -> None:
    async with Sandbox(1, 60) as s, Client(s.url, s.api_key) as client:
        [job_id] = s.job_ids

        async def burst() -> None:
            for _ in range(300):
                await s.create_run(job_id, status="FINISHED")

        results = await rounds(client, job_id, *[burst] * 4)
        token = results[-1][-1].resume_token
        snapshot = decode(token, [job_id], {}).snapshots[job_id]
        still_open = sum(not one.status.is_terminal for one in s.runs(job_id))
        assert (len(snapshot.open), len(snapshot.ended)) == (still_open, KEPT)
        assert len(results[-1][150].resume_token) < 2 * len(token)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"job_ids": []}, ValueError, "job_ids is empty"),
        ({"job_ids": [""]}, ValueError, "job_id is empty"),
        ({"job_ids": 3}, TypeError, "job_id must be a string, got 3"),
        ({"interval": 0}, ValueError, "interval must be above 0"),
        ({"interval": (5, 2)}, ValueError, "the least seconds and then the most"),
        ({"interval": "often"}, TypeError, "interval must be seconds"),
        ({"interval": (1, math.nan)}, ValueError, "interval must be above 0"),
        ({"start": "later"}, ValueError, "start must be one of 'now', 'open', 'existing', or a datetime"),
        ({"start": datetime(2026, 1, 1)}, ValueError, "a datetime with a zone"),  # noqa: DTZ001
        ({"start": 5}, TypeError, "start must be one of"),
        ({"status": "DONE"}, ValueError, "status must be one of"),
        ({"resume_token": 5}, TypeError, "resume_token must be a string"),
        ({"resume_token": ""}, ValueError, "resume_token must begin with 'tfruns1.'"),
        ({"resume_token": "tfruns2.abc"}, ValueError, "resume_token must begin with 'tfruns1.'"),
        ({"resume_token": "tfruns1.abc"}, ValueError, "resume_token is damaged"),
        ({"resume_token": "tfruns1.äöü"}, ValueError, "resume_token is damaged"),
    ],
)
async def test_bad_arguments_fail_at_the_call(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    async with Client("http://localhost", "key") as client:
        with pytest.raises(error, match=says):
            client.watch_runs(**{"job_ids": "job", **arguments})


async def made_token() -> str:
    async with Sandbox(["job"], 60) as s, Client(s.url, s.api_key) as client:
        _, [change] = await rounds(client, "job", lambda: s.create_run("job"), search_prefix="train")
        return str(change.resume_token)


async def test_a_token_is_plain_compact_and_survives_the_way_back() -> None:
    token = await made_token()
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token
    assert len(token) < 16_000
    filters = {"search_prefix": "train"}
    assert encode(decode(token, ["job"], filters), filters) == token


async def test_a_token_that_was_cut_off_changed_or_is_another_watchs_is_refused() -> None:
    token = await made_token()
    for bad in (token[:-1], token[:-7], token[: len(token) // 2], token[:9], token + "AAAA", token[:99] + token[100:]):
        with pytest.raises(ValueError, match="resume_token is damaged"):
            decode(bad, ["job"], {"search_prefix": "train"})
    with pytest.raises(ValueError, match="other filters: {'search_prefix': 'train'}, got {}"):
        decode(token, ["job"], {})
    with pytest.raises(ValueError, match="other jobs: 'job'"):
        decode(token, ["another"], {"search_prefix": "train"})


async def test_a_server_whose_order_is_not_that_of_creation_makes_no_false_deletions() -> None:
    shown = [run(n, createdAt=1_700_000_000_000 + n % 7) for n in range(200)]

    def handler(request: Any) -> bytes:
        if "status=" in request.target:
            return answer(200, page([]))
        return answer(200, page(shown[request.offset : request.offset + request.limit], len(shown)))

    async with serve(handler) as (url, _), Client(url, "key") as client:

        async def delete() -> None:
            shown.insert(0, run(777, createdAt=1_700_000_000_900))

        results = await rounds(client, "job", delete)
    assert [(one.kind, one.run.id) for changes in results for one in changes] == [("finished", "run-777")]


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


def test_a_view_in_the_midst_of_a_burst_never_forgets_where_the_untold_begins() -> None:
    ended = {f"run-{n}": sample(n) for n in range(100, 100 + 2 * KEPT)}
    steps = [Change(ChangeKind.FINISHED, sample(99), None), Change(ChangeKind.FINISHED, sample(110), None)]
    view = Snapshot({}, ended, 50, 200).after(steps[:1], steps[1:])
    assert view.floor < 110


def test_what_a_look_could_not_find_out_is_left_as_it_is() -> None:
    view = Snapshot({"run-5": sample(5, "RUNNING")}, {"run-90": sample(90)}, 80, 100)
    look = Poll([sample(90)], False, {}, 100)
    assert compare(view, look) == ((), view)


async def test_a_time_to_start_from_may_be_before_the_first_run() -> None:
    async with Sandbox(1, 70) as s, Client(s.url, s.api_key) as client:
        [everything] = await rounds(client, s.job_ids, start=datetime(1990, 1, 1, tzinfo=UTC))
        assert len(everything) == 70


async def test_an_open_run_that_only_its_name_finds_is_not_taken_for_deleted() -> None:
    shown = [run(n, status="RUNNING" if n == 90 else "FINISHED") for n in range(100)]

    def handler(request: Any) -> bytes:
        if "searchPrefix=run-" in request.target:
            return answer(200, page([]))
        if "searchPrefix=name-" in request.target or "status=" in request.target:
            return answer(200, page([shown[90]]))
        return answer(200, page(shown[request.offset : request.offset + request.limit], len(shown)))

    async with serve(handler) as (url, requests), Client(url, "key") as client:
        results = await rounds(client, "job", lambda: asyncio.sleep(0))
        assert results == [[], []]
        assert "searchPrefix=name-90" in requests[-1].target
