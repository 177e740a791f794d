"""When to try again, and how long to wait before: decisions only, nothing sleeps."""

import math
import time
from email.utils import formatdate
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from tests.support.seeds import examples
from tfruns import RetryPolicy
from tfruns._http.options import RequestOptions
from tfruns._http.pace import SendPace
from tfruns._http.responses import server_wait
from tfruns._http.retry import PageFetch
from tfruns._http.secret import Secret
from tfruns.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    DecodeError,
    status_error_class,
)
from tfruns.models import HttpError
from tfruns.query import PageRequest, RunFilter

TRIED = settings(max_examples=examples(50, share=0.25))


def refused(status: int = 429, **headers: str) -> APIStatusError:
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    body = HttpError(status, "no")
    return status_error_class(status)(body=body, reason="", headers=named)


REQUEST = PageRequest("job", RunFilter(), 1, 0)


def new_state(policy: RetryPolicy, pace: SendPace | None = None) -> PageFetch:
    options = RequestOptions(timeout=60.0, retry=policy, headers=Secret(None))
    return PageFetch(REQUEST, options, pace or SendPace(1, math.inf))


def failed_with(state: PageFetch, error: APIError) -> PageFetch:
    state.set_error(error)
    return state


def planned_wait(policy: RetryPolicy, error: APIError, attempt: int, *, in_outage: bool = False) -> float:
    pace = SendPace(1, math.inf)
    for _ in range(10 if in_outage else 0):
        pace.failed(0.0, 0.0)
    state = failed_with(new_state(policy, pace), error)
    state.attempt_number = attempt
    return float(state.retry_object.wait(state))


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
        ({"retry_after": "Sun, 06 Nov 1994 08:49:47 GMT", "date": "Sun, 06 Nov 1994 08:49:37 GMT"}, 10),
        ({"retry_after": "Sunday, 06-Nov-94 08:49:47 GMT", "date": "Sun, 06 Nov 1994 08:49:37 GMT"}, 10),
        ({"retry_after": "Sun, 06 Nov 1994 09:49:47 +0100", "date": "Sun, 06 Nov 1994 08:49:37 GMT"}, 10),
        ({"retry_after": "0"}, 0),
        ({"retry_after": "0", "x_ratelimit_reset": "8"}, 0),
        ({"retry_after_ms": "0.5"}, 0.0005),
        ({"retry_after_ms": "soon", "retry_after": "9"}, 9),
        ({"retry_after_ms": "250"}, 0.25),
        ({"retry_after_ms": "250", "retry_after": "9", "x_ratelimit_reset": "8"}, 0.25),
        ({"retry_after": "9", "x_ratelimit_reset": "8"}, 9),
        ({"x_ratelimit_reset": "8"}, 8),
        ({"x_ratelimit_reset": str(NOW + 8), "date": DATE}, 8),
        ({"x_ratelimit_reset": str((NOW + 8) * 1000), "date": DATE}, 8),
        ({"x_ratelimit_reset": str(NOW - 8), "date": DATE}, 0),
        ({"x_ratelimit_reset": str((NOW - 8) * 1000), "date": DATE}, 0),
        ({"x_ratelimit_reset": f"{NOW + 8}.25", "date": DATE}, 8.25),
        ({"x_ratelimit_reset": "8.5"}, 8.5),
        ({"x_ratelimit_reset": "-8"}, 0),
        ({"x_ratelimit_reset": "soon"}, 0),
        ({"x_ratelimit_reset": ""}, 0),
        ({"retry_after": ""}, 0),
        ({"retry_after": "3, 5"}, 0),
        ({"retry_after": "+3"}, 0),
        ({"retry_after": "0x3"}, 0),
        ({"retry_after": "inf"}, 0),
        ({"retry_after": "Sun, 99 Nov 1994 08:49:47 GMT"}, 0),
        ({"retry_after": "Sun, 06 Nov 99999 08:49:47 GMT"}, 0),
        ({"retry_after": "soon"}, 0),
        ({"retry_after": "-3"}, 0),
        ({"retry_after": "nan"}, 0),
        ({"retry_after": "\u0663"}, 0),
        ({"retry_after": "1e9"}, 0),
        ({"retry_after": "soon", "x_ratelimit_reset": "8"}, 8),
    ],
    ids=str,
)
def test_the_wait_a_server_demands(headers: dict[str, str], seconds: float) -> None:
    assert server_wait(refused(**headers)) == seconds


