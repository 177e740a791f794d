"""From a page's bytes to attrs instances, and where that fails, to one error that names every bad field.

Two paths through one cattrs converter, both generated from the models:

- The fast one. Each model has a msgspec Struct, derived from it, that decodes and validates the bytes in C; a structure
  hook then carries the Struct's values over into the attrs class.
- The explaining one, taken only where the Struct refuses the bytes. The JSON is read again as plain objects and
  structured with detailed validation: lenient where older servers are known to differ, and otherwise naming each run
  and each field that is wrong.

What both accept, both structure alike. What only the explaining path accepts: a `deploymentVersion` that is an integer,
a `duration` that is a string of digits, whole numbers written as `12.0`, a `totalCount` beside `data` in place of
`pagination.total`, a byte-order mark, and lone surrogates in strings (each replaced by U+FFFD: a string that holds one
can't be written anywhere as UTF-8).
"""

import contextlib
import json
import math
import re
import reprlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import attrs
import cattrs
import msgspec
from cattrs.errors import IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from tfruns.errors import DecodeError, FieldProblem
from tfruns.models import HttpError, JobRun, JobRunStatus, Pagination, RunPage, Subject, SubjectType, wire_name
from tfruns.version import __version__

_Hook = Callable[[Any, Any], Any]
_Path = tuple[str | int, ...]


def decode_page(body: bytes, *, job_id: str, offset: int, hide: Callable[[str], str] = str) -> RunPage:
    """The page of runs in the body of an answer to `job_id` at `offset`.

    Args:
        body: the JSON.
        job_id: for errors.
        offset: for errors.
        hide: takes secrets out of a text that goes into an error.

    Raises:
        DecodeError: the body isn't what the contract says; the error names every run and field that is wrong.
    """
    try:
        decoded = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _explain_page(body, job_id, offset, hide)
    return _converter.structure(decoded, RunPage)


def split_page(body: bytes) -> tuple[bytes, ...]:
    """The JSON text of each run in a body that `decode_page` understood."""
    try:
        return tuple(map(bytes, _splitter.decode(body).data))
    except (msgspec.DecodeError, UnicodeDecodeError):  # a byte-order mark, or lone surrogates: UTF-8 can't hold those
        return tuple(map(msgspec.json.encode, _with_strings(json.loads(body)["data"], _writable)))


def decode_http_error(body: bytes, *, status_code: int, hide: Callable[[str], str] = str) -> HttpError:
    """What the body of a failed request says. Never raises: proxies answer with anything, and the status counts."""
    try:
        payload = _with_strings(json.loads(body), lambda text: hide(_writable(text)))
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        return HttpError(status_code, _excerpt(body, hide))
    message, code, details = payload.get("message"), payload.get("code"), payload.get("details")
    if isinstance(message, list):
        message = "; ".join(map(str, message))
    return HttpError(
        status_code,
        message if isinstance(message, str) and message else _excerpt(body, hide),
        code if isinstance(code, (int, str)) else None,
        [item for item in details if isinstance(item, dict)] if isinstance(details, list) else None,
    )


def _writable(text: str) -> str:
    """The text as UTF-8 can hold it: each lone surrogate replaced by U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _with_strings(value: Any, change: Callable[[str], str]) -> Any:
    """The value, plain JSON, with each string in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_with_strings(item, change) for item in value]
    if isinstance(value, dict):
        return {change(name): _with_strings(item, change) for name, item in value.items()}
    return value


def _excerpt(body: bytes, hide: Callable[[str], str]) -> str:
    """The start of a body as one line of text."""
    return " ".join(hide(body[:10_000].decode("utf-8", "replace"))[:400].split())[:200]


# --- the fast path: bytes -> Struct -> attrs ------------------------------------------------------------------------

_MOST_RUNS = 2**62
_NARROWED: dict[str, Any] = {"total": Annotated[int, msgspec.Meta(ge=0, le=_MOST_RUNS)]}
_structs: dict[type, type] = {}
_UNFROZEN = {
    "__slots__": (),
    "__init__": object.__init__,
    "__setattr__": object.__setattr__,
    "__delattr__": object.__delattr__,
}


