"""`tfruns sandbox`: a control plane to try things on."""

import shlex
from typing import Any

import click

from tfruns.cli import options
from tfruns.cli.help import Command, options_of
from tfruns.cli.options import with_given
from tfruns.cli.output import say, until_nobody_reads
from tfruns.cli.signals import end_line, run_async

_where = options_of("Where it listens")
_holds = options_of("What it holds")
_behaves = options_of("How it behaves")

_EPILOG = """
Examples:
  tfruns sandbox --jobs my-job-id,my-other-job-id
  tfruns sandbox --port 8080 --jobs 3 --runs 1000 --clock-rate 60
  tfruns sandbox --runs-from runs.jsonl --rate-limit 50/10
  tfruns sandbox --still --clock-start 2026-01-01 --fault status=503,rate=0.05
"""


def _jobs(text: str) -> int | list[str]:
    return int(text) if text.isdecimal() else text.split(",")


def _start(text: str) -> Any:
    return text if text == "now" else options.moment(text)


def _fault(text: str) -> Any:
    from tfruns.sandbox.faults import Faults

    return with_given(Faults, [text])[0]


def _rate_limit(text: str) -> Any:
    from tfruns.sandbox.faults import parse_rate_limit

    return with_given(parse_rate_limit, text)


@click.command(cls=Command, epilog=_EPILOG, short_help="Serve a made-up control plane to try things on.")
@_where("--port", type=options.Whole(0, 65_535), default=0, help="The port to listen on; 0 for any that is free.")
@_where("--host", metavar="ADDR", default="127.0.0.1", help="The address to listen on.")
@_holds("--jobs", type=_jobs, metavar="N|ID,…", default="1", help="How many jobs it has, or their ids.")
@_holds("--runs", type=options.Whole(min=0), default=25_000, help="How many runs a job has.")
@_holds("--seed", type=int, metavar="N", default=0, help="What the runs are made from: same seed, same runs.")
@_holds("--api-key", metavar="KEY", help="The key it takes. Else one is made up. Don't give it a real one.")
@_holds(
    "--runs-from",
    type=click.Path(exists=True, dir_okay=False),
    help="Take jobs and runs from JSON lines, as `tfruns export` writes them.",
)
@_behaves(
    "--living/--still",
    default=True,
    help="Whether runs are created, about two a minute in each job, and change their status until they end.",
)
@_behaves(
    "--clock-start",
    type=_start,
    metavar="TIME",
    default="now",
    help="When its clock starts, and its newest run was created: now, or a date such as 2026-11-23T08:30Z.",
)
@_behaves("--clock-rate", type=float, metavar="N", default=1.0, help="How many seconds of its clock pass in a second.")
@_behaves(
    "--fault",
    "faults",
    type=_fault,
    multiple=True,
    metavar="FAULT",
    help="What goes wrong, such as `status=429,wait=2,rate=0.1`.",
)
@_behaves(
    "--rate-limit", type=_rate_limit, metavar="N[/BURST]", help="Requests a second that it takes, and how many at once."
)
@_behaves("--forbidden", multiple=True, metavar="JOB", help="A job without access to it (403).")
def sandbox(**settings: Any) -> None:
    """Serve a made-up control plane, with made-up runs, until Ctrl-C.

    When it is ready, it prints two lines for a shell, `export TFY_HOST=...` and `export TFY_API_KEY=...`, and then the
    id of each job on a line of its own.

    One of the newest runs of each job is named train-7f3a.

    A FAULT is made of what goes wrong: status=503 (with wait=2, seconds to wait), html, latency=0.2 (seconds),
    breaks=cut, breaks=reset, breaks=stall, limit=50, total=-5; and of the requests that it hits: rate=0.1, job-id=JOB,
    nth=3.
    """
    from tfruns.sandbox import Sandbox

    control_plane = with_given(Sandbox, **settings)

    async def serve() -> None:
        if settings["runs_from"] is not None:
            say(f"reading {settings['runs_from']}")
        async with control_plane:
            lines = [f"export TFY_HOST={shlex.quote(control_plane.url)}"]
            lines.append(f"export TFY_API_KEY={shlex.quote(control_plane.api_key)}")
            click.echo("\n".join([*lines, *control_plane.job_ids]))  # flushed at once: a script may be reading them
            say("ready; Ctrl-C stops it")
            await until_nobody_reads()

    try:
        run_async(serve())
    except KeyboardInterrupt:
        end_line()
    except ValueError as error:  # the file of --runs-from doesn't hold what it should
        raise click.ClickException(str(error)) from None
