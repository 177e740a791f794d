"""The sandbox over real HTTP: it keeps the contract, and says of its runs what its runs are."""

import asyncio
import hashlib
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import attrs
import pytest
from yarl import URL

from tfruns.models import JobRun, JobRunsSortBy, JobRunStatus, SortDirection, Subject, SubjectType
from tfruns.sandbox import Sandbox, SeenRequest

Pairs = list[tuple[str, Any]]


@attrs.frozen
class Response:
    status: int
    headers: Any
    body: Any

    @property
    def ids(self) -> list[str]:
        return [run["id"] for run in self.body["data"]]


@attrs.frozen
class Http:
    """A plain HTTP client of one sandbox, with its key."""

    sandbox: Sandbox
    session: aiohttp.ClientSession

    async def send(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> Response:
        if headers is None:
            headers = {"Authorization": f"Bearer {self.sandbox.api_key}"}
        url = URL(self.sandbox.url + path, encoded=True)
        async with self.session.request(method, url, headers=headers) as response:
            text = await response.text()
            return Response(response.status, response.headers, json.loads(text) if text else None)

    async def runs(self, *query: tuple[str, Any], job: str | None = None) -> Response:
        return await self.send(f"{path_of(job or self.sandbox.job_ids[0])}?{urlencode(query)}")

    async def all_ids(self, *query: tuple[str, Any]) -> list[str]:
        return (await self.runs(("limit", 1000), *query)).ids


def path_of(job_id: str) -> str:
    return f"/api/svc/v1/jobs/{quote(job_id, safe='')}/runs"


@pytest.fixture
async def http() -> AsyncGenerator[Http, None]:
    async with Sandbox(2, (300, 30), seed=12) as sandbox, aiohttp.ClientSession() as session:
        yield Http(sandbox, session)


@pytest.fixture
def job(http: Http) -> str:
    return http.sandbox.job_ids[0]


@pytest.fixture
def stored(http: Http, job: str) -> list[JobRun]:
    return http.sandbox.runs(job)


def ids(runs: list[JobRun]) -> list[str]:
    return [run.id for run in runs]


def is_http_error(response: Response, status: int) -> bool:
    return (
        response.status == status
        and response.headers["Content-Type"].startswith("application/json")
        and response.body["statusCode"] == status
        and isinstance(response.body["message"], str)
        and set(response.body) == {"statusCode", "message", "code", "details"}
    )


# --- who is let in, and where to ---


@pytest.mark.parametrize(
    "value", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic {key}", "{key}", "Bearer {key}x"]
)
async def test_no_or_another_key_is_refused(http: Http, job: str, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value.format(key=http.sandbox.api_key)}
    response = await http.send(path_of(job), headers=headers)
    assert is_http_error(response, 401)
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_the_name_of_the_scheme_may_be_in_any_case(http: Http, job: str) -> None:
    response = await http.send(path_of(job), headers={"Authorization": f"bEARER {http.sandbox.api_key}"})
    assert response.status == 200


async def test_a_sandbox_does_not_accept_the_key_of_another(http: Http, job: str) -> None:
    async with Sandbox(1, 1) as other:
        response = await http.send(path_of(job), headers={"Authorization": f"Bearer {other.api_key}"})
    assert response.status == 401


async def test_the_key_can_be_chosen() -> None:
    async with Sandbox(1, 1, api_key="tfy-my-key") as sandbox, aiohttp.ClientSession() as session:
        assert sandbox.api_key == "tfy-my-key"
        assert (await Http(sandbox, session).runs()).status == 200


async def test_an_unknown_job_is_a_404_that_names_it(http: Http) -> None:
    response = await http.send(path_of("no/such job"))
    assert is_http_error(response, 404)
    assert "no/such job" in response.body["message"]


@pytest.mark.parametrize(
    "path", ["/", "/api/svc/v1/jobs", "/api/svc/v1/jobs//runs", "/api/svc/v1/jobs/a/b/runs", "{}/", "{}/x", "/x{}"]
)
async def test_another_path_is_a_404(http: Http, job: str, path: str) -> None:
    assert is_http_error(await http.send(path.format(path_of(job))), 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_another_method_is_a_405(http: Http, job: str, method: str) -> None:
    response = await http.send(path_of(job), method)
    assert is_http_error(response, 405)
    assert response.headers["Allow"] == "GET"


async def test_head_is_a_405_without_a_body(http: Http, job: str) -> None:
    response = await http.send(path_of(job), "HEAD")
    assert (response.status, response.body) == (405, None)


async def test_every_response_has_a_request_id_of_its_own(http: Http, job: str) -> None:
    responses = [
        await http.runs(),
        await http.runs(("limit", 0)),
        await http.send("/"),
        await http.send(path_of("none")),
        await http.send(path_of(job), "POST"),
        await http.send(path_of(job), headers={}),
    ]
    assert [response.status for response in responses] == [200, 422, 404, 404, 405, 401]
    assert len({response.headers["x-request-id"] for response in responses}) == len(responses)


@pytest.mark.parametrize(
    "job_id", ["a/b", "a/b/../c", "..", "50%", "%2F", "ä 学 🚀", "e\u0301", "a?b#c&d", "a+b c", "a;b", "\n\0"]
)
async def test_a_job_id_is_one_segment_whatever_it_holds(job_id: str) -> None:
    async with Sandbox([job_id, "a"], (3, 5)) as sandbox, aiohttp.ClientSession() as session:
        response = await Http(sandbox, session).runs()
        assert response.ids == ids(sandbox.runs(job_id))
        assert len(response.ids) == 3


async def test_percent_encoding_may_be_in_lower_case_and_of_any_character() -> None:
    async with Sandbox(["a/b"], 3) as sandbox, aiohttp.ClientSession() as session:
        response = await Http(sandbox, session).send("/api/svc/v1/jobs/%61%2fb/runs")
        assert response.status == 200


# --- the query ---

NOT_WHOLE = ("", " ", "x", "-1", "1.0", "1e2", "+1", "1_0", "\u0661", "null", "9" * 5000)
NOT_NUMBERS = ("", " 1", "x", "1,2", "nan", "inf", "1e999", "1_0", "0x1", ".5", "5.", "\u0661")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(["limit", "offset"], NOT_WHOLE),
        ("limit", "0"),
        ("limit", "1001"),
        ("sortBy", ""),
        ("sortBy", "createdAt"),
        ("sortBy", "DURATION"),
        ("order", ""),
        ("order", "DESC"),
        ("order", "down"),
        ("status", ""),
        ("status", "failed"),
        ("status", "FAILED,RUNNING"),
        *itertools.product(["versionNumbers"], NOT_NUMBERS),
    ],
)
async def test_a_bad_value_is_a_422_that_names_the_parameter_and_the_value(http: Http, name: str, value: str) -> None:
    response = await http.runs((name, value))
    assert is_http_error(response, 422)
    assert name in response.body["message"]
    [detail] = response.body["details"]
    assert (detail["parameter"], detail["value"]) == (name, value)


