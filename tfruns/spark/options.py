"""The options of `spark.read.format("tfruns").option(...)`, as one validated value."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from tfruns._checks import checked_int, checked_job_id
from tfruns._http.secret import SecretText
from tfruns.client import Client
from tfruns.query import MAX_PAGE_SIZE, RunFilter

_FILTERS = ("search_prefix", "triggered_by", "status", "version_numbers")
_OF_CLIENT = ("base_url", "allow_http", "timeout", "max_concurrency", "max_rate")

DEFAULT_PARTITIONS = 8
"""How many partitions there are, unless an option says otherwise."""


@attrs.frozen(kw_only=True)
class Options:
    """The options of a read, checked."""

    jobs: str | None = attrs.field(repr=False)
    jobs_path: str | None
    client_arguments: Mapping[str, Any]
    api_token: SecretText | None
    filter: RunFilter
    page_size: int
    num_partitions: int
    on_error: Literal["raise", "skip"]

    def job_ids(self) -> list[str]:
        """The jobs, each once, in the order given.

        Raises:
            ValueError: there are none, one can't be an id, or the file can't be read.
        """
        if self.jobs is not None:
            origin, listed = "jobs", _items(self.jobs)
        else:
            assert self.jobs_path is not None  # noqa: S101  # for the type checker
            origin = f"jobsPath {self.jobs_path!r}"
            try:
                lines = Path(self.jobs_path).read_text(encoding="utf-8").splitlines()
                listed = [line for line in map(str.strip, lines) if line]
            except OSError as error:
                raise ValueError(f"{origin} can't be read by the driver: {error.strerror}") from None
            except UnicodeDecodeError:
                raise ValueError(f"{origin} isn't a text file in UTF-8") from None
        if not listed:
            raise ValueError(f"{origin} names no job")
        return [checked_job_id(job_id) for job_id in dict.fromkeys(listed)]

    def client(self, **changes: Any) -> Client:
        """A client with these options.

        Raises:
            ConfigurationError, TypeError, ValueError: as `Client` raises them for its arguments.
        """
        return Client(api_key=self.api_token, **{**self.client_arguments, **changes})


def parse(given: Mapping[str, str]) -> Options:
    """The options that a user of Spark has given, by names in any case, with underscores or without.

    Raises:
        TypeError, ValueError: an option is unknown, wrong or missing.
    """
    values: dict[str, str] = {}
    for name, value in given.items():
        known = _KNOWN.get(_bare(name))
        if known is None:
            raise ValueError(f"unknown option {name!r}: {_hint(name)}the options are {', '.join(_SPELLED)}")
        if known in values:
            raise ValueError(f"the option {_camel(known)} is given twice, as {name!r} and in another spelling")
        values[known] = value
    if ("jobs" in values) == ("jobs_path" in values):
        raise ValueError(
            "the option jobs (ids with commas between) or the option jobsPath (a text file of ids) must name the jobs"
            + (": give one of them, not both" if "jobs" in values else "")
        )
    read: dict[str, Any] = {name: _READ[name](name, value) for name, value in values.items()}
    filters: Any = {name: read[name] for name in _FILTERS if name in read}
    return Options(
        jobs=read.get("jobs"),
        jobs_path=read.get("jobs_path"),
        client_arguments={name: read[name] for name in _OF_CLIENT if name in read},
        api_token=read.get("api_token"),
        filter=RunFilter(**filters),
        page_size=read.get("page_size", MAX_PAGE_SIZE),
        num_partitions=read.get("num_partitions", DEFAULT_PARTITIONS),
        on_error=read.get("on_error", "raise"),
    )


def _bare(name: str) -> str:
    return name.replace("_", "").lower()


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(map(str.capitalize, rest))


def _hint(name: str) -> str:
    if _bare(name) == "apikey":
        return "Spark wouldn't hide one of that name in its UI and logs. Set TFY_API_KEY, or use apiToken; "
    return ""


def _items(text: str) -> list[str]:
    return [item for item in map(str.strip, text.split(",")) if item]


def _text(name: str, text: str) -> str:
    return text


def _several(name: str, text: str) -> list[str]:
    return _items(text)


def _secret(name: str, text: str) -> SecretText:
    return SecretText(text)


def _whole(least: int, most: int | None = None) -> Callable[[str, str], int]:
    def read(name: str, text: str) -> int:
        try:
            value: Any = int(text)
        except ValueError:
            value = text
        return checked_int(value, _camel(name), least=least, most=most)

    return read


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{_camel(name)} must be a number above 0, got {text!r}")
    return value


def _one_of(*words: str) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"{_camel(name)} must be one of {', '.join(map(repr, words))}, got {text!r}")
        return text.lower()

    return read


def _bool(name: str, text: str) -> bool:
    return _one_of("true", "false")(name, text) == "true"


_READ: dict[str, Callable[[str, str], Any]] = {
    "jobs": _text,
    "jobs_path": _text,
    "base_url": _text,
    "allow_http": _bool,
    "api_token": _secret,
    "timeout": _number,
    "max_concurrency": _whole(1),
    "max_rate": _number,
    "search_prefix": _text,
    "triggered_by": _several,
    "status": _several,
    "version_numbers": _several,
    "page_size": _whole(1, MAX_PAGE_SIZE),
    "num_partitions": _whole(1),
    "on_error": _one_of("raise", "skip"),
}
_KNOWN = {_bare(name): name for name in _READ}
_SPELLED = tuple(map(_camel, _READ))
