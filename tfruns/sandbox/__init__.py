"""A control plane for tests: the endpoint of the contract over real HTTP, on made-up but realistic runs.

Example:
    >>> from tfruns.sandbox import Sandbox
    >>> async with Sandbox(jobs=2, runs=1000) as sandbox:
    ...     async with tfruns.Client(sandbox.url, sandbox.api_key) as client:
    ...         await client.count_runs(sandbox.job_ids[0])
"""

from tfruns.sandbox.faults import Fault, RateLimit
from tfruns.sandbox.jobs import Clock
from tfruns.sandbox.sandbox import Sandbox
from tfruns.sandbox.server import SeenRequest

__all__ = ["Clock", "Fault", "RateLimit", "Sandbox", "SeenRequest"]

for _public in (Clock, Fault, RateLimit, Sandbox, SeenRequest):
    _public.__module__ = __name__
