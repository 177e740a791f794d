"""The resume token of a walk: its place, job and filters. No I/O."""

import json
from typing import Any

import attrs

from tfruns._text import shortened
from tfruns._token import pack, unpack
from tfruns._walk.frontier import Place
from tfruns.query import RunFilter

_VERSION = "tfrunswalk1"


def encode(place: Place, job_id: str, run_filter: RunFilter) -> str:
    """The token of a walk over these runs of the job that has come to this place."""
    return pack(_VERSION, [job_id, _given(run_filter), attrs.astuple(place)])


def decode(token: str, job_id: str, run_filter: RunFilter) -> Place:
    """The place in the token. An error says why it can't be used for these runs of the job."""

    def read(content: Any) -> tuple[str, Any, Place]:
        job_id, filters, (newest_first, near, index, slack) = content
        return job_id, filters, Place(newest_first, tuple((one, time) for one, time in near), index, slack)

    job, filters, place = unpack(_VERSION, token, read)
    if job != job_id:
        raise ValueError(f"resume_token is of another job: {shortened(job, 80)!r}, got {job_id!r}")
    if filters != (given := _given(run_filter)):
        raise ValueError(f"resume_token is of a walk with other filters: {filters!r}, got {given!r}")
    return place


def _given(run_filter: RunFilter) -> Any:
    """The filters that were given, as JSON has them."""
    filters = {name: value for name, value in attrs.asdict(run_filter).items() if value is not None}
    return json.loads(json.dumps(filters))