async def test_every_bad_parameter_is_named_at_once(http: Http) -> None:
    bad: Pairs = [
        ("limit", "0"),
        ("offset", "-1"),
        ("status", "X"),
        ("status", "FAILED"),
        ("status", "Y"),
        ("order", ""),
    ]
    response = await http.runs(*bad)
    assert is_http_error(response, 422)
    named = [(detail["parameter"], detail["value"]) for detail in response.body["details"]]
    assert sorted(named) == sorted(pair for pair in bad if pair != ("status", "FAILED"))


@pytest.mark.parametrize("name", ["limit", "offset", "searchPrefix", "sortBy", "order"])
async def test_what_has_one_value_may_not_be_given_twice(http: Http, name: str) -> None:
    value = {"sortBy": "status", "order": "asc"}.get(name, "1")
    response = await http.runs((name, value), (name, value))
    assert is_http_error(response, 422)
    assert response.body["details"][0]["parameter"] == name


async def test_an_unknown_parameter_is_ignored(http: Http, stored: list[JobRun]) -> None:
    assert await http.all_ids(("page", "2"), ("status[]", "X")) == ids(stored)


@pytest.mark.parametrize(
    ("query", "limit", "offset"),
    [
        ([], 100, 0),
        ([("limit", 1)], 1, 0),
        ([("offset", 650)], 100, 650),
        ([("limit", 1000), ("offset", 10)], 1000, 10),
    ],
)
async def test_a_page_is_the_slice_that_was_requested(
    http: Http, stored: list[JobRun], query: Pairs, limit: int, offset: int
) -> None:
    response = await http.runs(*query)
    assert response.ids == ids(stored)[offset : offset + limit]
    assert response.body["pagination"] == {"total": 300, "offset": offset, "limit": limit}


