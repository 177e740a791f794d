"""Runs of which only the id and the time of creation matter."""

from tfruns.models import JobRun, JobRunStatus


def make_run(number: int, created_at: float, id: str | None = None) -> JobRun:  # noqa: A002
    """A run with this number."""
    return JobRun(
        id=id or f"r{number}",
        name="n",
        application_name="a",
        deployment_version="1",
        created_at=created_at,
        command="",
        status=JobRunStatus.FINISHED,
    )
