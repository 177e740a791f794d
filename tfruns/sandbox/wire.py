"""Runs in the form of the API's JSON: to and from the models, and from files.

The sandbox has its own few lines for this, so that tests of the SDK's decoding don't depend on what they test.
"""

import gzip
import re
import zlib
from os import PathLike, fspath
from typing import Any

import attrs
import msgspec

from tfruns.models import JobRun, JobRunStatus, Subject, wire_name

Wire = dict[str, Any]
"""A run or a subject in the form of the API's JSON: camelCase names, plain strings for enums."""

_RUN_FIELDS = {field.name: wire_name(field.name) for field in attrs.fields(JobRun)}
_NAMES = {wire: name for name, wire in _RUN_FIELDS.items()}

encode = msgspec.json.encode
"""The JSON text of a run, in UTF-8."""
decode = msgspec.json.Decoder(Wire).decode


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
    status = wire.get("status")
    if type(status) is str and status.upper() in JobRunStatus.__members__:  # in any case, as in the client's filters
        wire["status"] = status.upper()
    return wire


def read_runs(path: str | PathLike[str]) -> dict[str, list[Wire]]:
    """The runs of each job in a file of JSON lines, such as `tfruns export` writes; if a run is there twice, the last.

    Each line is a run as the API's JSON has it, and its job in `jobId`; the file may be compressed by gzip.
    """
    jobs: dict[str, dict[str, Wire]] = {}
    with open(path, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_gzip else open(path, "rb") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    job_id, run = _read(line, f"{fspath(path)}, line {number}")
                    jobs.setdefault(job_id, {})[run["id"]] = run
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{fspath(path)} is cut off or damaged: {error}") from None
    if not jobs:
        raise ValueError(f"{fspath(path)} holds no runs")
    return {job_id: list(runs.values()) for job_id, runs in jobs.items()}


def _read(line: bytes, where: str) -> tuple[str, Wire]:
    """The job and the run of a line. What older servers sent is brought to the form of the contract."""
    try:
        run = msgspec.json.decode(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} isn't JSON: {error}") from None
    if not isinstance(run, dict) or not isinstance(job_id := run.pop("jobId", None), str) or not job_id:
        raise ValueError(f'{where} isn\'t a run with its job in "jobId"')
    try:
        if type(version := run.get("deploymentVersion")) is int:
            run["deploymentVersion"] = str(version)
        if isinstance(duration := run.get("duration"), str):
            run["duration"] = int(duration)
        run.setdefault("totalRetries", 0)
        parse(encode(run))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} isn't a run: {error}") from None
    return job_id, run