@pytest.mark.parametrize("offset", [300, 301, 2**63, 10**40])
async def test_a_page_beyond_the_end_is_empty(http: Http, offset: int) -> None:
    response = await http.runs(("offset", offset))
    assert response.body == {"data": [], "pagination": {"total": 300, "offset": offset, "limit": 100}}


async def test_what_is_served_is_what_is_stored(http: Http, job: str, stored: list[JobRun]) -> None:
    data = (await http.runs(("limit", 1000))).body["data"]
    for served, run in zip(data, stored, strict=True):
        subject = served["triggeredBySubject"]
        if subject is not None:  # its nulls are left out
            served["triggeredBySubject"] = dict.fromkeys(run.to_dict()["triggeredBySubject"]) | subject
        assert served == run.to_dict()


SLUGS = ("ana.souza@example.com", "ci-deployer")


@pytest.mark.parametrize(
    ("query", "keeps"),
    [
        ([("status", "FAILED")], lambda run: run.status == "FAILED"),
        ([("status", "RUNNING"), ("status", "CREATED")], lambda run: run.status in ("RUNNING", "CREATED")),
        ([("triggeredBy", SLUGS[0])], lambda run: run.triggered_by == SLUGS[0]),
        ([("triggeredBy", slug) for slug in SLUGS], lambda run: run.triggered_by in SLUGS),
        ([("versionNumbers", 12)], lambda run: run.deployment_version == "12"),
        ([("versionNumbers", "3.0"), ("versionNumbers", "1e1")], lambda run: run.deployment_version in ("3", "10")),
        ([("searchPrefix", "train-a")], lambda run: run.name.startswith("train-a")),
        ([("searchPrefix", "q")], lambda run: run.id.startswith("q")),
        ([("searchPrefix", "t")], lambda run: run.name.startswith("t") or run.id.startswith("t")),
        ([("searchPrefix", "学")], lambda run: run.name.startswith("学")),
        ([("searchPrefix", "entraine\u0301-")], lambda run: run.name.startswith("entraine\u0301-")),
        ([("searchPrefix", 'train "A/B" 100%_-')], lambda run: run.name.startswith('train "A')),
        ([("searchPrefix", "")], lambda run: True),
        (
            [("status", "FINISHED"), ("status", "FAILED"), ("triggeredBy", SLUGS[0]), ("versionNumbers", 2),
             ("versionNumbers", 3), ("searchPrefix", "train")],
            lambda run: run.status in ("FINISHED", "FAILED") and run.triggered_by == SLUGS[0]
            and run.deployment_version in ("2", "3") and run.name.startswith("train"),
        ),
    ],
)  # fmt: skip
async def test_filters_are_or_within_and_and_across(http: Http, stored: list[JobRun], query: Pairs, keeps: Any) -> None:
    expected = [run.id for run in stored if keeps(run)]
    assert expected, "the filter should match something"
    response = await http.runs(("limit", 3), ("offset", 1), *query)
    assert response.body["pagination"]["total"] == len(expected)
    assert response.ids == expected[1:4]
    assert await http.all_ids(*query) == expected


