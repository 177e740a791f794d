"""The resume token of a walk: its place, job and filters, as a short string. No I/O.

It is the name of its version, a dot, and JSON with a checksum in the alphabet of URLs. The checksum guards against
accidents (a token that was cut off), not against attackers.
"""

import base64
import binascii
import json
import zlib
from typing import Any

import attrs

from tfruns._text import shortened
from tfruns._walk.frontier import Place
from tfruns.query import RunFilter

_VERSION = "tfrunswalk1"


def encode(place: Place, job_id: str, run_filter: RunFilter) -> str:
    """The token of a walk over these runs of the job that has come to this place."""
    content = {"job": job_id, "filter": _given(run_filter), "place": attrs.astuple(place)}
    body = json.dumps(content, separators=(",", ":")).encode()
    return f"{_VERSION}.{base64.urlsafe_b64encode(_checksum(body) + body).decode().rstrip('=')}"


def decode(token: str, job_id: str, run_filter: RunFilter) -> Place:
    """The place in the token. An error says why it can't be used for these runs of the job."""
    if not isinstance(token, str):
        raise TypeError(f"resume_token must be a string, got {token!r}")
    version, _, text = token.strip().partition(".")
    if version != _VERSION:
        raise ValueError(f"resume_token must begin with '{_VERSION}.' in this version, got {shortened(token, 40)!r}")
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        body = packed[4:]
        if _checksum(body) != packed[:4]:
            raise ValueError
        content = json.loads(body)
        newest_first, near, index, slack = content["place"]
        place = Place(newest_first, tuple((one, time) for one, time in near), index, slack)
    except (binascii.Error, ValueError, LookupError, TypeError):
        raise ValueError(f"resume_token is damaged: its {len(token)} characters were cut off or changed") from None
    if content["job"] != job_id:
        raise ValueError(f"resume_token is of another job: {shortened(content['job'], 80)!r}, got {job_id!r}")
    if content["filter"] != _given(run_filter):
        meant, given = content["filter"], _given(run_filter)
        raise ValueError(f"resume_token is of a walk with other filters: {meant!r}, got {given!r}")
    return place


def _given(run_filter: RunFilter) -> Any:
    """The filters that were given, as JSON has them."""
    filters = {name: value for name, value in attrs.asdict(run_filter).items() if value is not None}
    return json.loads(json.dumps(filters))


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4)
