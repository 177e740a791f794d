"""What a walk costs besides requests and decoding: the planner's own time for each run, on a list that stands still.

Run it from a checkout with `.venv/bin/python -m benchmarks.walk_bookkeeping`. Target: at most 0.12 us a run.
"""

import time
from collections import deque

from tests.support.runs import make_run
from tfruns._walk.planner import Planner
from tfruns._walk.request import PlannedPage
from tfruns.models import Pagination, RunPage
from tfruns.query import RunFilter

RUNS = 200_000
PAGE_SIZE = 1_000
DEPTH = 16
ROUNDS = 7


def measure(runs: tuple[object, ...]) -> float:
    """Microseconds for each run."""
    planner = Planner(job_id="j", filter=RunFilter(), start=0, page_size=PAGE_SIZE, max_runs=None)
    queue: deque[PlannedPage] = deque()
    spent, found = 0.0, 0
    while not planner.done:
        begun = time.process_time()
        while len(queue) < DEPTH and (request := planner.next_request(queue)) is not None:
            queue.append(request)
        spent += time.process_time() - begun
        request = queue.popleft()
        page = RunPage(
            runs[request.offset : request.offset + request.limit],  # type: ignore[arg-type]
            Pagination(len(runs), request.offset, request.limit),
        )
        begun = time.process_time()
        new = planner.consume(request, page)
        spent += time.process_time() - begun
        found += sum(len(rows) for _, rows, _ in new)
    assert found == len(runs)
    return spent / found * 1e6


def main() -> None:
    runs = tuple(make_run(number, -number) for number in range(RUNS))
    took = sorted(measure(runs) for _ in range(ROUNDS))
    print(f"{took[0]:.3f} to {took[-1]:.3f} us a run; median {took[ROUNDS // 2]:.3f}")


if __name__ == "__main__":
    main()
