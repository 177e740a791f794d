"""Runs to start from, in a file of JSON lines such as `tfruns export` writes."""

import gzip
import zlib
from os import PathLike, fspath
from typing import Any

import msgspec

from tfruns.sandbox.wire import Wire, encode, parse


def read_runs(path: str | PathLike[str]) -> dict[str, list[Wire]]:
    """The runs of each job, in the order of the file; if a run is there twice, the last one.

    Each line is a run as the API's JSON has it, and its job in `jobId`; the file may be compressed by gzip. The form
    that older servers sent is changed to the contract's: a version that is a number, a duration that is a text, no
    `totalRetries`.
    """
    jobs: dict[str, dict[str, Wire]] = {}
    with open(path, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_gzip else open(path, "rb") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    _add(jobs, line, f"{fspath(path)}, line {number}")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{fspath(path)} is cut off or damaged: {error}") from None
    if not jobs:
        raise ValueError(f"{fspath(path)} holds no runs")
    return {job_id: list(runs.values()) for job_id, runs in jobs.items()}


def _add(jobs: dict[str, dict[str, Wire]], line: bytes, where: str) -> None:
    try:
        run = msgspec.json.decode(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} isn't JSON: {error}") from None
    if not isinstance(run, dict) or not isinstance(job_id := run.pop("jobId", None), str) or not job_id:
        raise ValueError(f'{where} isn\'t a run with its job in "jobId"')
    try:
        _modernize(run)
        parse(encode(run))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} isn't a run: {error}") from None
    jobs.setdefault(job_id, {})[run["id"]] = run


def _modernize(run: dict[str, Any]) -> None:
    if type(version := run.get("deploymentVersion")) is int:
        run["deploymentVersion"] = str(version)
    if isinstance(duration := run.get("duration"), str):
        run["duration"] = int(duration)
    run.setdefault("totalRetries", 0)
