"""An outage in the middle of an export passes, or ends it so that the next call goes on; one job's failure doesn't."""

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

import tfruns
from tests.support.hostile import Raw, Reply, Request, page, response, run, serve
from tfruns import Client, RetryPolicy
from tfruns.export import export_runs

JOBS = [f"job-{n}" for n in range(6)]
WORSE = {
    "503": response(503, {"statusCode": 503, "message": "no"}),
    "429": response(429, {"statusCode": 429, "message": "too many"}),
    "500": response(500, {"statusCode": 500, "message": "no"}),
    "408": response(408, {"statusCode": 408, "message": "no"}),
    "425": response(425, {"statusCode": 425, "message": "no"}),
    "reset": Raw(b"", reset=True),
    "cut": Raw(response(200, page([run(0)]))[:-9]),
}


@attrs.define
class Server:
    """Serves 400 runs of each job, but fails some requests by number."""

    failure: Reply
    fails: Callable[[Request], bool]
    status: str = "FINISHED"
    good: int = 0

    def reply(self, request: Request) -> Reply:
        if self.fails(request):
            return self.failure
        self.good += 1
        runs = [run(n, createdAt=1.7e12 - n * 60_000, status=self.status) for n in range(400)][
            request.offset : request.offset + request.limit
        ]
        pagination = {"total": 400, "offset": request.offset, "limit": request.limit}
        return response(200, {"data": runs, "pagination": pagination})


def job_of(request: Request) -> str:
    return request.target.split("/")[5]


def written(path: Path) -> dict[str, int]:
    jobs = [json.loads(line)["jobId"] for line in path.read_text().splitlines()]
    return {job_id: jobs.count(job_id) for job_id in JOBS}


@pytest.mark.parametrize("kind", WORSE)
async def test_an_export_outlasts_more_failures_than_any_one_request_had_attempts(kind: str, tmp_path: Path) -> None:
    """As long as there is patience: here for 20 failures in a row."""
    server = Server(WORSE[kind], lambda request: 9 <= request.number < 29)
    client_options = {"retry": RetryPolicy(patience=60), "max_concurrency": 2}
    async with (
        serve(server.reply) as (url, requests),
        Client(url, "a-long-enough-key", **client_options) as client,  # type: ignore[arg-type]
    ):
        summary = await export_runs(client, JOBS, tmp_path / "runs.jsonl", page_size=100)
    assert len(requests) > 29
    assert summary.skipped == {}
    assert written(tmp_path / "runs.jsonl") == dict.fromkeys(JOBS, 400)


@pytest.mark.parametrize("kind", WORSE)
async def test_an_outage_that_outlasts_the_patience_ends_it_and_the_next_call_goes_on(
    kind: str, tmp_path: Path
) -> None:
    """No job is skipped for it, the old file stays, and the jobs that were read whole aren't read again."""
    path = tmp_path / "runs.jsonl"
    path.write_text("old")
    server = Server(WORSE[kind], lambda request: server.good >= 4)
    async with serve(server.reply) as (url, _):
        impatient = RetryPolicy(patience=0.3)
        async with Client(url, "a-long-enough-key", retry=impatient, max_concurrency=1) as client:
            with pytest.raises(tfruns.APIError, match="the retry policy's patience"):
                await export_runs(client, JOBS, path)  # a request for each job
        assert path.read_text() == "old"
        server.fails = lambda _: False
        server.good = 0
        async with Client(url, "a-long-enough-key") as client:
            summary = await export_runs(client, JOBS, path)
    assert (summary.runs, summary.skipped) == (2400, {})
    assert (summary.resumed_jobs, server.good) == (4, 2)
    assert written(path) == dict.fromkeys(JOBS, 400)


@pytest.mark.parametrize("kind", ["503", "429", "408", "425", "reset"])
async def test_what_may_pass_skips_no_job_even_without_retries(kind: str, tmp_path: Path) -> None:
    """It says nothing about the job."""
    server = Server(WORSE[kind], lambda request: job_of(request) == "job-3")
    async with (
        serve(server.reply) as (url, _),
        Client(url, "a-long-enough-key", retry=RetryPolicy(max_attempts=1)) as client,
    ):
        with pytest.raises(tfruns.APIError, match="job 'job-3'"):
            await export_runs(client, JOBS, tmp_path / "runs.jsonl")
    assert not (tmp_path / "runs.jsonl").exists()


async def test_a_job_on_which_the_server_fails_while_it_is_well_with_others_is_skipped(tmp_path: Path) -> None:
    """One job poisons no export; an increment, neither."""
    path, state = tmp_path / "runs.jsonl", tmp_path / "state.json"
    server = Server(WORSE["500"], lambda request: job_of(request) == "job-3")
    retry = RetryPolicy(patience=0.3)
    async with serve(server.reply) as (url, _), Client(url, "a-long-enough-key", retry=retry) as client:
        for number in range(2):
            summary = await export_runs(client, JOBS, path, state=state)
            assert summary.runs == (0 if number else 5 * 400)
            assert list(summary.skipped) == ["job-3"]
            assert isinstance(summary.skipped["job-3"], tfruns.InternalServerError)
        server.fails = lambda _: False
        summary = await export_runs(client, JOBS, path, state=state)
    assert (summary.runs, summary.skipped) == (400, {})


async def test_a_500_on_the_only_job_is_the_error_itself(tmp_path: Path) -> None:
    """No other job can show whether the server is well."""
    server = Server(WORSE["500"], lambda _: True)
    retry = RetryPolicy(max_attempts=1)
    async with serve(server.reply) as (url, _), Client(url, "a-long-enough-key", retry=retry) as client:
        with pytest.raises(tfruns.InternalServerError, match="job 'job-3'"):
            await export_runs(client, ["job-3"], tmp_path / "runs.jsonl")


async def test_a_refused_key_ends_an_increment_wherever_it_is_refused(tmp_path: Path) -> None:
    """It says nothing about one job."""
    path, state = tmp_path / "runs.jsonl", tmp_path / "state.json"
    refused = response(401, {"statusCode": 401, "message": "no"})
    server = Server(refused, lambda request: "status=" in request.target, status="RUNNING")
    async with serve(server.reply) as (url, _), Client(url, "a-long-enough-key") as client:
        await export_runs(client, JOBS, path, state=state)
        with pytest.raises(tfruns.AuthenticationError):
            await export_runs(client, JOBS, path, state=state)
