"""When to try again, and how long to wait before: decisions only, nothing sleeps."""

import math
import time
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from tfruns import RetryPolicy
from tfruns.errors import APIConnectionError, APIStatusError, APITimeoutError, DecodeError, status_error_class
from tfruns.models import HttpError
from tfruns.retry import is_retried, server_wait


def refused(status: int = 429, **headers: str) -> APIStatusError:
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    body = HttpError(status, "no")
    return status_error_class(status)(body=body, reason="", headers=named, job_id="j", offset=0)


def planned_wait(policy: RetryPolicy, error: Exception, attempt: int) -> float:
    retrying = policy.retrying(lambda _: None)
    state = tenacity.RetryCallState(retrying, None, (), {})
    state.attempt_number = attempt
    state.set_exception((type(error), error, error.__traceback__))
    return float(retrying.wait(state))


NOW = 2_000_000_000
DATE = formatdate(NOW, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry_after": "3"}, 3),
        ({"retry_after": " 2.5 "}, 2.5),
        ({"retry_after": formatdate(NOW + 7, usegmt=True), "date": DATE}, 7),
        ({"retry_after": formatdate(NOW - 7, usegmt=True), "date": DATE}, 0),
        ({"retry_after_ms": "250"}, 0.25),
        ({"retry_after_ms": "250", "retry_after": "9", "x_ratelimit_reset": "8"}, 0.25),
        ({"retry_after": "9", "x_ratelimit_reset": "8"}, 9),
        ({"x_ratelimit_reset": "8"}, 8),
        ({"x_ratelimit_reset": str(NOW + 8), "date": DATE}, 8),
        ({"x_ratelimit_reset": str((NOW + 8) * 1000), "date": DATE}, 8),
        ({"x_ratelimit_reset": str(NOW - 8), "date": DATE}, 0),
        ({"retry_after": "soon"}, 0),
        ({"retry_after": "-3"}, 0),
        ({"retry_after": "nan"}, 0),
        ({"retry_after": "\u0663"}, 0),
        ({"retry_after": "1e9"}, 0),
        ({"retry_after": "soon", "x_ratelimit_reset": "8"}, 8),
    ],
    ids=str,
)
def test_the_wait_a_server_asks_for(headers: dict[str, str], seconds: float) -> None:
    assert server_wait(refused(**headers)) == seconds


def test_a_reset_counts_only_where_the_server_refused_for_its_load() -> None:
    assert server_wait(refused(503, x_ratelimit_reset="8")) == 8
    assert server_wait(refused(500, x_ratelimit_reset="8")) == 0


@given(st.sampled_from(["retry_after", "retry_after_ms", "x_ratelimit_reset", "date"]), st.text(), st.text())
def test_no_header_makes_anything_but_a_wait(name: str, value: str, date: str) -> None:
    wait = server_wait(refused(**{"retry_after": date, name: value}))
    assert math.isfinite(wait)
    assert wait >= 0


def test_a_date_is_read_by_the_servers_clock_and_else_by_ours() -> None:
    assert 8 <= server_wait(refused(retry_after=formatdate(time.time() + 10, usegmt=True))) <= 10


@given(st.integers(1, 200))
def test_the_backoff_doubles_up_to_its_cap_and_is_spread_at_random(attempt: int) -> None:
    policy = RetryPolicy(initial_backoff=0.5, max_backoff=4)
    wait = planned_wait(policy, refused(500), attempt)
    assert 0 <= wait <= min(4, 0.5 * 2 ** (attempt - 1))
    assert len({planned_wait(policy, refused(500), attempt) for _ in range(5)}) > 1


def test_a_wait_the_server_asks_for_comes_before_the_backoff_and_is_capped() -> None:
    policy = RetryPolicy(initial_backoff=0.5, max_server_wait=10)
    assert 3 <= planned_wait(policy, refused(retry_after="3"), 1) <= 3.5
    assert 10 <= planned_wait(policy, refused(retry_after="86400"), 1) <= 10.5


def test_what_may_pass_is_retried_and_nothing_else() -> None:
    retried = {status for status in range(300, 600) if is_retried(refused(status))}
    assert retried == {408, 425, 429, *range(500, 600)}
    assert is_retried(APIConnectionError("x", job_id="j", offset=0))
    assert is_retried(APITimeoutError("x", job_id="j", offset=0))
    assert not is_retried(DecodeError("x", job_id="j", offset=0))
    assert not is_retried(ValueError("x"))
    untrusted = APIConnectionError("x", job_id="j", offset=0)
    untrusted.__cause__ = aiohttp.ClientConnectorCertificateError(None, ValueError("self-signed"))  # type: ignore[arg-type]
    assert not is_retried(untrusted)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"max_attempts": value} for value in [0, -1, 1.5, "3", True, None]),
        *({name: -0.1} for name in ["initial_backoff", "max_backoff", "max_server_wait", "deadline"]),
        *({name: float("nan")} for name in ["initial_backoff", "max_backoff", "max_server_wait", "deadline"]),
        *({name: float("inf")} for name in ["initial_backoff", "max_backoff", "max_server_wait", "deadline"]),
        *({name: value} for name in ["initial_backoff", "deadline"] for value in ["1", True, None]),
        {"deadline": 0},
    ],
    ids=str,
)
def test_a_policy_takes_only_what_makes_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        RetryPolicy(**wrong)


def test_the_defaults_break_one_walk_of_120_pages_in_thousands_when_a_quarter_of_the_answers_fail() -> None:
    chance = 120 * 0.25 ** RetryPolicy().max_attempts
    assert 1 / 8_800 < chance < 1 / 8_000
