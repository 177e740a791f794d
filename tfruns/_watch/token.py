"""The resume token: what a watch knows, as a plain string. No I/O.

It is the name of its version, a dot, and compressed JSON in the alphabet of URLs.

It holds every job of the watch: the snapshot of each job that was polled, and the `Beginning` of each that wasn't. So a
watch that goes on from it reports what happened since in every job, even in those that weren't polled yet.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import attrs
import msgspec

from tfruns._text import shortened
from tfruns._watch.diff import Beginning, Snapshot

_VERSION = "tfruns1"
_LONGEST = 2**30  # in bytes, of the JSON: a short text can expand to any length


@attrs.frozen
class WatchState:
    """What a watch knows of its jobs, by their ids: each is in one of the two."""

    snapshots: Mapping[str, Snapshot] = attrs.field(factory=dict)
    beginnings: Mapping[str, Beginning] = attrs.field(factory=dict)


def encode(state: WatchState, filters: Mapping[str, Any]) -> str:
    """The token of a watch with these filters in this state."""
    # Not by `msgspec.json`, which has neither infinite numbers nor lone surrogates.
    body = json.dumps({"state": msgspec.to_builtins(state), "filters": filters}, separators=(",", ":"))
    packed = zlib.compress(body.encode(), 9)
    return f"{_VERSION}.{base64.urlsafe_b64encode(packed).decode().rstrip('=')}"


def decode(token: str, job_ids: Collection[str], filters: Mapping[str, Any]) -> WatchState:
    """What the token holds about these jobs; an error says why it can't be used."""
    if not isinstance(token, str):
        raise TypeError(f"resume_token must be a string, got {token!r}")
    version, dot, text = token.strip().partition(".")
    if version != _VERSION or not dot:
        start = f"{_VERSION}."
        raise ValueError(f"resume_token must begin with {start!r} in this version, got {shortened(token, 40)!r}")
    try:
        content = json.loads(_unpacked(text))
        state = msgspec.convert(content["state"], WatchState)
        meant = content["filters"]
    except (ValueError, LookupError, TypeError, msgspec.MsgspecError, zlib.error, RecursionError):
        raise ValueError(f"resume_token is damaged: its {len(token)} characters were cut off or changed") from None
    if meant != json.loads(json.dumps(filters)):
        raise ValueError(f"resume_token is of a watch with other filters: {meant!r}, got {dict(filters)!r}")
    jobs = [*state.snapshots, *state.beginnings]
    if job_ids and jobs and not set(job_ids) & set(jobs):
        raise ValueError(f"resume_token is of a watch of other jobs: {', '.join(map(repr, jobs[:3]))}")
    return WatchState(
        {job_id: state.snapshots[job_id] for job_id in job_ids if job_id in state.snapshots},
        {job_id: state.beginnings[job_id] for job_id in job_ids if job_id in state.beginnings},
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
