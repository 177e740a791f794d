"""A run as a line: its JSON as the server sent it, and the job's id before all else."""

import json
from collections.abc import Iterable

from tfruns._decode.fast import decode_runs
from tfruns.models import JobRun

_ENDS = bytes.maketrans(b"\r\n", b"  ")  # between the parts of a JSON text; within strings they stand escaped
_JOB_ID = b'"jobId"'


def as_lines(job_id: str, texts: Iterable[bytes]) -> bytes:
    """The runs of a job, each a line that ends in a newline."""
    head = b'{"jobId":%b,' % json.dumps(job_id, ensure_ascii=False).encode()
    return b"".join(_line(head, text.translate(_ENDS)) for text in texts)


def _line(head: bytes, text: bytes) -> bytes:
    if _JOB_ID in text and "jobId" in json.loads(text):  # the server has come to say it itself
        return text + b"\n"
    return head + text[1:] + b"\n"


def runs_of(lines: bytes, job_id: str) -> tuple[JobRun, ...]:
    """The runs in some lines, which were read from a server before.

    Raises:
        DecodeError: a line isn't a run.
    """
    runs = lines.rstrip(b"\n").replace(b"\n", b",")
    return decode_runs(b"[%b]" % runs, job_id=job_id)
