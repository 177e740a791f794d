"""`tfruns sandbox`: a control plane to try things on."""

import asyncio
import contextlib
import shlex
import signal

import click


@click.command(short_help="Serve a made-up control plane to try things on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    metavar="N",
    default=0,
    show_default=True,
    help="The port to listen on; 0 for any that is free.",
)
@click.option("--host", metavar="ADDR", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", default=1, show_default=True, help="How many jobs it has."
)
@click.option(
    "--runs",
    type=click.IntRange(min=0),
    metavar="N",
    default=25_000,
    show_default=True,
    help="How many runs a job has.",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=0,
    show_default=True,
    help="What the runs are made from: same seed, same runs.",
)
@click.option("--api-key", metavar="KEY", help="The key it takes. Else one is made up. Don't give it a real one.")
def sandbox(port: int, host: str, jobs: int, runs: int, seed: int, api_key: str | None) -> None:
    """Serve a made-up control plane, with made-up runs, until Ctrl-C.

    It prints two lines for a shell, `export TFY_HOST=...` and `export TFY_API_KEY=...`, and then the id of each job on
    a line of its own. They are out as soon as it answers requests.

    \b
    Example:
      tfruns sandbox --port 8080 --jobs 3 --runs 1000
    """
    from tfruns.sandbox import Sandbox

    try:
        control_plane = Sandbox(jobs=jobs, runs=runs, seed=seed, host=host, port=port, api_key=api_key)
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(control_plane)
            except OSError as error:
                raise click.ClickException(f"can't listen on {host} port {port}: {error.strerror or error}") from None
            stopped = _stop_signal()
            lines = [f"export TFY_HOST={shlex.quote(control_plane.url)}"]
            lines += [f"export TFY_API_KEY={shlex.quote(control_plane.api_key)}", *control_plane.job_ids]
            click.echo("\n".join(lines))  # flushed at once: a script may be reading them
            click.echo("tfruns: serving until Ctrl-C", err=True)
            await stopped.wait()

    with contextlib.suppress(KeyboardInterrupt):  # where the loop can't take signals, on Windows
        asyncio.run(serve())


def _stop_signal() -> asyncio.Event:
    """An event that is set by SIGINT (Ctrl-C) or SIGTERM."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
    return stopped
