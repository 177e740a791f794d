"""What a sandbox does wrong on purpose, how often, and with which requests."""

import collections
import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, Self, SupportsIndex, get_args
from urllib.parse import unquote

import attrs

from tfruns._checks import checked_int, checked_kind, checked_number, checked_seconds, checked_string

WaitAs = Literal["seconds", "ms"]
"""How a response says how long to wait: `Retry-After` in whole seconds, or `retry-after-ms`."""
Break = Literal["cut", "reset", "stall"]
"""How a connection breaks: closed after half of the body, reset before a response, or silent after half of the body."""


def _one_of(value: Any, name: str, *, kind: Any) -> None:
    if value not in get_args(kind):
        raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}")


def _nth(value: Any) -> Any:
    return (value,) if isinstance(value, int) else value


def _check_nth(value: Any, name: str) -> None:
    for number in checked_kind(value, name, "a whole number or a tuple of them", tuple):
        checked_int(number, name, least=1)


@attrs.frozen(kw_only=True)
class Fault:
    """Something that goes wrong, and the requests with which it does. All effects that are given happen together.

    As text, for flags, it has the same names with hyphens: `status=429,wait=2`, `latency=0.2,rate=0.1`,
    `breaks=cut,job-id=my-job,nth=3`, `status=502,html`. `Fault.parse` reads it.

    Raises:
        TypeError, ValueError: a value isn't one of these, or nothing would go wrong.

    Example:
        >>> from tfruns.sandbox import Fault
        >>> sandbox.faults.append(Fault(status=503, nth=1))
        >>> print(await client.count_runs("my-job-id"), "runs, after a retry")
        250 runs, after a retry
    """

    status: int | None = None
    """Respond with this status, 400 to 599, and the contract's `HttpError`."""
    wait: float | None = None
    """Seconds that the client should wait: `Retry-After`, rounded up to whole seconds. Only with a status."""
    html: bool = False
    """Respond with a page of HTML, as proxies do; without a status, with 200."""
    latency: float = 0.0
    """Seconds before the response."""
    breaks: Break | None = None
    """Break the connection: `cut` it after half of the body, `reset` it before a response, or `stall` after half of the
    body until the client gives up."""
    limit: int | None = None
    """The most runs a page has, 1 or more, whatever was requested; `pagination` then has this limit."""
    total: int = 0
    """How many runs too many `pagination.total` says (too few if negative; it never falls below 0)."""
    rate: float = 1.0
    """The share of the requests that it hits, above 0 and up to 1, drawn from the sandbox's seed."""
    job_id: str | None = None
    """The job whose requests it hits; None: those of every job."""
    nth: tuple[int, ...] = attrs.field(default=(), converter=_nth)
    """Which requests of a job it hits, counted from 1 since the sandbox was started, even if the fault is added later.
    A single number is allowed. Empty: all. (As text: `nth=3/4`.)"""

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(Fault):
            value, (_, check) = getattr(self, field.name), _FIELDS[field.name]
            if value is not None or field.default is not None:
                check(value, field.name)
        if self.wait is not None and self.status is None:
            raise ValueError("wait needs a status to go with, such as 429")
        if not any((self.status, self.html, self.latency, self.breaks, self.limit, self.total)):
            raise ValueError("this fault does nothing: give a status, html, latency, breaks, limit or total")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The fault that a text describes: `name=value` after `name=value`, with commas between.

        A value may be percent-encoded, and must be if it holds a comma. `html` needs no value.

        Args:
            text: such as `status=429,wait=2,rate=0.1`.

        Returns:
            The fault.

        Raises:
            ValueError: it isn't such a text; the message says what is wrong.

        Example:
            >>> from tfruns.sandbox import Fault
            >>> Fault.parse("status=429,wait=2") == Fault(status=429, wait=2)
            True
        """
        fields: dict[str, Any] = {}
        for part in text.split(","):
            name, sign, value = (side.strip() for side in part.partition("="))
            field = name.replace("-", "_")
            if field not in _FIELDS or field in fields or bool(sign) == (name == "html"):
                names = ", ".join("html" if one == "html" else f"{one.replace('_', '-')}=…" for one in _FIELDS)
                raise ValueError(
                    f"a fault is made of {names}, each once, with commas between; got {part!r} in {text!r}"
                )
            read, _ = _FIELDS[field]
            try:
                fields[field] = read(unquote(value))
            except ValueError:
                raise ValueError(f"{name} of a fault can't be {value!r}, in {text!r}") from None
        return cls(**fields)


_FIELDS: dict[str, tuple[Callable[[str], Any], Callable[[Any, str], object]]] = {
    "status": (int, partial(checked_int, least=400, most=599)),
    "wait": (float, checked_seconds),
    "html": (lambda _: True, partial(checked_kind, allowed="a bool", kind=bool)),
    "latency": (float, checked_seconds),
    "breaks": (str, partial(_one_of, kind=Break)),
    "limit": (int, partial(checked_int, least=1, most=1000)),
    "total": (int, partial(checked_int, least=-(10**15), most=10**15)),
    "rate": (float, partial(checked_number, allowed="above 0 and at most 1", above=0, most=1)),
    "job_id": (str, checked_string),
    "nth": (lambda text: tuple(map(int, text.split("/"))), _check_nth),
}
"""How each field is read from a text, and its check."""


@attrs.frozen(kw_only=True)
class RateLimit:
    """How many requests a second a sandbox accepts; others get a 429, which says how long to wait.

    It uses real time, not the sandbox's clock, because clients wait in real time.

    Raises:
        TypeError, ValueError: a value isn't one of these.

    Example:
        >>> from tfruns.sandbox import RateLimit, Sandbox
        >>> async with Sandbox(jobs=["my-job-id"], runs=50, rate_limit=RateLimit(per_second=50, burst=10)) as sandbox:
        ...     async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
        ...         runs = await client.iter_runs("my-job-id", page_size=10).collect()
    """

    per_second: float
    """Requests a second, above 0, in the long run."""
    burst: int = 1
    """How many requests may come at once after a pause."""
    wait_as: WaitAs | None = "ms"
    """How a response says how long to wait: "seconds" for `Retry-After` in whole seconds, "ms" for `retry-after-ms`;
    None: it doesn't."""

    def __attrs_post_init__(self) -> None:
        checked_number(self.per_second, "per_second", "above 0", above=0)
        checked_int(self.burst, "burst", least=1)
        if self.wait_as is not None:
            _one_of(self.wait_as, "wait_as", kind=WaitAs)


