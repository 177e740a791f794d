"""What a sandbox does wrong when it is told to: to which requests, how often, and what."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, Self, get_args
from urllib.parse import unquote

import attrs

from tfruns._checks import checked_int
from tfruns._public import shows_field_docs
from tfruns.sandbox.clock import checked_seconds

WaitAs = Literal["seconds", "date", "ms", "reset"]
"""How a wait is said: `Retry-After` in seconds or as a date, `retry-after-ms`, or `X-RateLimit-Reset` in seconds."""
Break = Literal["cut", "reset", "stall"]
"""How a connection breaks: closed after half of the body, reset before an answer, or silent after half of the body."""


def _one_of(name: str, value: Any, allowed: Any) -> None:
    if value not in get_args(allowed):
        raise ValueError(f"{name} must be one of {', '.join(get_args(allowed))}, got {value!r}")


def _nth(value: Any) -> Any:
    return (value,) if isinstance(value, int) else value


@shows_field_docs
@attrs.frozen(kw_only=True)
class Fault:
    """Something that goes wrong: what, and with which requests. All that is said of what happens together.

    As text, for flags and the admin address, the same names with hyphens: `status=429,wait=2,wait-as=date`,
    `latency=0.2/1.5,rate=0.1`, `breaks=cut,job-id=my-job,nth=3`, `status=502,html`. `Fault.parse` reads it.

    Raises:
        TypeError, ValueError: a value isn't one of these, or nothing would go wrong.

    Example:
        >>> from tfruns.sandbox import Fault
        >>> sandbox.faults.append(Fault(status=503, nth=1))
        >>> print(await client.count_runs("my-job-id"), "runs, after a retry")
        250 runs, after a retry

    .. versionadded:: 0.1.0
    """

    status: int | None = None
    """Answer with this status, 400 to 599, and the contract's `HttpError`."""
    wait: float | None = None
    """Seconds that the answer asks the client to wait; None: it asks for nothing. Only with a status."""
    wait_as: WaitAs = "seconds"
    """How it asks: `Retry-After` in seconds (whole, so rounded up) or as a `date`, `retry-after-ms` (`ms`), or
    `X-RateLimit-Reset` (`reset`)."""
    html: bool = False
    """Answer with a page of HTML, as proxies do; without a status, with 200."""
    latency: float | tuple[float, float] = 0.0
    """Seconds before the answer: a number, or a median and a 99th percentile, between which it is drawn from the
    log-normal distribution that has them. (As text: `0.2/1.5`.)"""
    breaks: Break | None = None
    """Break the connection: `cut` it after half of the body, `reset` it before an answer, or `stall` after half of the
    body until the client gives up."""
    length: int = 0
    """Bytes that `Content-Length` says too much (or too little, if negative)."""
    limit: int | None = None
    """The most runs a page has, 1 or more, whatever was asked for; `pagination` repeats this limit then."""
    total: int = 0
    """Runs that `pagination.total` says too many (or too few, if negative; it never falls below 0)."""
    rate: float = 1.0
    """The share of the requests that it hits, above 0 and up to 1, drawn from the sandbox's seed."""
    job_id: str | None = None
    """The job whose requests it hits; None: those of every job."""
    nth: tuple[int, ...] = attrs.field(default=(), converter=_nth)
    """Which requests of a job it hits, counted from 1; a single number will do. Empty: all. (As text: `nth=3/4`.)"""

    def __attrs_post_init__(self) -> None:
        if self.status is not None:
            checked_int(self.status, "status", least=400, most=599)
        if self.wait is not None:
            checked_seconds("wait", self.wait)
            if self.status is None:
                raise ValueError("wait needs a status to go with, such as 429")
        _one_of("wait_as", self.wait_as, WaitAs)
        if self.breaks is not None:
            _one_of("breaks", self.breaks, Break)
        if isinstance(self.latency, tuple):
            if len(self.latency) != 2 or not 0 < checked_seconds("latency", self.latency[0]) <= checked_seconds(
                "latency", self.latency[1]
            ):
                raise ValueError(f"latency must be seconds, or a median and a 99th percentile, got {self.latency!r}")
        else:
            checked_seconds("latency", self.latency)
        if self.limit is not None:
            checked_int(self.limit, "limit", least=1, most=1000)
        for name in ("length", "total"):
            checked_int(getattr(self, name), name, least=-(10**15), most=10**15)
        if not 0 < checked_seconds("rate", self.rate) <= 1:
            raise ValueError(f"rate must be above 0 and at most 1, got {self.rate!r}")
        if not isinstance(self.nth, tuple):
            raise TypeError(f"nth must be a whole number or a tuple of them, got {self.nth!r}")
        for nth in self.nth:
            checked_int(nth, "nth", least=1)
        if not isinstance(self.html, bool) or not isinstance(self.job_id, str | None):
            raise TypeError(f"html must be a bool and job_id a string, got {self.html!r} and {self.job_id!r}")
        done = (self.status, self.html, self.latency, self.breaks, self.length, self.limit, self.total)
        if not any(done):
            raise ValueError("this fault does nothing: give a status, html, latency, breaks, length, limit or total")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The fault that a text describes: `name=value` after `name=value`, with commas between.

        A value may be percent-encoded, and has to be where it holds a comma. `html` needs no value.

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
            if name not in _READERS or name in fields or bool(sign) == (name == "html"):
                names = ", ".join("html" if one == "html" else f"{one}=…" for one in _READERS)
                raise ValueError(
                    f"a fault is made of {names}, each once, with commas between; got {part!r} in {text!r}"
                )
            try:
                fields[name] = _READERS[name](unquote(value))
            except ValueError:
                raise ValueError(f"{name} of a fault can't be {value!r}, in {text!r}") from None
        return cls(**{name.replace("-", "_"): value for name, value in fields.items()})


