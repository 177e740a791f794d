"""Kinds of schedules for `walk_simulator`: how a server and its list behave, drawn at random within each kind.

The tests of `tests/walk` walk some schedules of each kind; `python -m benchmarks.walk_schedules` walks many.
"""

import random
from collections.abc import Callable
from typing import Any

import attrs

from tests.support.walk_simulator import ARRIVALS, World

ECHOES = ["limit", "requested", "none"]
SHARES = [0.001, 0.01, 0.1, 0.3, 0.6, 0.9, 1.2, 1.5]
"""Of a page, for each response."""

# In runs for each response, unless RELATIVE says that they are in hundredths of a page.
KINDS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "still": lambda r: {},
    "inserted": lambda r: {"inserted": 100 * r.choice(SHARES)},
    "deleted": lambda r: {"deleted": 100 * r.choice([0.01, 0.05, 0.1, 0.3, 0.6, 1.0])},
    "inserted and deleted": lambda r: {
        "inserted": 100 * r.choice([0.01, 0.1, 0.5, 1.0]),
        "deleted": 100 * r.choice([0.01, 0.1, 0.5, 1.0]),
    },
    "bursts": lambda r: {
        "burst": (r.choice([0.02, 0.1, 0.3]), r.choice([5, 50, 300])),
        "deleted_block": (r.choice([0, 0.02, 0.1]), r.choice([5, 50, 300])),
    },
    "entries in the middle": lambda r: {
        "middle": 100 * r.choice([0.01, 0.1, 0.3]),
        "inserted": 100 * r.choice([0, 0.1]),
    },
    "clamped limit": lambda r: {"clamp": r.choice([2, 3, 7, 50]), "echo": r.choice(ECHOES), **_moves(r, 1)},
    "short pages": lambda r: {"short": r.choice([0.05, 0.3]), "echo": r.choice(ECHOES), "inserted": r.choice([0, 1])},
    "false totals": lambda r: {
        "total": r.choice(["stale", "capped", "estimated", "rounded", "small", "big", "random"]),
        "cap": r.choice([50, 150, 500]),
        "echo": r.choice(ECHOES),
        **_moves(r, 0.5),
    },
    "empty responses": lambda r: {
        "empty_at": frozenset(
            at + more for at in r.sample(range(2, 72, 10), r.choice([1, 3])) for more in range(r.choice([1, 3, 9]))
        ),
        **_moves(r, 1),
    },
    "ignored offset": lambda r: {"ignores_offset": True, "inserted": r.choice([0, 1])},
    "refused offset": lambda r: {"refuses_offsets_from": r.choice([50, 300, 500, 1000]), **_moves(r, 1)},
    "refused end": lambda r: {"refuses_ends_above": r.choice([301, 305, 350, 500, 701, 1000]), **_moves(r, 0.1, 1)},
    "refused limit": lambda r: {"refuses_limits_above": 300, **_moves(r, 10, 30)},
    "lagging replicas": lambda r: {
        "lag": r.choice([1, 3, 10, 30]),
        "inserted": r.choice([0.1, 1, 10]),
        "deleted": r.choice([0, 0.1, 5]),
    },
    "equal keys": lambda r: {"same_key": r.choice([2, 3, 5, 20]), **_moves(r, 0.1, 5)},
    "near key": lambda r: {
        "jitter": r.choice([0.4, 1, 3, 20]),
        "deleted_block": (r.choice([0, 0.1]), r.choice([50, 300])),
        **_moves(r, 0.1, 5),
    },
    "recreated ids": lambda r: {"recreated": r.choice([0.1, 1, 5]), "inserted": r.choice([0, 0.1, 5])},
    "listed twice": lambda r: {"duplicates": r.choice([0.01, 0.1]), "inserted": r.choice([0, 0.1, 5])},
    "listed twice, deleted": lambda r: {
        "duplicates": r.choice([0.01, 0.1]),
        "inserted": r.choice([0, 0.1, 5]),
        "deleted": r.choice([0.1, 5]),
    },
    "unstable": lambda r: {"same_key": r.choice([2, 3, 5, 20]), "unstable": True, "inserted": r.choice([0, 0.1, 5])},
    "unstable, deleted": lambda r: {
        "same_key": r.choice([2, 3, 5, 20]),
        "unstable": True,
        "inserted": r.choice([0, 0.1, 5]),
        "deleted": r.choice([0.1, 5]),
    },
    "grouped": lambda r: {
        "hides_key": True,
        "same_key": r.choice([1, 5, 50, 300]),
        "middle": r.choice([0, 0.1, 3]),
        "inserted": r.choice([0, 1]),
        "deleted": r.choice([0, 0, 1]),
    },
    "grouped, unstable, still": lambda r: {"hides_key": True, "same_key": r.choice([5, 50, 300]), "unstable": True},
    "grouped, unstable": lambda r: {
        "hides_key": True,
        "same_key": r.choice([5, 50, 300]),
        "unstable": True,
        "inserted": r.choice([0.1, 1]),
    },
    "grouped, unstable, deleted": lambda r: {
        "hides_key": True,
        "same_key": r.choice([5, 50, 300]),
        "unstable": True,
        "inserted": r.choice([0, 0.1, 1]),
        "deleted": r.choice([0.1, 1]),
    },
    "changing keys": lambda r: {"jumps": r.choice([0.1, 1, 5]), "changes_end_after": r.choice([None, 30, 60])},
}
RELATIVE = {"inserted", "deleted", "inserted and deleted", "entries in the middle"}
CAN_LOSE = {
    "listed twice",
    "listed twice, deleted",
    "unstable",
    "unstable, deleted",
    "grouped, unstable",
    "grouped, unstable, deleted",
}
"""Kinds in which a walk may miss a run without an error: the docstring of `iter_runs` says why."""
CAN_REORDER = CAN_LOSE | {"grouped", "grouped, unstable, still", "changing keys"}
"""Kinds in which the server's order isn't the same in each response, or in which a later pass finds runs."""


def _moves(r: random.Random, *rates: float) -> dict[str, float]:
    return {"inserted": r.choice([0, 0, *rates]), "deleted": r.choice([0, 0, *rates])}


@attrs.frozen
class Schedule:
    """One walk to simulate: `walk(schedule.world, **schedule.options)`."""

    world: World
    options: dict[str, Any]

    @property
    def page_size(self) -> int:
        return int(self.options["page_size"])


def schedule(kind: str, seed: int) -> Schedule:
    """The schedule of this kind with this number."""
    r = random.Random(f"{kind} {seed}")
    world = KINDS[kind](r)
    page_size = r.choice([1, 2, 3, 5, 10, 30, 100, 300])
    if kind in RELATIVE:
        world = {what: rate * page_size / 100 for what, rate in world.items()}
    world["count"] = min(r.choice([0, 1, 2, 5, 30, 100, 300, 700]), 60 * page_size)
    world["descending"] = r.random() < 0.6
    options = {
        "page_size": page_size,
        "depth": r.choice([1, 2, 4, 8, 16, 64]),
        "arrival": r.choice(list(ARRIVALS)),
        "seed": seed,
    }
    return Schedule(World(**world), options)