def _on_structs(annotation: Any) -> Any:
    """The annotation of a field with each model in it replaced by that model's Struct."""
    arguments = get_args(annotation)
    if not arguments:
        return _structs.get(annotation, annotation)
    replaced = tuple(_on_structs(argument) for argument in arguments)
    return tuple.__class_getitem__(replaced) if get_origin(annotation) is tuple else Union[replaced]  # noqa: UP007


def _struct_for(model: type) -> type:
    fields = attrs.fields(model)
    return msgspec.defstruct(
        model.__name__ + "Struct",
        [(field.name, _NARROWED.get(field.name, _on_structs(field.type)), *_default(field)) for field in fields],
        rename={field.name: wire_name(field.name) for field in fields},
        kw_only=True,
        gc=False,  # they hold no cycles and live only until they are carried over
    )


def _default(field: "attrs.Attribute[Any]") -> tuple[Any, ...]:
    return () if field.default is attrs.NOTHING else (field.default,)


def _carrier_for(model: Any) -> Callable[[Any], Any]:
    """A function from the model's Struct to the model, written out field by field, those of the models within included.

    A frozen attrs class is slow to fill through its `__init__` (2.1 us for a run, against 0.4 this way). So the values
    are set on an instance of an unfrozen subclass, which becomes one of the model itself once it is complete.
    """
    scope: dict[str, Any] = {}
    lines = ["def carry(struct):", *_filling(model, "made", "struct", scope), " return made"]
    exec("\n".join(lines), scope)  # noqa: S102  # our own text, of our own field names
    carrier: Callable[[Any], Any] = scope["carry"]
    return carrier


def _filling(model: Any, made: str, struct: str, scope: dict[str, Any]) -> Iterator[str]:
    """The statements that make `made`, one of the model, of `struct`; `scope` gets the names they use."""
    name = model.__name__
    scope[name] = model
    scope[f"Unfrozen{name}"] = type(f"Unfrozen{name}", (model,), _UNFROZEN)
    yield f" {made} = Unfrozen{name}()"
    for field in attrs.fields(model):
        target, value = f"{made}.{field.name}", f"{struct}.{field.name}"
        inner = next((part for part in (field.type, *get_args(field.type)) if part in _structs), None)
        if inner is None:
            yield f" {target} = {value}"
            continue
        inner_made, inner_struct = f"{made}_{field.name}", f"{struct}_{field.name}"
        fill_inner = ["  " + line for line in _filling(inner, inner_made, inner_struct, scope)]
        if get_origin(field.type) is tuple:
            yield f" {inner_made}_all = []"
            yield f" for {inner_struct} in {value}:"
            yield from fill_inner
            yield f"   {inner_made}_all.append({inner_made})"
            yield f" {target} = tuple({inner_made}_all)"
        else:
            yield f" {inner_made} = {inner_struct} = {value}"
            yield f" if {inner_struct} is not None:"
            yield from fill_inner
            yield f" {target} = {inner_made}"
    yield f" {made}.__class__ = {name}"


# --- the explaining path: plain objects -> attrs --------------------------------------------------------------------


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
    return _writable(value)


def _integer(value: Any, _: Any = None) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _refusal("a whole number", value)
    return value


def _total(value: Any, _: Any = None) -> int:
    total = _integer(value)
    if not 0 <= total <= _MOST_RUNS:
        raise _refusal("a count", value)
    return total


def _number(value: Any, _: Any = None) -> int | float:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, float) or not math.isfinite(value):
        raise _refusal("a number", value)
    return value


def _number_or_null(value: Any, _: Any = None) -> int | float | None:
    return None if value is None else _number(value)


def _open_enum(value: Any, enum: Any) -> Any:
    return enum(_string(value))


def _version(value: Any, _: Any = None) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _string(value)


def _seconds(value: Any, _: Any = None) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}(\.0+)?", value):
        return int(value.partition(".")[0])
    return None if value is None else _integer(value)


def _runs(value: Any, _: Any = None) -> tuple[JobRun, ...]:
    if not isinstance(value, list):  # cattrs takes anything that iterates
        raise _refusal("a list", value)
    return _converter.structure(value, tuple[JobRun, ...])


_BY_FIELD: dict[str, _Hook] = {"deployment_version": _version, "duration": _seconds, "data": _runs, "total": _total}


