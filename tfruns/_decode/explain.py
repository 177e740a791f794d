"""From plain JSON objects to models, or if that fails, to one error that names every bad field.

This is for the bytes that msgspec refuses. Besides what msgspec accepts, it accepts: a `deploymentVersion` that is an
integer, a `duration` that is a string of digits, whole numbers written as `12.0`, a `totalCount` beside `data` in place
of `pagination.total`, a byte-order mark, and lone surrogates in strings (each replaced by U+FFFD, because a string with
one can't be written as UTF-8). Everything else is refused by detailed validation.
"""

import functools
import json
import math
import re
import reprlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import attrs
import cattrs
import msgspec
from cattrs.errors import IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from tfruns._text import excerpt, with_strings, writable
from tfruns.errors import DecodeError, FieldProblem
from tfruns.models import MOST_RUNS, JobRun, JobRunStatus, RunPage, SubjectType, wire_name
from tfruns.version import __version__

T = TypeVar("T")

_Hook = Callable[[Any, Any], Any]
_Path = tuple[str | int, ...]

REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what msgspec raises for bytes that it refuses
# In JSON, a name between quotation marks and before a colon is always the name of a field: within a text, the mark
# before the colon would be escaped.
_VERSION_AS_NUMBER = re.compile(rb'("deploymentVersion"\s*:\s*)(0|-?[1-9][0-9]{0,17})(?=\s*[,}])')
_DURATION_AS_TEXT = re.compile(rb'("duration"\s*:\s*)"(0|[1-9][0-9]{0,17})(?:\.0+)?"')

_decoder: Callable[[Any], Any] = functools.cache(msgspec.json.Decoder)


class JsonConverter(cattrs.Converter):
    """A converter with `loads`. For all that msgspec accepts, `loads` and `structure` give the same result."""

    def loads(self, body: bytes, type_: type[T]) -> T:
        """The value in a JSON text: by msgspec, else by msgspec from the form of a newer server, else by the hooks."""
        decoder: msgspec.json.Decoder[T] = _decoder(type_)
        try:
            return decoder.decode(body)
        except REFUSED:  # `suppress` costs a microsecond a page
            pass
        with suppress(*REFUSED):
            return decoder.decode(_DURATION_AS_TEXT.sub(rb"\1\2", _VERSION_AS_NUMBER.sub(rb'\1"\2"', body)))
        return self.structure(json.loads(body), type_)


# --- what is accepted, field by field ---


def _refusal(expected: str, value: object) -> ValueError:
    if value is None or isinstance(value, bool):
        found = json.dumps(value)
    elif isinstance(value, (dict, list)):
        found = "an object" if isinstance(value, dict) else "a list"
    else:
        found = reprlib.repr(value)
    return ValueError(f"expected {expected}, got {found}")


def _string(value: Any, _: Any = None) -> str:
    if not isinstance(value, str):
        raise _refusal("a string", value)
    return writable(value)


def _integer(value: Any, _: Any = None) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is int:  # a bool isn't
        return value
    raise _refusal("a whole number", value)


def _total(value: Any, _: Any = None) -> int:
    total = _integer(value)
    if not 0 <= total <= MOST_RUNS:
        raise _refusal("a count", value)
    return total


def _number(value: Any, _: Any = None) -> int | float:
    if type(value) is int or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise _refusal("a number", value)


def _seconds(value: Any, _: Any = None) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}(\.0+)?", value):
        return int(value.partition(".")[0])
    return None if value is None else _integer(value)


def _with_total(page: dict[str, Any]) -> dict[str, Any]:
    """The page with the total in the place that the contract's schema has, if only the place in its prose has it."""
    pagination = {} if page.get("pagination") is None else page["pagination"]
    if "totalCount" in page and isinstance(pagination, dict) and pagination.get("total") is None:
        return {**page, "pagination": {**pagination, "total": page["totalCount"]}}
    return page


# --- the converter ---

converter = JsonConverter(detailed_validation=True)
_BY_FIELD: dict[str, _Hook] = {
    "deployment_version": lambda value, _: str(value) if type(value) is int else _string(value),
    "duration": _seconds,
    "total": _total,
}


