"""The resume token: what a watch knows, as a plain string. No I/O.

It is the name of its version, a dot, and compressed JSON in the alphabet of URLs. The JSON is a page of runs, as the
API has it, with what is known of each job beside it: so runs are read, and checked, as those of an answer are.
"""

import base64
import binascii
import json
import math
import zlib
from collections.abc import Collection, Mapping
from typing import Any

from tfruns._decode.fast import decode_page
from tfruns._watch.diff import View
from tfruns.errors import DecodeError
from tfruns.models import JobRun

_VERSION = "tfruns1"
_LONGEST = 2**30  # in bytes, of the JSON: a short text can expand to any length


def encode(views: Mapping[str, View], filters: Mapping[str, Any]) -> str:
    """The token of a watch with these filters that knows this of these jobs."""
    runs: list[JobRun] = []
    jobs: dict[str, Any] = {}
    for job_id, view in views.items():
        told = [run for run in view.open.values() if run is not None]
        untold = [run_id for run_id, run in view.open.items() if run is None]
        floor = None if view.floor == -math.inf else view.floor
        jobs[job_id] = [floor, view.total, len(told), len(view.ended), untold]
        runs += (*told, *view.ended.values())
    data = [{name: value for name, value in run.to_dict().items() if value is not None} for run in runs]
    body = {"jobs": jobs, "filters": filters, "data": data, "pagination": {"total": len(data)}}
    packed = zlib.compress(json.dumps(body, separators=(",", ":")).encode(), 9)
    return f"{_VERSION}.{base64.urlsafe_b64encode(packed).decode().rstrip('=')}"


def decode(token: str, job_ids: Collection[str], filters: Mapping[str, Any]) -> dict[str, View]:
    """What the token knows of these jobs, by their ids.

    Raises:
        TypeError: it isn't a string.
        ValueError: it isn't a token of this version, not a whole one, or one of a watch of other jobs or filters.
    """
    if not isinstance(token, str):
        raise TypeError(f"resume_token must be a string, got {token!r}")
    version, dot, text = token.strip().partition(".")
    if version != _VERSION or not dot:
        shown = token if len(token) <= 40 else f"{token[:40]}…"
        raise ValueError(f"resume_token must begin with {_VERSION + '.'!r}, as this version makes it, got {shown!r}")
    try:
        body = _unpacked(text)
        content = json.loads(body)
        runs = decode_page(body, job_id="", offset=0).data
        views = _views(content["jobs"], runs)
        meant = content["filters"]
    except (ValueError, LookupError, TypeError, DecodeError, zlib.error, RecursionError):
        raise ValueError(f"resume_token is damaged: its {len(token)} characters were cut off or changed") from None
    if meant != json.loads(json.dumps(filters)):
        raise ValueError(f"resume_token is of a watch with other filters: {meant!r}, got {dict(filters)!r}")
    known = {job_id: views[job_id] for job_id in job_ids if job_id in views}
    if job_ids and views and not known:
        raise ValueError(f"resume_token is of a watch of other jobs: {', '.join(map(repr, list(views)[:3]))}")
    return known


def _unpacked(text: str) -> bytes:
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError from error
    unpacking = zlib.decompressobj()
    body = unpacking.decompress(packed, _LONGEST)
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError
    return body


def _views(jobs: dict[str, Any], runs: tuple[JobRun, ...]) -> dict[str, View]:
    views, at = {}, 0
    for job_id, (floor, total, told, ended, untold) in jobs.items():
        open_: dict[str, JobRun | None] = {run.id: run for run in runs[at : at + told]}
        at += told
        views[job_id] = View(
            open_ | dict.fromkeys(untold),
            {run.id: run for run in runs[at : at + ended]},
            -math.inf if floor is None else floor,
            total,
        )
        at += ended
    if at != len(runs):
        raise ValueError
    return views