def _explainer_for(model: Any) -> _Hook:
    overrides: dict[str, Any] = {
        field.name: override(rename=wire_name(field.name), struct_hook=_BY_FIELD.get(field.name))
        for field in attrs.fields(model)
    }
    explain = make_dict_structure_fn(model, _converter, **overrides)

    def hook(value: Any, type_: Any) -> Any:
        if not isinstance(value, dict):
            raise _refusal("an object", value)
        return explain(value, type_)

    return hook


def _explain_page(body: bytes, job_id: str, offset: int, hide: Callable[[str], str] = str) -> RunPage:
    try:
        payload = json.loads(body)
    except RecursionError:
        raise _not_json(_excerpt(body, hide), "it is nested too deeply", job_id, offset) from None
    except ValueError as error:
        raise _not_json(_excerpt(body, hide), hide(str(error)), job_id, offset) from None
    with contextlib.suppress(cattrs.BaseValidationError, ValueError):
        return _converter.structure(_with_total(payload), RunPage)
    problems = _problems(_with_strings(payload, hide), offset)
    shown = "; ".join(map(str, problems[:5]))
    more = f"; and {len(problems) - 5} more, in `problems`" if len(problems) > 5 else ""
    raise DecodeError(
        f"the answer can't be understood: {shown}{more} (a newer server may need a newer tfruns than {__version__})",
        job_id=job_id,
        offset=offset,
        problems=problems,
    )


def _problems(payload: Any, offset: int) -> tuple[FieldProblem, ...]:
    try:
        _converter.structure(_with_total(payload), RunPage)
    except cattrs.BaseValidationError as error:
        return tuple(_located(path, reason, payload, offset) for path, reason in _leaves(error))
    except ValueError as error:
        return (FieldProblem("the page", str(error)),)
    return ()


def _not_json(excerpt: str, why: str, job_id: str, offset: int) -> DecodeError:
    begins = f"it begins {excerpt!r}" if excerpt else "it is empty"
    return DecodeError(
        f"the answer isn't JSON ({why}); {begins}. Is the host a TrueFoundry control plane?",
        job_id=job_id,
        offset=offset,
    )


def _with_total(payload: Any) -> Any:
    """The payload with the total where the contract's schema has it, if it stands only where the prose has it."""
    if not isinstance(payload, dict) or "totalCount" not in payload:
        return payload
    pagination = {} if payload.get("pagination") is None else payload["pagination"]
    if not isinstance(pagination, dict) or pagination.get("total") is not None:
        return payload
    return {**payload, "pagination": {**pagination, "total": payload["totalCount"]}}


def _leaves(error: BaseException, path: _Path = ()) -> Iterator[tuple[_Path, str]]:
    """Every failure within a cattrs validation error: the path to it, in the names of the wire, and the reason."""
    if isinstance(error, (cattrs.ClassValidationError, cattrs.IterableValidationError)):
        for inner, note in error.group_exceptions()[0]:
            step: Any = note.index if isinstance(note, IterableValidationNote) else wire_name(note.name)
            yield from _leaves(inner, (*path, step))
    else:
        yield path, "is missing" if isinstance(error, KeyError) else str(error)


def _located(path: _Path, reason: str, payload: Any, offset: int) -> FieldProblem:
    match path:
        case ("data", int(index), *rest):
            run = payload["data"][index]
            run_id = run.get("id") if isinstance(run, dict) else None
            field = ".".join(map(str, rest))
            return FieldProblem(field, reason, offset + index, run_id if isinstance(run_id, str) else None)
        case _:
            return FieldProblem(".".join(map(str, path)), reason)


# --- both, behind one converter -------------------------------------------------------------------------------------

_converter = cattrs.Converter(detailed_validation=True)
for _type, _hook in (
    (str, _string),
    (int, _integer),
    (int | float, _number),
    (int | float | None, _number_or_null),
    (JobRunStatus, _open_enum),
    (SubjectType, _open_enum),
):
    _converter.register_structure_hook(_type, _hook)


def _register(model: Any) -> None:
    struct = _structs[model] = _struct_for(model)
    carry = _carrier_for(model)
    explain = _explainer_for(model)

    def hook(value: Any, type_: Any) -> Any:
        return carry(value) if type(value) is struct else explain(value, type_)

    _converter.register_structure_hook(model, hook)


for _model in (Subject, JobRun, Pagination, RunPage):  # each after those it holds
    _register(_model)

_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_structs[RunPage])
_splitter: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.defstruct("_Texts", [("data", list[msgspec.Raw])]))