@converter.register_structure_hook_factory(attrs.has)
def _structure_model(model: Any) -> _Hook:
    overrides: dict[str, Any] = {
        field.name: override(rename=wire_name(field.name), struct_hook=_BY_FIELD.get(field.name))
        for field in attrs.fields(model)
    }
    structure = make_dict_structure_fn(model, converter, **overrides)

    def hook(value: Any, type_: Any) -> Any:
        if not isinstance(value, dict):
            raise _refusal("an object", value)
        return structure(_with_total(value) if model is RunPage else value, type_)

    return hook


def _runs(value: Any, type_: Any) -> Any:
    if not isinstance(value, list):  # cattrs would take any iterable
        raise _refusal("a list", value)
    return _structure_runs(value, type_)


for _type, _hook in (
    (str, _string),
    (int, _integer),
    (int | float, _number),
    (int | float | None, lambda value, _: None if value is None else _number(value)),
    (JobRunStatus, lambda value, enum: enum(_string(value))),
    (SubjectType, lambda value, enum: enum(_string(value))),
):
    converter.register_structure_hook(_type, _hook)
_structure_runs: _Hook = converter.get_structure_hook(tuple[JobRun, ...])
converter.register_structure_hook_func(lambda type_: type_ == tuple[JobRun, ...], _runs)


# --- the error ---

_OF_A_PAGE = {"data", "pagination", "totalCount"}
"""An object with none of these isn't a page in which fields are wrong: it is something else."""


def decode_error(body: bytes, model: Any, *, job_id: str, offset: int, hide: Callable[[str], str]) -> DecodeError:
    """The error for a body that `loads` refuses as a page of runs, or as a list of runs: it names each wrong field."""
    payload: Any = None
    problems: tuple[FieldProblem, ...] = ()
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else hide(str(error))
        start = excerpt(body, hide)
        begins = f"it begins {start!r}" if start else "it is empty"
        text = f"the response isn't JSON ({reason}); {begins}. Is the host a TrueFoundry control plane?"
    else:
        _, problems = structured(with_strings(payload, hide), model, offset)
        text = f"the response can't be understood: {first_of(problems)}"
        text += f" (a newer server may need a newer tfruns than {__version__})"
    failure = DecodeError(text, job_id=job_id, offset=offset, problems=problems)
    is_object = isinstance(payload, dict) and bool(_OF_A_PAGE & {*payload})
    failure.is_page = is_object if model is RunPage else bool(problems)
    return failure


def first_of(problems: tuple[FieldProblem, ...]) -> str:
    more = f"; and {len(problems) - 5} more, in `problems`" if len(problems) > 5 else ""
    return "; ".join(map(str, problems[:5])) + more


def structured(payload: Any, model: Any, offset: int = 0) -> tuple[Any, tuple[FieldProblem, ...]]:
    """The model that plain JSON describes, or every field that is wrong."""
    try:
        return converter.structure(payload, model), ()
    except cattrs.BaseValidationError as error:
        runs = payload.get("data") if model is RunPage else payload
        return None, tuple(_located(path, reason, runs, offset) for path, reason in _leaves(error))
    except ValueError as error:
        whole = {RunPage: "the page", tuple[JobRun, ...]: "the runs"}.get(model, "the value")
        return None, (FieldProblem(whole, str(error)),)


def _leaves(error: BaseException, path: _Path = ()) -> Iterator[tuple[_Path, str]]:
    """Every failure within a cattrs validation error: the path to it, in the JSON's names, and the reason."""
    if isinstance(error, (cattrs.ClassValidationError, cattrs.IterableValidationError)):
        for inner, note in error.group_exceptions()[0]:
            step: Any = note.index if isinstance(note, IterableValidationNote) else wire_name(note.name)
            yield from _leaves(inner, (*path, step))
    else:
        yield path, "is missing" if isinstance(error, KeyError) else str(error)


def _located(path: _Path, reason: str, runs: Any, offset: int) -> FieldProblem:
    match path:
        case ("data", int(index), *rest) | (int(index), *rest):
            run = runs[index]
            run_id = run.get("id") if isinstance(run, dict) else None
            field = ".".join(map(str, rest))
            return FieldProblem(field, reason, offset + index, run_id if isinstance(run_id, str) else None)
        case _:
            return FieldProblem(".".join(map(str, path)), reason)