def _pair(text: str) -> float | tuple[float, ...]:
    numbers = tuple(float(number) for number in text.split("/"))
    return numbers[0] if len(numbers) == 1 else numbers


_READERS: dict[str, Callable[[str], Any]] = {
    "status": int,
    "wait": float,
    "wait-as": str,
    "html": lambda _: True,
    "latency": _pair,
    "breaks": str,
    "length": int,
    "limit": int,
    "total": int,
    "rate": float,
    "job-id": str,
    "nth": lambda text: tuple(int(number) for number in text.split("/")),
}


@shows_field_docs
@attrs.frozen(kw_only=True)
class RateLimit:
    """How many requests a second a sandbox takes; others get a 429, and are told when there is room again.

    Time is real time here, not the sandbox's clock: it is what clients wait by.

    Raises:
        TypeError, ValueError: a value isn't one of these.

    Example:
        >>> from tfruns.sandbox import RateLimit, Sandbox
        >>> async with Sandbox(jobs=["my-job-id"], runs=50, rate_limit=RateLimit(per_second=50, burst=10)) as sandbox:
        ...     async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
        ...         runs = await client.iter_runs("my-job-id", page_size=10).collect()

    .. versionadded:: 0.1.0
    """

    per_second: float
    """Requests a second, above 0, in the long run."""
    burst: int = 1
    """How many may come at once after a pause."""
    wait_as: WaitAs | None = "ms"
    """How the wait is said (see `Fault.wait_as`); None: it isn't."""

    def __attrs_post_init__(self) -> None:
        if checked_seconds("per_second", self.per_second) == 0:
            raise ValueError("per_second must be above 0, got 0")
        checked_int(self.burst, "burst", least=1)
        if self.wait_as is not None:
            _one_of("wait_as", self.wait_as, WaitAs)


def checked_faults(faults: Any) -> list[Fault]:
    """The faults, each a Fault or the text of one.

    Raises:
        TypeError: something else was given.
        ValueError: a text isn't that of a fault.
    """
    if isinstance(faults, (str, Fault)) or not isinstance(faults, Iterable):
        raise TypeError(f"faults must be a sequence of faults, got {faults!r}")
    checked = [Fault.parse(fault) if isinstance(fault, str) else fault for fault in faults]
    for fault in checked:
        if not isinstance(fault, Fault):
            raise TypeError(f"each of faults must be a Fault, or the text of one, got {fault!r}")
    return checked


def parse_rate_limit(text: str) -> RateLimit:
    """`50` or `50/10`: requests a second, and how many at once.

    Raises:
        ValueError: it is neither.
    """
    if not (parts := re.fullmatch(r"([0-9.]+)(?:/([0-9]+))?", text)):
        raise ValueError(f"a rate limit is requests a second, or that and a burst, such as 50 or 50/10, got {text!r}")
    return RateLimit(per_second=float(parts[1]), burst=int(parts[2] or 1))
