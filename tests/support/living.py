"""Jobs in which something happens between two exports."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from tfruns import Client
from tfruns.sandbox import Sandbox


def first_of(*formats: str) -> pytest.MarkDecorator:
    """The first of these formats; the others are `slow`, because each takes many exports."""
    first, *others = formats
    return pytest.mark.parametrize("form", [first, *(pytest.param(form, marks=pytest.mark.slow) for form in others)])


async def change(sandbox: Sandbox, chance: random.Random) -> None:
    """An hour or so of a control plane's life: runs come, go on, end; and one that was open is deleted."""
    for _ in range(6):
        job_id = chance.choice(sandbox.job_ids)
        run = await sandbox.create_run(job_id, status="RUNNING")
        if chance.random() < 0.5:
            await sandbox.finish_run(job_id, run.id)
        sandbox.clock.advance(chance.random() * 100)


@asynccontextmanager
async def exported_in_rounds(
    seed: str, export: Callable[[Client, Sequence[str]], Awaitable[object]], *, pauses: Sequence[int] = (60, 600, 4000)
) -> AsyncIterator[tuple[Client, Sequence[str]]]:
    """The client and the jobs of a list that was exported ten times and once more, and stands still now.

    One job is exported only from the fourth time on, and an open run is deleted in the middle.

    Args:
        seed: of what happens.
        export: exports these jobs.
        pauses: seconds between two exports, one of these each time, besides those in which runs come. (A living job
            that grows by 10,000 runs drops its oldest, which no increment sees.)
    """
    chance = random.Random(seed)
    async with (
        Sandbox(jobs=5, runs=[0, 5, 40, 200, 1200], living=True, seed=3) as sandbox,
        Client(sandbox.url, sandbox.api_key) as client,
    ):
        open_runs = [
            (job_id, run.id)
            for job_id in sandbox.job_ids
            async for run in client.iter_runs(job_id)
            if not run.status.is_terminal
        ]
        for number in range(11):
            await export(client, sandbox.job_ids if number > 2 else sandbox.job_ids[1:])
            if number == 5:
                await sandbox.delete_run(*open_runs[-1])
            if number < 10:
                await change(sandbox, chance)
                sandbox.clock.advance(chance.choice(pauses))
        yield client, sandbox.job_ids
