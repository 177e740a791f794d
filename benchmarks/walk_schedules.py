"""What a walk promises, over many simulated schedules, and what it costs on a list that moves.

Run it from a checkout with `.venv/bin/python -m benchmarks.walk_schedules [N] [KIND ...]`: N schedules of each kind
(200 by default), then the frontier. There is no network and no clock: `tests/support/walk_simulator.py` is the server.
"""

import math
import statistics
import sys
import time

import attrs

from tests.support.walk_schedules import KINDS, Schedule, schedule
from tests.support.walk_simulator import Outcome, World, walk

SHARES = (0, 0.001, 0.01, 0.1, 0.3, 0.6, 0.9, 1.5)
DEPTH = 16
WALKS = 12


@attrs.define
class Row:
    """What the schedules of a kind came to: numbers of walks."""

    kind: str
    walks: int = 0
    lost: int = 0
    repeated: int = 0
    disordered: int = 0
    incomplete: int = 0
    longest: float = 0.0
    """Seconds that the slowest schedule took to simulate."""
    requests: int = 0
    floor: int = 0
    """The fewest requests that would do, of the walks that came to an end."""
    bad: list[int] = attrs.field(factory=list)
    """Numbers of schedules that lost or repeated a run."""

    def add(self, seed: int, one: Schedule, outcome: Outcome, seconds: float) -> None:
        self.walks += 1
        self.lost += outcome.lost > 0
        self.repeated += outcome.repeated > 0
        self.disordered += outcome.disordered > 0
        self.incomplete += outcome.error is not None
        self.longest = max(self.longest, seconds)
        if outcome.lost or outcome.repeated:
            self.bad.append(seed)
        if outcome.error is None:
            size = min(max(2, one.page_size), one.world.clamp)
            self.requests += outcome.requests
            self.floor += max(1, math.ceil((len(outcome.yielded) - 1) / (size - 1)))

    def __str__(self) -> str:
        ratio = f"{self.requests / self.floor:.2f}" if self.floor else ""
        return (
            f"| {self.kind} | {self.walks:,} | {self.lost} | {self.repeated} | {self.disordered} |"
            f" {self.incomplete} | {ratio} | {self.longest:.1f} |"
        )


def battery(kinds: list[str], count: int) -> None:
    print("| kind | walks | lost | repeated | out of order | incomplete | requests over the floor | slowest, s |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for kind in kinds:
        row = Row(kind)
        for seed in range(count):
            one = schedule(kind, seed)
            begun = time.perf_counter()
            row.add(seed, one, walk(one.world, **one.options), time.perf_counter() - begun)
        print(row, flush=True)
        if row.bad:
            print(f"{kind}: schedules {row.bad[:20]}", file=sys.stderr)


def frontier() -> None:
    """40 pages, 16 requests in flight, responses of 50 to 150 ms: requests/latencies."""
    print("\n| share of a page inserted per response | " + " | ".join(map(str, SHARES)) + " |")
    print("|---" * (1 + len(SHARES)) + "|")
    for name, page_size in (("larger pages allowed", 100), ("page_size at the maximum", 1000)):
        cells = []
        for share in SHARES:
            outcomes = [
                walk(
                    World(count=40 * page_size, inserted=share * page_size), page_size=page_size, depth=DEPTH, seed=seed
                )
                for seed in range(WALKS)
            ]
            requests = statistics.mean(one.requests for one in outcomes)
            latencies = statistics.mean(one.time for one in outcomes) / 0.1
            failed = sum(one.error is not None for one in outcomes)
            cells.append(f"{requests:.0f}/{latencies:.0f}" + (f" ({failed} of {WALKS} incomplete)" if failed else ""))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    battery(sys.argv[2:] or list(KINDS), count)
    frontier()


if __name__ == "__main__":
    main()
