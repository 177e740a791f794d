"""The resume token: what a watch knows, as a plain string. No I/O.

It is the name of its version, a dot, and compressed JSON in the alphabet of URLs. The JSON is a page of runs, as the
API has it, with what is known of each job beside it: so its runs are read and checked like those of a response.

It holds every job of the watch: the snapshot of each job that was polled, and the `Beginning` of each that wasn't. So a
watch that goes on from it reports what happened since in every job, even in those that weren't polled yet.
"""

import base64
import binascii
import json
import math
import zlib
from collections.abc import Collection, Mapping
from typing import Any, get_args

import attrs

from tfruns._decode.fast import decode_page
from tfruns._text import shortened
from tfruns._watch.diff import Beginning, Snapshot
from tfruns.errors import DecodeError
from tfruns.models import JobRun
from tfruns.types import Start

_VERSION = "tfruns1"
_LONGEST = 2**30  # in bytes, of the JSON: a short text can expand to any length


@attrs.frozen
class WatchState:
    """What a watch knows of its jobs, by their ids: each is in one of the two."""

    snapshots: Mapping[str, Snapshot] = attrs.field(factory=dict)
    beginnings: Mapping[str, Beginning] = attrs.field(factory=dict)


def encode(state: WatchState, filters: Mapping[str, Any]) -> str:
    """The token of a watch with these filters in this state."""
    runs: list[JobRun] = []
    jobs: dict[str, Any] = {}
    for job_id, snapshot in state.snapshots.items():
        reported = [run for run in snapshot.open.values() if run is not None]
        unreported = [run_id for run_id, run in snapshot.open.items() if run is None]
        floor = None if snapshot.floor == -math.inf else snapshot.floor
        jobs[job_id] = [
            floor,
            snapshot.total,
            len(reported),
            len(snapshot.ended),
            unreported,
            dict(snapshot.deleted),
            [*snapshot.doubted],
        ]
        runs += (*reported, *snapshot.ended.values())
    data = [{name: value for name, value in run.to_dict().items() if value is not None} for run in runs]
    body = {
        "jobs": jobs,
        "beginnings": {job_id: [one.start, one.watermark] for job_id, one in state.beginnings.items()},
        "filters": filters,
        "data": data,
        "pagination": {"total": len(data)},
    }
    packed = zlib.compress(json.dumps(body, separators=(",", ":")).encode(), 9)
    return f"{_VERSION}.{base64.urlsafe_b64encode(packed).decode().rstrip('=')}"


def decode(token: str, job_ids: Collection[str], filters: Mapping[str, Any]) -> WatchState:
    """What the token holds about these jobs.

    Raises:
        TypeError: it isn't a string.
        ValueError: it isn't a token of this version, or it is incomplete, or from a watch with other jobs or filters.
    """
    if not isinstance(token, str):
        raise TypeError(f"resume_token must be a string, got {token!r}")
    version, dot, text = token.strip().partition(".")
    if version != _VERSION or not dot:
        start = f"{_VERSION}."
        raise ValueError(f"resume_token must begin with {start!r} in this version, got {shortened(token, 40)!r}")
    try:
        body = _unpacked(text)
        content = json.loads(body)
        runs = decode_page(body, job_id="", offset=0).data
        snapshots = _snapshots(content["jobs"], runs)
        beginnings = {job_id: _beginning(*parts) for job_id, parts in content["beginnings"].items()}
        meant = content["filters"]
    except (ValueError, LookupError, TypeError, AttributeError, DecodeError, zlib.error, RecursionError):
        raise ValueError(f"resume_token is damaged: its {len(token)} characters were cut off or changed") from None
    if meant != json.loads(json.dumps(filters)):
        raise ValueError(f"resume_token is of a watch with other filters: {meant!r}, got {dict(filters)!r}")
    jobs = [*snapshots, *beginnings]
    if job_ids and jobs and not set(job_ids) & set(jobs):
        raise ValueError(f"resume_token is of a watch of other jobs: {', '.join(map(repr, jobs[:3]))}")
    return WatchState(
        {job_id: snapshots[job_id] for job_id in job_ids if job_id in snapshots},
        {job_id: beginnings[job_id] for job_id in job_ids if job_id in beginnings},
    )


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


def _snapshots(jobs: dict[str, Any], runs: tuple[JobRun, ...]) -> dict[str, Snapshot]:
    snapshots, at = {}, 0
    for job_id, (floor, total, reported, ended, unreported, deleted, doubted) in jobs.items():
        open_: dict[str, JobRun | None] = {run.id: run for run in runs[at : at + reported]}
        at += reported
        snapshots[job_id] = Snapshot(
            open_ | dict.fromkeys(unreported),
            {run.id: run for run in runs[at : at + ended]},
            -math.inf if floor is None else floor,
            total,
            {run_id: float(created_at) for run_id, created_at in deleted.items()},
            [run_id for run_id in doubted if isinstance(run_id, str)],
        )
        at += ended
    if at != len(runs):
        raise ValueError
    return snapshots


def _beginning(start: Any, watermark: Any) -> Beginning:
    if not (isinstance(start, (int, float)) or start in get_args(Start)):
        raise ValueError
    return Beginning(start, watermark if watermark is None else float(watermark))
