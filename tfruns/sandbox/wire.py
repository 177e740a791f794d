"""Runs in the form of the API's JSON, to and from the models.

The sandbox has its own few lines for this, so that tests of the SDK's decoding don't depend on what they test.
"""

import re
from typing import Any

import attrs
import msgspec

from tfruns.models import JobRun, JobRunStatus, Subject, wire_name

Wire = dict[str, Any]
"""A run or a subject in the form of the API's JSON: camelCase names, plain strings for enums."""

_RUN_FIELDS = {field.name: wire_name(field.name) for field in attrs.fields(JobRun)}
_NAMES = {wire: name for name, wire in _RUN_FIELDS.items()}


def encode(run: Wire) -> bytes:
    """The JSON text of a run, in UTF-8."""
    return msgspec.json.encode(run)


def decode(text: bytes) -> Wire:
    """The run that `encode` has encoded."""
    run: Wire = msgspec.json.decode(text)
    return run


def parse(text: bytes) -> JobRun:
    """The run that a JSON text describes."""
    try:
        return msgspec.json.decode(text, type=JobRun)
    except msgspec.ValidationError as error:  # which isn't a ValueError in every version
        raise ValueError(re.sub(r"(?<=\$\.)\w+", lambda path: _NAMES.get(path[0], path[0]), str(error))) from None


def from_fields(fields: dict[str, Any]) -> Wire:
    """These fields of a `JobRun`, given by their names there, in the form of the JSON."""
    unknown = fields.keys() - _RUN_FIELDS.keys()
    if unknown:
        given = ", ".join(map(repr, sorted(unknown)))
        raise TypeError(f"a run has no field {given}; its fields are {', '.join(_RUN_FIELDS)}")
    wire = {
        _RUN_FIELDS[name]: value.to_dict() if isinstance(value, Subject) else value for name, value in fields.items()
    }
    return wire | {"status": in_capitals(wire["status"])} if "status" in wire else wire


def in_capitals(status: Any) -> Any:
    """The known status that a text names in any case, as in the client's filters; anything else unchanged."""
    if type(status) is str and status.upper() in JobRunStatus.__members__:
        return status.upper()
    return status
