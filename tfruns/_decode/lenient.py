"""A page in which some runs can't be understood: the other runs, and what is wrong with these."""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any, cast

import attrs

from tfruns._decode.fast import decode_page, decode_runs, split_page
from tfruns.errors import DecodeError, FieldProblem
from tfruns.models import BadRun, JobRun, RunPage


def decode_leniently(body: bytes, *, job_id: str, offset: int, hide: Callable[[str], str] = str) -> RunPage:
    """The page in a body, with a `BadRun` in place of each run that can't be understood.

    Raises:
        DecodeError: the body isn't a page at all.
    """
    try:
        return decode_page(body, job_id=job_id, offset=offset, hide=hide)
    except DecodeError as error:
        if not error.problems or any(problem.position is None for problem in error.problems):
            raise  # what is wrong isn't within a run
    payload = json.loads(body)
    page = decode_page(
        json.dumps({**payload, "data": []}).encode("utf-8", "replace"), job_id=job_id, offset=offset, hide=hide
    )
    runs: list[JobRun | BadRun] = []
    for at, text in enumerate(split_page(body), start=offset):
        try:
            runs += decode_runs(b"[%b]" % text, job_id=job_id, offset=at)
        except DecodeError as error:
            runs.append(_bad_run(text, error.problems, runs[-1].created_at if runs else 0))
    # The planner of a walk needs only ids and times of creation.
    return attrs.evolve(page, data=cast("tuple[JobRun, ...]", tuple(runs)))


def _bad_run(text: bytes, problems: tuple[FieldProblem, ...], created_at: float) -> BadRun:
    content: Any = json.loads(text)
    fields = content if isinstance(content, dict) else {}
    own_id: Any = fields.get("id")
    own_time: Any = fields.get("createdAt")
    is_time = isinstance(own_time, (int, float)) and not isinstance(own_time, bool) and math.isfinite(own_time)
    return BadRun(
        id=own_id if isinstance(own_id, str) else f"(no id, {hashlib.sha256(text).hexdigest()[:16]})",
        created_at=own_time if is_time else created_at,  # that of the run before it: the list is probably in order
        text=text,
        problems=problems,
    )
