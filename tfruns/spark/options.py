"""The options of `spark.read.format("tfruns").option(...)`, as one checked value.

Spark hands each over as a text, also if it was a number, a list or a timedelta. Values of the client and the filters
are checked by these: their errors only get the names of the options.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

from tfruns._checks import checked_int, checked_job_id
from tfruns._http.secret import SecretText
from tfruns._payload import wire_name
from tfruns._table.columns import COLUMNS, JOB_ID
from tfruns._text import duration
from tfruns.client import Client
from tfruns.query import MAX_PAGE_SIZE, Moment, RunFilter

OF_SERVER = ("search_prefix", "triggered_by", "status", "version_numbers")
"""The filters that the server has. (The client has others.)"""
_FILTERS = (*OF_SERVER, "created_after", "created_before")
_OF_CLIENT = ("base_url", "allow_http", "timeout", "max_concurrency", "max_rate")


class _Token(SecretText):
    origin = "the option apiToken"


@contextmanager
def _names_of_options() -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        text = re.sub("api_key", _Token.origin, str(error))
        text = re.sub(r"(\?) Or for one that is newer .*|; for one that is newer .*", r"\1", text)  # members are texts
        text = re.sub("|".join((*_FILTERS, *_OF_CLIENT)), lambda found: wire_name(found[0]), text)
        raise type(error)(text) from None


def _bare(name: str) -> str:
    return name.replace("_", "").lower()


# --- values by their texts ---


def _text(_: str, text: str) -> str:
    return text


def _list(name: str, text: str) -> list[str]:
    if not text.lstrip().startswith(("[", "(", "{")):
        return [item for item in map(str.strip, text.split(",")) if item]
    with suppress(SyntaxError, ValueError, TypeError):
        if not re.search(r"['\"]\s+['\"]", text):  # an array of NumPy has no commas
            return [str(item) for item in ast.literal_eval(text.strip())]
    raise ValueError(f"{name} must be a text with commas between, or a list of texts, got {text!r}")


def _number(_: str, text: str) -> Any:
    """The number that the text is, or else the text, which is refused where a number is needed."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def _whole(most: int | None = None) -> Callable[[str, str], int]:
    return lambda name, text: checked_int(_number(name, text), name, least=1, most=most)


_TIMEDELTA = re.compile(r"(?:([0-9]+) days?, )?([0-9]+):([0-9]{2}):([0-9.]+)", re.ASCII)


def _moment(name: str, text: str) -> Moment:
    text = text.strip()
    with suppress(ValueError, OverflowError):
        if (seconds := duration(text)) is not None:
            return timedelta(seconds=seconds)
        if ago := _TIMEDELTA.fullmatch(text):
            return timedelta(days=int(ago[1] or 0), hours=int(ago[2]), minutes=int(ago[3]), seconds=float(ago[4]))
        if not isinstance(number := _number(name, text), str):
            return float(number)
        if (moment := datetime.fromisoformat(text)).tzinfo is not None:
            return moment
    allowed = "a time with its zone (2026-11-23T08:30Z), a time ago (7 days), or milliseconds since 1970"
    raise ValueError(f"{name} must be {allowed}, got {text!r}")


def _one_of(*words: str) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}, got {text!r}")
        return text.lower()

    return read


def _new_column(name: str, text: str) -> str:
    if not text or text.lower() in (JOB_ID, *(column.name for column in COLUMNS)):
        raise ValueError(f"{name} must be the name of a column that isn't one of a run, got {text!r}")
    return text