def test_a_reset_counts_only_where_the_server_refused_for_its_load() -> None:
    assert server_wait(refused(503, x_ratelimit_reset="8")) == 8
    assert server_wait(refused(500, x_ratelimit_reset="8")) == 0


WORDS = (
    "Sun, 06 Nov 1994 0001 9999 10000 99999999999999999999 08:49:37 24:00:00 12.34.56 : :: GMT UTC EST Z -0000 +2500 "
)
WORDS += "+9999 - + ( (a \\ , 1e5 0x1 -1 0.5 nan inf \u0661 \uff12"
dates = st.lists(st.sampled_from(WORDS.split())).map(" ".join)
header = st.text() | dates | st.integers().map(str) | st.floats().map(str)


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.property
@TRIED
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["retry_after", "x_ratelimit_reset", "date"], header)), header)
def test_no_header_makes_anything_but_a_wait(status: int, headers: dict[str, str], milliseconds: str) -> None:
    for sent in (headers, {**headers, "retry_after_ms": milliseconds}):
        wait = server_wait(refused(status, **sent))
        assert type(wait) is float
        assert math.isfinite(wait)
        assert wait >= 0


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the system's time zone can't be changed")
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("date", ["Sun Nov  6 08:49:47 1994", "Sun, 06 Nov 1994 08:49:47 -0000"])
def test_a_date_that_names_no_zone_is_in_gmt_wherever_we_are(
    zone: str, date: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            assert server_wait(refused(retry_after=date, date="Sun, 06 Nov 1994 08:49:37 GMT")) == 10
    finally:
        time.tzset()


def test_a_date_is_read_by_the_servers_clock_and_else_by_ours() -> None:
    assert 8 <= server_wait(refused(retry_after=formatdate(time.time() + 10, usegmt=True))) <= 10


@pytest.mark.property
@TRIED
@given(st.integers(1, 200))
def test_the_backoff_doubles_up_to_its_cap_and_is_spread_at_random(attempt: int) -> None:
    policy = RetryPolicy(initial_backoff=0.5, max_backoff=4)
    wait = planned_wait(policy, refused(500), attempt)
    assert 0 <= wait <= min(4, 0.5 * 2 ** (attempt - 1))
    assert len({planned_wait(policy, refused(500), attempt) for _ in range(5)}) > 1


def test_a_wait_the_server_demands_comes_before_the_backoff_and_is_a_minute_at_most() -> None:
    policy = RetryPolicy(initial_backoff=0.5)
    assert 3 <= planned_wait(policy, refused(retry_after="3"), 1) <= 3.5
    for header in ("61", "86400", "999999999999999", formatdate(time.time() + 1e6, usegmt=True)):
        assert 60 <= planned_wait(policy, refused(retry_after=header), 1) <= 60.5
    assert 60 <= planned_wait(policy, refused(retry_after_ms="60001"), 1) <= 60.5
    assert 60 <= planned_wait(policy, refused(x_ratelimit_reset="4000000000"), 1) <= 60.5


def test_while_the_server_is_away_probes_take_the_place_of_the_backoff() -> None:
    policy = RetryPolicy(initial_backoff=8)
    assert planned_wait(policy, refused(503), 5, in_outage=True) == 0
    assert planned_wait(policy, refused(503, retry_after="3"), 5, in_outage=True) == 3


@pytest.mark.parametrize("attempt", [1, 2, 999])
def test_a_failure_without_a_response_waits_for_the_backoff_alone(attempt: int) -> None:
    policy = RetryPolicy(initial_backoff=0.25, max_backoff=1)
    for error in (APIConnectionError("x", job_id="j", offset=0), APITimeoutError("x", job_id="j", offset=0)):
        assert 0 <= planned_wait(policy, error, attempt) <= min(1, 0.25 * 2 ** (attempt - 1))
    assert planned_wait(RetryPolicy(initial_backoff=0), APITimeoutError("x", job_id="j", offset=0), attempt) == 0


class Failing:
    """A request that fails, each second; others may be well meanwhile."""

    def __init__(self, policy: RetryPolicy = RetryPolicy()) -> None:  # noqa: B008  # immutable
        self.pace = SendPace(1, math.inf)
        self.state = new_state(policy, self.pace)
        self.error: APIError = refused(500)

    def fail(self, error: APIError | None = None, *, last_good: float | None) -> None:
        self.error = error or refused(500)
        self.pace.last_good = last_good
        failed_with(self.state, self.error).fail(now=float(self.state.attempts))
        self.state.attempts += 1

    def reason_to_give_up(self, wait: float = 1.0) -> str | None:
        self.state.upcoming_sleep = wait
        stops = self.state.retry_object.stop(failed_with(self.state, self.error))
        return self.error.gave_up_because if stops else None


def gives_up(
    policy: RetryPolicy,
    *,
    failures: int = 1,
    error: APIError | None = None,
    spent: float = 0.0,
    wait: float = 1.0,
    outage: float = 0.0,
    others_are_well: bool = False,
) -> str | None:
    """Why a request is given up after so many failures; None if it is not."""
    failing = Failing(policy)
    for number in range(failures):
        failing.fail(error, last_good=number - 0.5 if others_are_well else -1.0)
        failing.state.spent = spent
    failing.pace.outage = lambda _: outage  # type: ignore[assignment,method-assign]
    return failing.reason_to_give_up(wait)


@pytest.mark.parametrize(
    ("failures", "spent", "wait", "stops"),
    [(1, 0, 1, False), (2, 0, 1, False), (3, 0, 1, True), (1, 8.9, 1, False), (1, 9, 1, True), (1, 0, 60, True)],
)
def test_a_retry_that_would_come_too_often_or_too_late_is_not_made(
    failures: int, spent: float, wait: float, stops: bool
) -> None:
    policy = RetryPolicy(max_attempts=3, deadline=10)
    assert (gives_up(policy, failures=failures, spent=spent, wait=wait) is not None) is stops


OVER = "the next attempt would come in 1 s, and 1 s are left of the retry policy's patience of 300 s"


def test_an_outage_is_given_up_when_the_patience_is_over_however_often_a_request_was_sent() -> None:
    """The unluckiest request doesn't end an outage: what counts is when anything of the client last went well."""
    policy = RetryPolicy(patience=300)
    for error in (refused(503), refused(500), APITimeoutError("x"), APIConnectionError("x")):
        assert gives_up(policy, failures=500, error=error, outage=298) is None
        assert gives_up(policy, error=error, outage=299) == OVER


def test_a_request_that_fails_alone_is_given_up_after_its_own_patience() -> None:
    policy = RetryPolicy(patience=300)
    assert gives_up(policy, error=refused(429), failures=50, spent=298, others_are_well=True) is None
    assert gives_up(policy, error=refused(429), failures=50, spent=299, others_are_well=True) is not None


def test_a_request_that_the_server_fails_on_is_given_up_after_ten_attempts() -> None:
    """A 500 for one page, where others are well, won't pass; but refusals say nothing about the page."""
    policy = RetryPolicy()
    assert gives_up(policy, failures=9, others_are_well=True) is None
    assert gives_up(policy, failures=10, others_are_well=True) == ""
    assert gives_up(policy, failures=10) is None
    for status in (429, 502, 503, 504):
        assert gives_up(policy, failures=50, error=refused(status), others_are_well=True) is None
    assert gives_up(RetryPolicy(max_attempts=20), failures=19, others_are_well=True) is None


def test_the_first_request_of_a_client_that_gets_only_500s_is_given_up_after_ten_attempts() -> None:
    failing = Failing()
    for _ in range(10):
        assert failing.reason_to_give_up() is None
        failing.fail(last_good=None)
    assert failing.reason_to_give_up() == ""


def test_a_request_that_failed_often_while_others_were_well_is_given_up_when_they_are_over() -> None:
    """It is the only one left, so that nothing shows any more that the server is well."""
    failing = Failing()
    for number in range(10):
        assert failing.reason_to_give_up() is None
        failing.fail(last_good=min(number, 4) - 0.5)
    assert failing.reason_to_give_up() == ""


def test_a_request_that_failed_a_few_times_before_an_outage_waits_for_its_end() -> None:
    failing = Failing()
    for number in range(100):
        failing.fail(last_good=min(number, 3) - 0.5)
    assert failing.reason_to_give_up() is None


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"retry_after": "86400"}, "the server asks for a wait of 86,400 s, and 30 s are left of the retry policy's"),
        ({"retry_after_ms": "45000"}, "the server asks for a wait of 45 s, and 30 s are left of the retry policy's"),
        ({}, "the next attempt would come in 60 s, and 30 s are left of the retry policy's patience of 30 s"),
    ],
)
def test_a_wait_beyond_the_patience_is_said_to_be_the_servers(headers: dict[str, str], says: str) -> None:
    """The patience isn't over after 0.00 s because the server asks for a day."""
    reason = gives_up(RetryPolicy(patience=30), error=refused(429, **headers), wait=60)
    assert reason is not None
    assert says in reason