@pytest.mark.parametrize(
    "query",
    [
        *itertools.product(["searchPrefix"], ["%", "_", "TRAIN", "entrain\u00e9", "train\0"]),
        *itertools.product(["triggeredBy"], ["", "ANA.SOUZA@example.com", "' OR 1=1 --"]),
        *itertools.product(["versionNumbers"], [13, -1, 1.5]),
    ],
)
async def test_filters_are_literal(http: Http, query: tuple[str, Any]) -> None:
    assert (await http.runs(query)).body["pagination"]["total"] == 0


async def test_a_prefix_may_hold_a_nul(http: Http, job: str) -> None:
    run = await http.sandbox.create_run(job, name="a\0b")
    assert await http.all_ids(("searchPrefix", "a\0")) == [run.id]
    assert await http.all_ids(("searchPrefix", "a\0c")) == []


KEYS: dict[str, Any] = {
    "startTime": lambda run: run.created_at,
    "duration": lambda run: run.duration,
    "deploymentVersion": lambda run: int(run.deployment_version),
    "triggeredBy": lambda run: run.triggered_by,
    "status": lambda run: run.status.value,
}


def in_order(runs: list[JobRun], sort_by: str, order: str) -> list[str]:
    """The ids in the order that is promised: three stable sorts, the least important first."""
    key = KEYS[sort_by]
    runs = sorted(runs, key=lambda run: run.id)
    runs.sort(key=lambda run: run.created_at, reverse=True)
    valued = [run for run in runs if key(run) is not None]
    valued.sort(key=key, reverse=order == "desc")
    return ids(valued + [run for run in runs if key(run) is None])


def test_all_sort_keys_are_tried() -> None:
    assert set(KEYS) == set(JobRunsSortBy)


@pytest.mark.parametrize("order", SortDirection)
@pytest.mark.parametrize("sort_by", KEYS)
async def test_runs_are_sorted_nulls_last_ties_newest_first(
    http: Http, stored: list[JobRun], sort_by: str, order: str
) -> None:
    assert await http.all_ids(("sortBy", sort_by), ("order", order)) == in_order(stored, sort_by, order)


@pytest.mark.parametrize("sort_by", KEYS)
async def test_without_an_order_the_greatest_comes_first(http: Http, stored: list[JobRun], sort_by: str) -> None:
    assert await http.all_ids(("sortBy", sort_by)) == in_order(stored, sort_by, "desc")


async def test_without_a_key_creation_is_sorted_by(http: Http, stored: list[JobRun]) -> None:
    assert await http.all_ids() == in_order(stored, "startTime", "desc") == ids(stored)
    assert await http.all_ids(("order", "asc")) == in_order(stored, "startTime", "asc")


async def test_the_filter_and_the_order_work_together(http: Http, stored: list[JobRun]) -> None:
    failed = [run for run in stored if run.status == "FAILED"]
    response = await http.all_ids(("status", "FAILED"), ("sortBy", "duration"), ("order", "asc"))
    assert response == in_order(failed, "duration", "asc")


@pytest.mark.parametrize("query", [[], [("sortBy", "status")], [("sortBy", "duration"), ("order", "asc")]])
async def test_pages_together_are_the_list(http: Http, query: Pairs) -> None:
    for number, limit in ((1, 1), (0, 19), (0, 150), (0, 299), (0, 300), (0, 301)):
        job = http.sandbox.job_ids[number]
        stored = ids(http.sandbox.runs(job))
        seen = [
            run_id
            for offset in range(0, len(stored), limit)
            for run_id in (await http.runs(("limit", limit), ("offset", offset), *query, job=job)).ids
        ]
        assert seen == (await http.runs(("limit", 1000), *query, job=job)).ids
        assert sorted(seen) == sorted(stored)


