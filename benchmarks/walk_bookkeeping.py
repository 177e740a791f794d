"""What a walk costs besides requests and decoding: the planner's own time for each run, on a list that stands still.

Run it from a checkout with `.venv/bin/python -m benchmarks.walk_bookkeeping`. Target: at most 0.12 us a run.
"""

import gc
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


def measure() -> float:
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
        numbers = range(request.offset, min(RUNS, request.offset + request.limit))
        # Made here, since a walk, too, gets a page that was just decoded.
        page = RunPage(
            tuple(make_run(number, -number) for number in numbers), Pagination(RUNS, request.offset, request.limit)
        )
        begun = time.process_time()
        new = planner.consume(request, page)
        spent += time.process_time() - begun
        found += sum(len(rows) for _, rows, _ in new)
    assert found == RUNS
    return spent / found * 1e6


def main() -> None:
    gc.disable()  # what the collector does with the runs isn't the planner's work
    took = sorted(measure() for _ in range(ROUNDS))
    print(f"{took[0]:.3f} to {took[-1]:.3f} us a run; median {took[ROUNDS // 2]:.3f}")


if __name__ == "__main__":
    main()