def _fault(value: Any) -> Fault:
    if isinstance(value, str):
        return Fault.parse(value)
    if not isinstance(value, Fault):
        raise TypeError(f"each of faults must be a Fault, or the text of one, got {value!r}")
    return value


class Faults(list[Fault]):
    """A list of faults, each given as a Fault or as the text of one. Anything else is refused when it is given, not
    when a request comes, for which it would look like a failure of the code under test."""

    def __init__(self, faults: Iterable[Fault | str] = ()) -> None:
        super().__init__()
        self.extend(faults)

    def append(self, fault: Fault | str) -> None:
        self.extend([fault])

    def insert(self, index: SupportsIndex, fault: Fault | str) -> None:
        super().insert(index, _fault(fault))

    def extend(self, faults: Iterable[Fault | str]) -> None:
        if isinstance(faults, str) or not isinstance(faults, Iterable):
            raise TypeError(f"faults must be a sequence of faults, got {faults!r}")
        super().extend([_fault(fault) for fault in faults])

    def __iadd__(self, faults: Iterable[Fault | str]) -> Self:  # type: ignore[misc, override]  # as `extend` takes them
        self.extend(faults)
        return self

    def __setitem__(self, place: Any, value: Any) -> None:
        super().__setitem__(place, Faults(value) if isinstance(place, slice) else _fault(value))


@attrs.frozen(kw_only=True)
class TooManyRequests(Fault):
    """What a rate limit does to a request."""

    wait_as: WaitAs | None


class FaultInjector:
    """Decides which faults each request has: they are drawn by their rates and counted by their numbers."""

    def __init__(self, faults: list[Fault], rate_limit: RateLimit | None, seed: int) -> None:
        self._faults = faults
        self._limit = rate_limit
        self._rng = random.Random(f"faults/{seed}")  # noqa: S311  # made-up faults
        self._counts = collections.Counter[str]()
        self._tokens = 0.0 if rate_limit is None else float(rate_limit.burst)
        self._since = time.monotonic()

    def next(self, job_id: str) -> list[Fault]:
        self._counts[job_id] += 1
        if self._limit is not None and (wait := self._wait(self._limit)):
            return [TooManyRequests(status=429, wait=wait, wait_as=self._limit.wait_as)]
        return [
            fault
            for fault in self._faults
            if fault.job_id in (None, job_id)
            and (not fault.nth or self._counts[job_id] in fault.nth)
            and (fault.rate == 1 or self._rng.random() < fault.rate)
        ]

    def _wait(self, limit: RateLimit) -> float:
        """Take one token out of the bucket. Returns 0, or the seconds until there is a token."""
        now = time.monotonic()
        self._tokens = min(limit.burst, self._tokens + (now - self._since) * limit.per_second)
        self._since = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / limit.per_second