async def test_more_different_queries_than_are_remembered_are_all_answered(http: Http) -> None:
    async def total(letter: str) -> int:
        total: int = (await http.runs(("searchPrefix", letter))).body["pagination"]["total"]
        return total

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    first = [await total(letter) for letter in letters]
    assert [await total(letter) for letter in letters] == first
    assert sum(first) >= 300


async def test_jobs_have_lists_of_their_own(http: Http) -> None:
    first, second = http.sandbox.job_ids
    response = await http.runs(job=second)
    assert response.ids == ids(http.sandbox.runs(second))
    assert len(response.ids) == 30
    assert not set(response.ids) & set(ids(http.sandbox.runs(first)))


# --- changes ---


async def test_a_new_run_is_at_the_head_of_the_next_response(http: Http, job: str, stored: list[JobRun]) -> None:
    await http.runs()
    for _ in range(20):
        run = await http.sandbox.create_run(job)
        assert run.created_at > max(run.created_at for run in stored)
        stored = [run, *stored]
        response = await http.runs(("limit", 1000))
        assert response.ids == ids(stored)
        assert response.body["pagination"]["total"] == len(stored)
    assert http.sandbox.runs(job) == stored


@pytest.mark.beyond_contract
async def test_a_new_run_has_the_given_fields_and_others_that_agree_with_its_status(http: Http, job: str) -> None:
    subject = Subject(subject_id="s", subject_type=SubjectType("agent"), subject_slug="a-b")
    run = await http.sandbox.create_run(
        job, status="FAILED", name="näme", triggered_by="a-b", triggered_by_subject=subject, created_at=12.5
    )
    assert (run.status, run.name, run.triggered_by, run.created_at) == (JobRunStatus.FAILED, "näme", "a-b", 12.5)
    assert run.triggered_by_subject == subject
    assert run.error
    assert run.exit_code
    assert run.end_time is not None
    assert (await http.all_ids())[-1] == run.id
    assert await http.all_ids(("searchPrefix", "näme"), ("triggeredBy", "a-b")) == [run.id]
    created = await http.sandbox.create_run(job)
    assert (created.status, created.end_time, created.duration) == (JobRunStatus.CREATED, None, None)


async def test_a_status_may_be_written_in_any_case_as_in_the_filters(http: Http, job: str) -> None:
    failed = await http.sandbox.create_run(job, status="failed")
    assert failed.status is JobRunStatus.FAILED
    assert failed.end_time is not None
    run = await http.sandbox.create_run(job)
    assert (await http.sandbox.update_run(job, run.id, status="Running")).status is JobRunStatus.RUNNING
    assert (await http.sandbox.finish_run(job, run.id, "terminated")).status is JobRunStatus.TERMINATED


@pytest.mark.beyond_contract
async def test_a_status_that_is_newer_than_the_contract_can_be_stored(http: Http, job: str) -> None:
    run = await http.sandbox.create_run(job, status=JobRunStatus("PAUSED"))
    assert run.status == "PAUSED"
    assert (await http.runs(("limit", 1))).body["data"][0]["status"] == "PAUSED"


async def test_a_job_without_runs_gets_its_first() -> None:
    async with Sandbox(["empty"], 0) as sandbox, aiohttp.ClientSession() as session:
        http = Http(sandbox, session)
        assert (await http.runs()).body == {"data": [], "pagination": {"total": 0, "offset": 0, "limit": 100}}
        run = await sandbox.create_run("empty")
        assert await http.all_ids() == [run.id]


async def test_a_deleted_run_is_gone_from_the_next_response(http: Http, job: str, stored: list[JobRun]) -> None:
    await http.runs()
    for gone in (stored[0], stored[150], stored[-1]):
        await http.sandbox.delete_run(job, gone.id)
        stored.remove(gone)
        response = await http.runs(("limit", 1000))
        assert response.ids == ids(stored)
        assert response.body["pagination"]["total"] == len(stored)