def test_what_may_pass_is_transient_and_nothing_else() -> None:
    transient = {status for status in range(100, 1000) if refused(status).is_transient}
    assert transient == {408, 425, 429, *range(500, 600)}
    assert APIConnectionError("x").is_transient
    assert APITimeoutError("x").is_transient
    assert not DecodeError("x").is_transient


@pytest.mark.parametrize(
    "wrong",
    [
        *({"max_attempts": value} for value in [0, -1, 1.5, "3", True]),
        *({name: -0.1} for name in ["initial_backoff", "max_backoff", "patience", "deadline"]),
        *({name: float("nan")} for name in ["initial_backoff", "max_backoff", "patience", "deadline"]),
        *({name: float("inf")} for name in ["initial_backoff", "max_backoff", "patience", "deadline"]),
        *({name: value} for name in ["initial_backoff", "patience"] for value in ["1", True, None]),
        *({name: value} for name in ["max_backoff", "patience"] for value in ["1", True, None, 86_401]),
        *({"deadline": value} for value in ["1", True, 86_401]),
        {"max_attempts": 1001},
        {"max_attempts": float("nan")},
        {"initial_backoff": 10**400},
        {"deadline": 0},
    ],
    ids=str,
)
def test_a_policy_takes_only_what_makes_sense(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises((TypeError, ValueError)) as caught:
        RetryPolicy(**wrong)
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [True, "3", -1, float("nan"), 10**6])
@pytest.mark.parametrize("name", ["max_attempts", "deadline", "patience"])
def test_a_wrong_value_of_a_policy_is_reported_in_one_plain_line(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        RetryPolicy(**{name: value})
    assert len(str(caught.value)) < 120
    assert "Attribute(" not in str(caught.value)


def test_a_policy_takes_the_borders_of_its_ranges_and_is_immutable() -> None:
    least = RetryPolicy(max_attempts=1, initial_backoff=0, max_backoff=0, deadline=0.001, patience=0)
    RetryPolicy(max_attempts=1000, initial_backoff=86_400, max_backoff=86_400, deadline=86_400, patience=86_400)
    assert RetryPolicy(max_attempts=None, deadline=None) == RetryPolicy()
    assert planned_wait(least, refused(retry_after="5"), 1) == 5
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        least.max_attempts = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        RetryPolicy(3)  # type: ignore[misc]