_READERS: dict[str, Callable[[str, str], Any]] = {
    "jobs": _list,
    "jobs_path": _text,
    "base_url": _text,
    "allow_http": lambda name, text: _one_of("true", "false")(name, text) == "true",
    "api_token": lambda _, text: _Token(text),
    "timeout": _number,
    "max_concurrency": _number,
    "max_rate": _number,
    "search_prefix": _text,
    "triggered_by": _list,
    "status": _list,
    "version_numbers": lambda name, text: [_number(name, each) for each in _list(name, text)],
    "created_after": _moment,
    "created_before": _moment,
    "page_size": _whole(MAX_PAGE_SIZE),
    "num_partitions": _whole(),
    "on_error": _one_of("raise", "skip"),
    "mode": _one_of("permissive", "dropmalformed", "failfast"),
    "column_name_of_corrupt_record": _new_column,
}
_KNOWN = {_bare(name): name for name in _READERS}


@attrs.frozen(kw_only=True)
class Options:
    jobs: list[str] | None = attrs.field(default=None, repr=False)
    jobs_path: str | None = None
    client_arguments: Mapping[str, Any]
    api_token: _Token | None = None
    filter: RunFilter
    page_size: int = MAX_PAGE_SIZE
    num_partitions: int = 8
    on_error: str = "raise"
    mode: str = "permissive"
    column_name_of_corrupt_record: str = "_corrupt_record"

    @property
    def corrupt_column(self) -> str | None:
        """The column with the text of a run that can't be understood, if there is such a column."""
        return self.column_name_of_corrupt_record if self.mode == "permissive" else None

    def job_ids(self) -> list[str]:
        origin, listed = "jobs", self.jobs
        if listed is None:
            origin = f"jobsPath {self.jobs_path!r}"
            try:
                text = Path(self.jobs_path or "").read_text(encoding="utf-8-sig")
            except OSError as error:
                raise ValueError(f"{origin} can't be read by the driver: {error.strerror}") from None
            except UnicodeDecodeError:
                raise ValueError(f"{origin} isn't a text file in UTF-8") from None
            listed = [line for line in map(str.strip, text.splitlines()) if line and line[0] != "#"]
        if not listed:
            raise ValueError(f"{origin} names no job")
        return [checked_job_id(job_id) for job_id in dict.fromkeys(listed)]

    def client(self, **changes: Any) -> Client:
        with _names_of_options():
            return Client(api_key=self.api_token, **{**self.client_arguments, **changes})


def parse(given: Mapping[str, str]) -> Options:
    """The options that a user of Spark has given, by names in any case, with underscores or without."""
    values: dict[str, Any] = {}
    for name, text in given.items():
        known = _KNOWN.get(_bare(name))
        if known is None:
            hint = "Spark wouldn't hide one of that name in its UI and logs. Set TFY_API_KEY, or use apiToken; "
            hint = hint if _bare(name) == "apikey" else ""
            raise ValueError(f"unknown option {name!r}: {hint}the options are {', '.join(map(wire_name, _READERS))}")
        if known in values:
            raise ValueError(f"the option {wire_name(known)} is given twice, as {name!r} and in another spelling")
        values[known] = _READERS[known](wire_name(known), text)
    if ("jobs" in values) == ("jobs_path" in values):
        raise ValueError(
            "the option jobs (ids with commas between) or the option jobsPath (a text file of ids) must name the jobs"
            + (": give one of them, not both" if "jobs" in values else "")
        )
    filters: Any = {name: values.pop(name) for name in _FILTERS if name in values}
    client_arguments = {name: values.pop(name) for name in _OF_CLIENT if name in values}
    with _names_of_options():
        return Options(client_arguments=client_arguments, filter=RunFilter(**filters), **values)


def of_table(given: Mapping[str, str]) -> dict[str, str] | None:
    """The options of `CREATE TABLE … USING tfruns OPTIONS (…)`; None if this isn't a table.

    Spark adds the properties of the table to them, and the options once more with a prefix.
    """
    if "provider" not in given:
        return None
    options = {name.removeprefix("option."): text for name, text in given.items() if name.startswith("option.")}
    if any(_bare(name) == "apitoken" for name in options):
        raise ValueError("apiToken would be stored with the table: leave it out, and set TFY_API_KEY")
    return options
