"""The resume token of a watch. No I/O.

It holds every job of the watch: the snapshot of each job that was polled, and the `Beginning` of each that wasn't. So a
watch that goes on from it reports what happened since in every job, even in those that weren't polled yet.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from tfruns._token import pack, unpack
from tfruns._watch.diff import Beginning, Snapshot

_VERSION = "tfruns1"

State = dict[str, Snapshot | Beginning]
"""What a watch knows of its jobs, by their ids."""


def encode(state: State, filters: Mapping[str, Any]) -> str:
    """The token of a watch with these filters in this state."""
    return pack(_VERSION, [filters, msgspec.to_builtins(state)])


def decode(token: str, job_ids: Collection[str], filters: Mapping[str, Any]) -> State:
    """What the token holds about these jobs; an error says why it can't be used."""

    def read(content: Any) -> tuple[Any, State]:
        filters, jobs = content
        return filters, {job_id: _known(value) for job_id, value in jobs.items()}

    meant, state = unpack(_VERSION, token, read)
    if meant != json.loads(json.dumps(filters)):
        raise ValueError(f"resume_token is of a watch with other filters: {meant!r}, got {dict(filters)!r}")
    if state and not state.keys() & set(job_ids):
        raise ValueError(f"resume_token is of a watch of other jobs: {', '.join(map(repr, [*state][:3]))}")
    return {job_id: state[job_id] for job_id in job_ids if job_id in state}


def _known(value: Any) -> Snapshot | Beginning:
    return msgspec.convert(value, Beginning) if "start" in value else msgspec.convert(value, Snapshot)
