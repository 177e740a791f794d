"""From the body of a response to models, or to the error that says what is wrong with it."""

import hashlib
import json
import pickle
from collections.abc import Callable
from typing import Any, TypeVar, cast

import attrs
import cattrs
import msgspec

from tfruns._decode.explain import REFUSED, converter, decode_error
from tfruns._text import excerpt, with_strings, writable
from tfruns.errors import DecodeError, FieldProblem
from tfruns.models import BadRun, HttpError, JobRun, RunPage

T = TypeVar("T")

_splitter: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.defstruct("_Texts", [("data", list[msgspec.Raw])]))


def decode_page(
    body: bytes, *, job_id: str, offset: int, hide: Callable[[str], str] = str, keep_bad: bool = False
) -> RunPage:
    """The page in the body of a response, or a `DecodeError` that names every run and field that is wrong.

    With `keep_bad`, a `BadRun` takes the place of a run that can't be understood. `hide` removes secrets from texts of
    the error, which names the job, and runs by their positions from the offset on.
    """
    try:
        return _decode(body, RunPage, job_id, offset, hide)
    except DecodeError as error:
        is_within_runs = error.problems and all(problem.position is not None for problem in error.problems)
        if not keep_bad or not is_within_runs:
            raise
    page = converter.structure({**json.loads(body), "data": []}, RunPage)
    runs: list[JobRun | BadRun] = []
    for at, text in enumerate(split_page(body), start=offset):
        try:
            runs += decode_runs(b"[%b]" % text, job_id=job_id, offset=at)
        except DecodeError as error:
            runs.append(_bad_run(text, error.problems, runs[-1].created_at if runs else 0))
    known = next((at for at, run in enumerate(runs) if run.created_at or isinstance(run, JobRun)), 0)
    runs[:known] = [attrs.evolve(run, created_at=runs[known].created_at) for run in runs[:known]]
    # The planner of a walk needs only ids and times of creation.
    return attrs.evolve(page, data=cast("tuple[JobRun, ...]", tuple(runs)))


def decode_runs(body: bytes, *, job_id: str, offset: int = 0) -> tuple[JobRun, ...]:
    """The runs in a JSON list of runs, or a `DecodeError` as of `decode_page`."""
    return _decode(body, tuple[JobRun, ...], job_id, offset, str)


def _decode(body: bytes, model: type[T], job_id: str, offset: int, hide: Callable[[str], str]) -> T:
    try:
        return converter.loads(body, model)
    except (cattrs.BaseValidationError, ValueError, RecursionError):
        pass
    # Outside of the block, so that the error's context has no frame with the body, which may contain the key.
    raise decode_error(body, model, job_id=job_id, offset=offset, hide=hide)


def split_page(body: bytes) -> tuple[bytes, ...]:
    """The JSON text of each run in a body that `decode_page` understood."""
    try:
        return tuple(map(bytes, _splitter.decode(body).data))
    except REFUSED:  # a byte-order mark, or lone surrogates: UTF-8 can't hold those
        return tuple(map(msgspec.json.encode, with_strings(json.loads(body)["data"], writable)))


def _bad_run(text: bytes, problems: tuple[FieldProblem, ...], created_at: float) -> BadRun:
    content, wrong = json.loads(text), {problem.field for problem in problems}  # "" is that of a run that is no object
    return BadRun(
        id=f"(no id, {hashlib.sha256(text).hexdigest()[:16]})" if wrong & {"", "id"} else content["id"],
        # Else that of the run before it (after it, if it is the first): the list is probably in order.
        created_at=created_at if wrong & {"", "createdAt"} else content["createdAt"],
        text=text,
        problems=problems,
    )


def decode_http_error(body: bytes, *, status_code: int, hide: Callable[[str], str] = str) -> HttpError:
    """The body of a failed request. Never raises: a proxy may send anything, and the status matters more."""
    try:
        payload = with_strings(json.loads(body), lambda text: hide(writable(text)))
        pickle.dumps(payload)  # an error may go to another process: a body too deeply nested for that isn't used
    except (ValueError, RecursionError):
        payload = None
    fields = payload if isinstance(payload, dict) else {}
    message, code, details = fields.get("message"), fields.get("code"), fields.get("details")
    if isinstance(message, list):
        message = "; ".join(map(str, message))
    return HttpError(
        status_code,
        message if isinstance(message, str) and message else excerpt(body, hide),
        code if isinstance(code, (int, str)) else None,
        [item for item in details if isinstance(item, dict)] if isinstance(details, list) else None,
    )
