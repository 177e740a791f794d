"""Checks of arguments. Each fails before any request, and says what was given and what is allowed."""

import difflib
import functools
import inspect
import math
import sys
from collections.abc import AsyncIterable, Callable, Collection, Iterable
from typing import Any, TypeVar, cast, get_args

_Method = TypeVar("_Method", bound=Callable[..., Any])

_OTHER_NAMES = {  # `limit` is for a page, `max_runs` for walks; the others have these names elsewhere
    **dict.fromkeys(("host", "url", "endpoint", "tfy_host"), ("base_url",)),
    **dict.fromkeys(("token", "key", "access_token", "api_token", "tfy_api_key", "bearer_token"), ("api_key",)),
    **dict.fromkeys(("max_retries", "retries", "retry_policy"), ("retry",)),
    "limit": ("max_runs",),
    **dict.fromkeys(("max_runs", "page_size"), ("limit",)),
    "since": ("created_after", "start"),
    "until": ("created_before",),
}


def checked_int(value: Any, name: str, *, least: int | None = None, most: int | None = None) -> int:
    """The value, if it is an int (no bool) from `least` to `most`."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if is_int and (least is None or value >= least) and (most is None or value <= most):
        return int(value)
    allowed = "a whole number"
    if least is not None:
        allowed += f" from {least} to {most}" if most is not None else f", {least} or more"
    raise (ValueError if is_int else TypeError)(f"{name} must be {allowed}, got {value!r}")


def checked_number(
    value: Any, name: str, allowed: str, *, least: float = -math.inf, most: float = math.inf, above: float = -math.inf
) -> float:
    """The value, if it is a finite number from `least` to `most`, and above `above`; the error says `allowed`."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")
    # (`math.isfinite` can't take an int that is too large for a float.)
    if not (least <= value <= most and above < value and abs(value) < math.inf):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return value


def checked_kind(value: Any, name: str, allowed: str, kind: Any) -> Any:
    """The value, if it is an instance of this class, or of one of these; the error says `allowed`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")
    return value


def checked_timeout(value: Any) -> float:
    return checked_number(value, "timeout", "a number of seconds above 0", above=0, most=sys.float_info.max)


def checked_seconds(value: Any, name: str) -> float:
    return float(checked_number(value, name, "a number from 0 to 1e9", least=0, most=1e9))


def checked_string(value: Any, name: str, what: str = "a string") -> str:
    text: str = checked_kind(value, name, what, str)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} can't be sent, for it isn't valid Unicode: {value!r}") from None
    return text


def checked_job_id(job_id: str) -> str:
    checked_string(job_id, "job_id")
    if not job_id.strip():
        raise ValueError(f"job_id is empty: {job_id!r}")
    if job_id != job_id.strip():
        raise ValueError(f"job_id begins or ends with white space: {job_id!r}")
    if job_id in (".", ".."):
        # Percent-encoded dots are still dots: a proxy that normalises paths would make another path of them.
        raise ValueError(f"job_id can't be {job_id!r}: in a URL that names another path")
    return job_id


def check_job_ids(job_ids: object) -> None:
    """Raise TypeError unless it can be the ids of several jobs: each id is checked when it is read."""
    if isinstance(job_ids, (str, bytes)) or not isinstance(job_ids, (Iterable, AsyncIterable)):
        raise TypeError(f"job_ids must be an iterable of job ids, sync or async, got {job_ids!r}")


def likely(given: object, allowed: Iterable[str]) -> str:
    """What is probably meant by a word that isn't allowed, for the end of an error."""
    close = difflib.get_close_matches(str(given).lower(), [*allowed], n=1)
    return f": did you mean {close[0]!r}?" if close else ""


def check_on_error(on_error: object) -> None:
    words = ("raise", "skip")
    if on_error not in words and not callable(on_error):
        meant = likely(on_error, words)
        raise ValueError(f"on_error must be 'raise', 'skip' or a function, got {on_error!r}{meant}")


def check_plain_function(value: object, name: str) -> None:
    """Raise TypeError unless the value is None or a function that isn't async: nothing awaits its result."""
    if value is None:
        return
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {value!r}")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise TypeError(f"{name} must be a plain function, not an async one: nothing waits for it")


def suggests_arguments(method: _Method) -> _Method:
    """If a method gets an argument that it doesn't have, let the error name the one that is probably meant.

    (Python 3.13 does so for slips, but not for other names, nor for `**filters`.)
    """
    allowed = argument_names(method)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        check_names(kwargs, allowed, method.__qualname__)
        return method(*args, **kwargs)

    @functools.wraps(method)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        return await call(*args, **kwargs)

    return cast("_Method", call_async if inspect.iscoroutinefunction(method) else call)


def argument_names(function: Callable[..., Any]) -> list[str]:
    """The names of a function's arguments, and those in its `**filters: Unpack[...]`."""
    names: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        is_several = parameter.kind is parameter.VAR_KEYWORD
        names += get_args(parameter.annotation)[0].__annotations__ if is_several else [parameter.name]
    return names


def check_names(given: Iterable[str], allowed: Collection[str], function: str) -> None:
    for name in given:
        if name not in allowed:
            close = difflib.get_close_matches(name, [*allowed], n=1)
            meant = next((other for other in (*_OTHER_NAMES.get(name, ()), *close) if other in allowed), None)
            hint = "" if meant is None else f": did you mean {meant!r}?"
            raise TypeError(f"{function}() has no argument {name!r}{hint}")