async def test_an_updated_run_changes_in_the_given_fields_alone(http: Http, job: str, stored: list[JobRun]) -> None:
    running = next(run for run in stored if run.status == "RUNNING")
    await http.all_ids(("status", "FAILED"))
    changes: dict[str, Any] = {"status": JobRunStatus.FAILED, "duration": 10**6, "exit_code": 3, "error": None}
    updated = await http.sandbox.update_run(job, running.id, **changes)
    assert updated == attrs.evolve(running, **changes)
    assert (await http.all_ids(("status", "FAILED"), ("sortBy", "duration")))[0] == running.id
    assert running.id not in await http.all_ids(("status", "RUNNING"))
    assert http.sandbox.runs(job) == [updated if run is running else run for run in stored]


async def test_changes_to_what_is_not_there_say_so(http: Http, job: str) -> None:
    sandbox = http.sandbox
    with pytest.raises(KeyError, match="no run with the id 'nope'"):
        await sandbox.delete_run(job, "nope")
    with pytest.raises(KeyError, match="no run with the id 'nope'"):
        await sandbox.update_run(job, "nope", status="FAILED")
    with pytest.raises(KeyError, match="no job 'nope'"):
        await sandbox.create_run("nope")
    with pytest.raises(KeyError, match="no job 'nope'"):
        sandbox.runs("nope")


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"createdAt": 1}, TypeError, "no field 'createdAt'; its fields are id, name"),
        ({"created_at": "x"}, ValueError, "created_at"),
        ({"created_at": float("nan")}, ValueError, "created_at"),
        ({"duration": "5"}, ValueError, "duration"),
        ({"status": 5}, ValueError, "(?i)status"),
        ({"status": None}, ValueError, "(?i)status"),
        ({"triggered_by_subject": 5}, ValueError, "triggered_by_subject"),
        ({"name": "\ud800"}, ValueError, "surrogates"),
    ],
)
async def test_a_field_that_cannot_be_is_refused_and_changes_nothing(
    http: Http, job: str, stored: list[JobRun], fields: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        await http.sandbox.create_run(job, **fields)
    with pytest.raises(error, match=says):
        await http.sandbox.update_run(job, stored[0].id, **fields)
    assert http.sandbox.runs(job) == stored


async def test_an_id_is_given_once_and_stays(http: Http, job: str, stored: list[JobRun]) -> None:
    with pytest.raises(ValueError, match="already"):
        await http.sandbox.create_run(job, id=stored[5].id)
    with pytest.raises(ValueError, match="can't be changed"):
        await http.sandbox.update_run(job, stored[5].id, id="other")
    assert http.sandbox.runs(job) == stored


# --- the runs ---


async def test_the_same_seed_makes_the_same_runs(http: Http) -> None:
    async with Sandbox(2, (300, 30), seed=12) as again, Sandbox(2, (300, 30), seed=8) as other:
        assert again.job_ids == http.sandbox.job_ids
        for job_id in again.job_ids:
            assert again.runs(job_id) == http.sandbox.runs(job_id)
        assert again.job_ids != other.job_ids
        assert await again.create_run(again.job_ids[0]) == await http.sandbox.create_run(again.job_ids[0])


async def test_the_same_seed_serves_the_same_bytes_in_another_process() -> None:
    program = """if True:
        import asyncio, hashlib, urllib.request
        from tfruns.sandbox import Sandbox
        async def main():
            async with Sandbox(["a"], 500, 3) as s:
                url = f"{s.url}/api/svc/v1/jobs/a/runs?limit=500"
                request = urllib.request.Request(url, headers={"Authorization": "Bearer " + s.api_key})
                read = lambda: urllib.request.urlopen(request).read()
                print(hashlib.sha256(await asyncio.to_thread(read)).hexdigest())
        asyncio.run(main())
    """
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, check=True)
    async with Sandbox(["a"], 500, 3) as s, aiohttp.ClientSession() as session:
        headers = {"Authorization": "Bearer " + s.api_key}
        async with session.get(f"{s.url}{path_of('a')}?limit=500", headers=headers) as response:
            assert hashlib.sha256(await response.read()).hexdigest() == done.stdout.decode().strip()


