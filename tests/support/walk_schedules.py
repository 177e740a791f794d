"""Kinds of schedules for `walk_simulator`: how a server and its list behave, drawn at random within each kind.

The tests of `tests/walk` walk some schedules of each kind; `python -m benchmarks.walk_schedules` walks many.
"""

import random
from collections.abc import Callable
from typing import Any

import attrs

from tests.support.walk_simulator import ARRIVALS, World

ECHOES = ["limit", "requested", "none", "count"]
TOTALS = ["stale", "capped", "estimated", "rounded", "small", "big", "random", "zero", "unfiltered"]
SHARES = [0.001, 0.01, 0.1, 0.3, 0.6, 0.9, 1.2, 1.5]
"""Of a page, for each response."""


def _moves(r: random.Random, *rates: float) -> dict[str, float]:
    return {"inserted": r.choice([0, 0, *rates]), "deleted": r.choice([0, 0, *rates])}


# In runs for each response, unless RELATIVE says that they are in hundredths of a page.
KINDS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "still": lambda r: {},
    "inserted": lambda r: {"inserted": 100 * r.choice(SHARES)},
    "deleted": lambda r: {"deleted": 100 * r.choice(SHARES)},
    "inserted and deleted": lambda r: {"inserted": 100 * r.choice(SHARES), "deleted": 100 * r.choice(SHARES)},
    "bursts": lambda r: {
        "burst": (r.choice([0.02, 0.1, 0.3]), r.choice([5, 50, 300])),
        "deleted_block": (r.choice([0, 0.02, 0.1]), r.choice([5, 50, 300])),
    },
    "one large burst": lambda r: {"bursts": {r.randrange(1, 12): r.choice([1, 3, 8, 20]) * 100}},
    "entries in the middle": lambda r: {
        "middle": 100 * r.choice([0.01, 0.1, 0.3]),
        "inserted": 100 * r.choice([0, 0.1]),
    },
    "clamped limit": lambda r: {"clamp": r.choice([2, 3, 7, 50]), "echo": r.choice(ECHOES), **_moves(r, 1)},
    "short pages": lambda r: {"short": r.choice([0.05, 0.3]), "echo": r.choice(ECHOES), **_moves(r, 1)},
    "pages cut by bytes": lambda r: {
        "cut": r.choice([(10, 10, 7, 6), (30, 20, 25), (90, 5, 60)]),
        "same_time": r.choice([1, 2]),
        "echo": r.choice(ECHOES),
        **_moves(r, 1),
    },
    "cut pages, capped totals": lambda r: {
        "cut": r.choice([(10, 10, 7, 6), (30, 20, 25), (90, 5, 60)]),
        "total": "capped",
        "cap": r.choice([51, 151, 501]),  # a first page that is cut where the totals are capped can't be detected
        "echo": r.choice(ECHOES),
    },
    "false totals": lambda r: {
        "total": r.choice(TOTALS),
        "cap": r.choice([50, 150, 500]),
        "echo": r.choice(ECHOES),
        **_moves(r, 0.5),
    },
    "false totals, order ignored": lambda r: {
        "total": r.choice(TOTALS),
        "cap": r.choice([50, 150, 500]),
        "echo": r.choice(ECHOES),
        "ignores_order": True,
        **_moves(r, 0.5),
    },
    "order ignored": lambda r: {
        "ignores_order": True,
        "same_time": r.choice([1, 1, 2, 3]),
        "clamp": r.choice([4, 1000, 1000]),
        **_moves(r, 0.3, 0.5, 1, 2),
    },
    "empty responses": lambda r: {
        "empty_at": frozenset(
            at + more for at in r.sample(range(2, 72, 10), r.choice([1, 3])) for more in range(r.choice([1, 3, 5]))
        ),
        **_moves(r, 1),
    },
    "ignored offset": lambda r: {"ignores_offset": True, "inserted": r.choice([0, 1])},
    "refused offset": lambda r: {"refuses_offsets_from": r.choice([50, 300, 500, 1000]), **_moves(r, 1)},
    "refused behind the end": lambda r: {"refuses_beyond_end": True, **_moves(r, 1, 5)},
    "refused end": lambda r: {"refuses_ends_above": r.choice([301, 305, 350, 500, 701, 1000]), **_moves(r, 0.1, 1)},
    "refused limit": lambda r: {"refuses_limits_above": 300, **_moves(r, 10, 30)},
    "lagging replicas": lambda r: {
        "lag": r.choice([1, 3, 10, 30]),
        "inserted": r.choice([0.1, 1, 10]),
        "deleted": r.choice([0, 0.1, 5]),
    },
    "stale replicas": lambda r: {
        "stale": (r.choice([0.05, 0.1, 0.3]), r.choice([1, 30, 120, 250, 700])),
        **_moves(r, 0.1, 1),
    },
    "cached pages": lambda r: {"cached": r.choice([1, 5, 30]), **_moves(r, 1, 10)},
    "equal times": lambda r: {"same_time": r.choice([2, 3, 5, 20, 200]), **_moves(r, 0.1, 5)},
    "equal times, unstable": lambda r: {
        "same_time": r.choice([2, 3, 5, 20]),
        "unstable": True,
        **_moves(r, 0.1, 5),
    },
    "near key": lambda r: {
        "jitter": r.choice([0.4, 1, 3, 20]),
        "deleted_block": (r.choice([0, 0.1]), r.choice([50, 300])),
        **_moves(r, 0.1, 5),
    },
    "rows in any order": lambda r: {"shuffled": True, **_moves(r, 0.1, 1)},
    "recreated ids": lambda r: {"recreated": r.choice([0.1, 1, 5]), "inserted": r.choice([0, 0.1, 5])},
    "listed twice": lambda r: {"duplicates": r.choice([0.01, 0.1]), **_moves(r, 0.1, 5)},
    "by another key": lambda r: {
        "sorted_by": r.choice(["groups", "missing", "random"]),
        "same_key": r.choice([1, 5, 50, 300]),
        "jumps": r.choice([0, 0, 0.1, 1, 5]),
        **_moves(r, 0.1, 1),
    },
    "by another key, unstable": lambda r: {
        "sorted_by": r.choice(["groups", "missing"]),
        "same_key": r.choice([5, 50, 300]),
        "unstable": True,
        "jumps": r.choice([0, 0.1, 1]),
        **_moves(r, 0.1, 1),
    },
    "by another key, false totals": lambda r: {
        "sorted_by": r.choice(["groups", "missing"]),
        "same_key": r.choice([5, 50, 300]),
        "unstable": True,
        "total": r.choice(TOTALS),
        "cap": r.choice([50, 150, 500]),
        "echo": r.choice(ECHOES),
        **_moves(r, 0.1, 1),
    },
    "another key is ignored": lambda r: {"sorted_by": "random", "ignores_order": True, **_moves(r, 0.1, 1)},
}
RELATIVE = {"inserted", "deleted", "inserted and deleted", "entries in the middle", "one large burst"}
CAN_FAIL = {
    "clamped limit",  # pages of two or three runs, of which two overlap, of a list that moves by a run per response
    "ignored offset",
    "refused offset",
    "refused end",
    "near key",  # tiny pages that aren't sorted, of a list that grows by more than they hold
    "rows in any order",
    "order ignored",  # a list of few runs that changes by some with each response, or pages as small as its groups
    "false totals, order ignored",  # a list that grows at its end: neither a total nor the reversed list shows it
    "another key is ignored",
    "by another key, false totals",  # a short list of which nearly all runs are deleted
}
"""Kinds in which some lists can't be read to the end: the walk says so."""
CAN_LOSE = {"near key", "rows in any order", "listed twice"}
"""Kinds in which the server doesn't sort by creation: hardly any walk misses a run while the list changes.

Where the second entry of a run begins a page, the page seems to join, as if the runs between were deleted.
"""
CAN_REORDER = {
    "near key",
    "rows in any order",
    "listed twice",
    "by another key",
    "by another key, unstable",
    "by another key, false totals",
    "another key is ignored",
}
"""Kinds in which the server's order isn't that of creation, or in which a later pass finds runs."""


@attrs.frozen
class Schedule:
    """One walk to simulate: `walk(schedule.world, **schedule.options)`."""

    world: World
    options: dict[str, Any]

    @property
    def page_size(self) -> int:
        return int(self.options["page_size"])


def schedule(kind: str, seed: int | str) -> Schedule:
    """The schedule of this kind with this number."""
    r = random.Random(f"{kind} {seed}")
    world = KINDS[kind](r)
    page_size = r.choice([1, 2, 3, 5, 10, 30, 100, 300])
    if kind in RELATIVE:
        world = {
            what: {at: max(1, one * page_size // 100) for at, one in rate.items()}
            if isinstance(rate, dict)
            else rate * page_size / 100
            for what, rate in world.items()
        }
    world["count"] = min(r.choice([0, 1, 2, 5, 30, 100, 300, 700]), 60 * page_size)
    options = {
        "page_size": page_size,
        "depth": r.choice([1, 2, 4, 8, 16, 64]),
        "arrival": r.choice(list(ARRIVALS)),
        "seed": r.randrange(1 << 30),
        "order": r.choice([None, None, "desc", "asc", "asc"]),
    }
    return Schedule(World(**world), options)
