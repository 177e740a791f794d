"""What a walk promises, over many simulated schedules, and what it costs on a list that moves.

Run it from a checkout with `.venv/bin/python -m benchmarks.walk_schedules [N] [KIND ...]`: N schedules of each kind
(200 by default), then churn, bursts and the frontier. There is no network and no clock: the server is
`tests/support/walk_simulator.py`.
"""

import math
import statistics
import sys
from collections import Counter

from tests.support.walk_schedules import KINDS, schedule
from tests.support.walk_simulator import World, walk

SHARES = (0, 0.001, 0.01, 0.1, 0.3, 0.6, 0.9, 1.5)


def floor(count: int, page_size: int) -> int:
    """The fewest requests for a list that stands still."""
    return max(1, math.ceil((count - 2) / max(1, page_size - 2)))


def battery(kinds: list[str], count: int) -> None:
    print("| kind | walks | lost | repeated | out of order | incomplete | emptied | requests over the floor |")
    print("|---" + "|--:" * 7 + "|")
    for kind in kinds:
        sums: Counter[str] = Counter()
        bad = []
        for seed in range(count):
            one = schedule(kind, seed)
            outcome = walk(one.world, **one.options)
            sums["lost"] += outcome.lost > 0
            sums["repeated"] += outcome.repeated > 0
            sums["disordered"] += outcome.disordered > 0
            sums["incomplete"] += outcome.error is not None and not outcome.is_emptied
            sums["emptied"] += outcome.error is not None and outcome.is_emptied
            if outcome.error is None:
                sums["requests"] += outcome.requests
                sums["floor"] += floor(len(outcome.yielded), min(max(3, one.page_size), one.world.clamp))
            if outcome.lost or outcome.repeated or outcome.is_endless:
                bad.append(seed)
        cells = [sums[name] for name in ("lost", "repeated", "disordered", "incomplete", "emptied")]
        ratio = sums["requests"] / max(1, sums["floor"])
        print(f"| {kind} | {count:,} | {' | '.join(map(str, cells))} | {ratio:.2f} |", flush=True)
        if bad:
            print(f"{kind}: schedules {bad[:20]}", file=sys.stderr)


def churn() -> None:
    """Runs are created and deleted with each response."""
    print("\n| runs | share of a page, each way | floor | requests one by one | requests, 16 in flight |")
    print("|--:|--:|--:|--:|--:|")
    for count in (20_000, 50_000):
        for share in (0.3, 0.5, 0.9):
            world = World(count=count, inserted=share * 1000, deleted=share * 1000)
            cells = []
            for depth in (1, 16):
                outcomes = [walk(world, page_size=1000, depth=depth, seed=seed) for seed in range(5)]
                failed = sum(one.error is not None or one.lost > 0 for one in outcomes)
                requests = [one.requests for one in outcomes]
                cells.append(f"{min(requests)} to {max(requests)}" + (f", {failed} failed" if failed else ""))
            print(f"| {count:,} | {share} | {floor(count, 1000)} | {' | '.join(cells)} |", flush=True)


def bursts() -> None:
    """Very many runs are created at once."""
    outcomes = [
        walk(World(count=count, bursts={at: size}), depth=depth, seed=seed)
        for count in (4000, 12_000)
        for size in (1200, 3000, 8000, 30_000)
        for at in (2, 3, 10)
        for depth in (1, 4, 16)
        for seed in range(4)
    ]
    failed = sum(one.error is not None or one.lost > 0 for one in outcomes)
    print(f"\nbursts of 1,200 to 30,000 runs: {failed} of {len(outcomes)} walks fail")


def frontier() -> None:
    """40 pages, 16 requests in flight, responses of 50 to 150 ms: requests/latencies."""
    print("\n| share of a page inserted per response | " + " | ".join(map(str, SHARES)) + " |")
    print("|---" * (1 + len(SHARES)) + "|")
    for name, page_size in (("larger pages allowed", 100), ("page_size at the maximum", 1000)):
        cells = []
        for share in SHARES:
            world = World(count=40 * page_size, inserted=share * page_size)
            outcomes = [walk(world, page_size=page_size, seed=seed) for seed in range(12)]
            failed = sum(one.error is not None for one in outcomes)
            requests = statistics.mean(one.requests for one in outcomes)
            latencies = statistics.mean(one.time for one in outcomes) / 0.1
            cells.append(f"{requests:.0f}/{latencies:.0f}" + (f", {failed} failed" if failed else ""))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    numbers = [int(one) for one in sys.argv[1:] if one.isdigit()]
    kinds = [one for one in sys.argv[1:] if not one.isdigit()]
    battery(kinds or list(KINDS), numbers[0] if numbers else 200)
    if not kinds:
        churn()
        bursts()
        frontier()


if __name__ == "__main__":
    main()