async def test_the_runs_of_a_job_do_not_depend_on_other_jobs() -> None:
    async with Sandbox(["a", "b"], 50) as two, Sandbox(["b"], 50) as one:
        assert two.runs("b") == one.runs("b")
        assert two.runs("a") != two.runs("b")


async def test_a_thousand_runs_have_something_of_everything() -> None:
    for seed in range(5):
        async with Sandbox(1, 1000, seed) as sandbox:
            runs = sandbox.runs(sandbox.job_ids[0])
        assert {run.status for run in runs} == set(JobRunStatus)
        assert {run.deployment_version for run in runs} == {str(version) for version in range(1, 13)}
        versions = [int(run.deployment_version) for run in runs]
        assert versions == sorted(versions, reverse=True)
        subjects = {run.triggered_by_subject for run in runs}
        assert len({subject.subject_type for subject in subjects if subject}) >= 5
        for field in attrs.fields(JobRun):
            if field.default is None:
                nulls = [getattr(run, field.name) is None for run in runs]
                assert any(nulls), field.name
                assert not all(nulls), field.name
        assert any(earlier.created_at == later.created_at for earlier, later in itertools.pairwise(runs))
        assert runs[0].created_at - runs[-1].created_at > 90 * 24 * 3600 * 1000
        text = "".join(run.name + run.command + (run.error or "") for run in runs)
        assert all(odd in text for odd in ("学", "🚀", "\u0301", '"', "\n", "💥"))
        assert sum(not run.status.is_terminal for run in runs[100:]) < 50


async def test_the_fields_of_a_run_agree(stored: list[JobRun]) -> None:
    for run in stored:
        assert run.id.isalnum()
        assert len(run.id) == 25
        if run.status.is_terminal:
            assert run.end_time is not None
            assert int(run.end_time - run.created_at) // 1000 == run.duration
        else:
            assert (run.end_time, run.duration, run.exit_code, run.error) == (None, None, None, None)
        if run.status == "FINISHED":
            assert (run.exit_code, run.error) == (0, None)
        if run.status == "FAILED":
            assert run.error
            assert run.exit_code
        if run.triggered_by_subject is not None:
            assert run.triggered_by == run.triggered_by_subject.subject_slug


async def test_a_run_takes_500_to_600_bytes(http: Http) -> None:
    data = (await http.runs(("limit", 1000))).body["data"]
    sizes = [len(json.dumps(run, ensure_ascii=False, separators=(",", ":")).encode()) for run in data]
    assert 500 <= statistics.mean(sizes) <= 600


# --- the sandbox itself ---


async def test_requests_are_recorded_as_they_were_sent() -> None:
    async with Sandbox(["a/b"], 3) as sandbox, aiohttp.ClientSession() as session:
        http = Http(sandbox, session)
        await http.send("/api/svc/v1/jobs/a%2Fb/runs?searchPrefix=%41&limit=2")
        await http.send("/nowhere", "POST")
    assert list(sandbox.requests) == [
        SeenRequest("GET", "/api/svc/v1/jobs/a%2Fb/runs", "searchPrefix=%41&limit=2", 200),
        SeenRequest("POST", "/nowhere", "", 404),
    ]


async def test_it_listens_at_the_given_address(unused_tcp_port: int) -> None:
    async with Sandbox(1, 1, host="localhost", port=unused_tcp_port) as sandbox, aiohttp.ClientSession() as session:
        assert sandbox.url == f"http://localhost:{unused_tcp_port}"
        assert (await Http(sandbox, session).runs()).status == 200


async def test_a_port_in_use_is_an_error_that_leaves_nothing_behind(http: Http) -> None:
    port = int(http.sandbox.url.rpartition(":")[2])
    second = Sandbox(1, 1, port=port)
    with pytest.raises(OSError, match=str(port)):
        await second.start()
    with pytest.raises(RuntimeError, match="isn't running"):
        second.runs(second.job_ids[0])


async def test_it_runs_once_at_a_time_and_starts_afresh() -> None:
    sandbox = Sandbox(1, 5)
    [job_id] = sandbox.job_ids
    with pytest.raises(RuntimeError, match="isn't running"):
        sandbox.runs(job_id)
    async with sandbox:
        runs = sandbox.runs(job_id)
        await sandbox.create_run(job_id)
        with pytest.raises(RuntimeError, match="running already"):
            await sandbox.start()
    with pytest.raises(RuntimeError, match="isn't running"):
        await sandbox.create_run(job_id)
    await sandbox.aclose()
    async with sandbox:
        assert sandbox.runs(job_id) == runs


async def test_closing_does_not_wait_for_idle_or_deaf_clients(job: str, http: Http) -> None:
    url = URL(http.sandbox.url)
    head = f"GET {path_of(job)}?limit=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {http.sandbox.api_key}\r\n\r\n"
    _, idle = await asyncio.open_connection(url.host, url.port)
    _, deaf = await asyncio.open_connection(url.host, url.port, limit=1024)
    deaf.write(head.encode() * 30)  # and never reads the responses
    await asyncio.sleep(0.2)
    async with asyncio.timeout(5):
        await http.sandbox.aclose()
    for writer in (idle, deaf):
        writer.transport.abort()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"jobs": 0}, ValueError, "jobs must be a whole number from 1 to 100000, got 0"),
        ({"jobs": True}, TypeError, "got True"),
        ({"jobs": 1.5}, TypeError, "a number of jobs or a sequence of job ids, got 1.5"),
        ({"jobs": "job-id"}, TypeError, "got 'job-id'"),
        ({"jobs": [1]}, TypeError, r"got \[1\]"),
        ({"jobs": []}, ValueError, r"at least one.*got \[\]"),
        ({"jobs": ["a", ""]}, ValueError, "none empty"),
        ({"jobs": ["a", "a"]}, ValueError, "none twice"),
        ({"jobs": ["\ud800"]}, ValueError, "valid Unicode"),
        ({"runs": -1}, ValueError, "runs must be a whole number, 0 or more, got -1"),
        ({"runs": "5"}, TypeError, "got '5'"),
        ({"runs": None}, TypeError, "got None"),
        ({"runs": [1]}, ValueError, r"one number for each job, 2 in all, got 1: \[1\]"),
        ({"runs": [1, -2]}, ValueError, "0 or more, got -2"),
        ({"runs": [1, False]}, TypeError, "got False"),
        ({"runs": [1, "2"]}, TypeError, r"got \[1, '2'\]"),
        ({"seed": "x"}, TypeError, "seed must be a whole number, got 'x'"),
        ({"seed": None}, TypeError, "got None"),
        ({"host": ""}, ValueError, "host must be"),
        ({"host": None}, TypeError, "host must be a string, got None"),
        ({"port": 65536}, ValueError, "from 0 to 65535, got 65536"),
        ({"port": "80"}, TypeError, "got '80'"),
        ({"api_key": ""}, ValueError, "api_key must be"),
        ({"api_key": "a b"}, ValueError, "api_key must be"),
        ({"api_key": "ä"}, ValueError, "api_key must be"),
        ({"api_key": 5}, TypeError, "api_key must be a string"),
    ],
)
def test_a_bad_argument_says_what_was_given_and_what_is_allowed(
    arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Sandbox(**arguments)


def test_all_but_the_first_three_arguments_are_keywords() -> None:
    with pytest.raises(TypeError):
        Sandbox(1, 1, 1, "127.0.0.1")  # type: ignore[call-arg]


async def test_runs_that_are_created_at_one_time_move_the_clock() -> None:
    async with Sandbox(["job"], runs=0) as sandbox:
        runs = [await sandbox.create_run("job") for _ in range(3)]
        assert runs[-1].created_at == sandbox.clock.now == runs[0].created_at + 2
