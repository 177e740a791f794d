"""Walks in simulated time: schedules of every kind, and each of the ways in which the walk of 0.1.0 failed."""

import math
import statistics

import pytest

from tests.support.walk_schedules import CAN_LOSE, CAN_REORDER, KINDS, schedule
from tests.support.walk_simulator import ARRIVALS, Outcome, World, walk

WALKS = 40


def assert_exact(outcome: Outcome) -> None:
    assert outcome.error is None
    assert (outcome.lost, outcome.repeated, outcome.disordered) == (0, 0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_schedules_of_every_kind(kind: str) -> None:
    """A walk yields every lasting run once, in order, or fails; it never has more pages ahead than it may."""
    for seed in range(WALKS):
        one = schedule(kind, seed)
        outcome = walk(one.world, **one.options, most_requests=20_000)
        assert outcome.repeated == 0, seed
        assert outcome.ahead <= one.options["depth"], seed
        assert outcome.lost == 0 or kind in CAN_LOSE, seed
        assert outcome.disordered == 0 or kind in CAN_REORDER, seed


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        *(("unstable", seed) for seed in (25, 689, 1964, 2489, 2599, 3360, 4290)),
        *(("lagging replicas", seed) for seed in (763, 1411, 3562, 6044, 9302)),
        *(("entries in the middle", seed) for seed in (3318, 6426, 8772)),
        ("bursts", 7126),
        ("deleted", 10585),
    ],
)
def test_schedules_that_failed_once(kind: str, seed: int) -> None:
    """One of many thousands each: equals, replicas, runs before the last one, and a search that ended early."""
    one = schedule(kind, seed)
    outcome = walk(one.world, **one.options)
    assert outcome.lost == outcome.repeated == 0
    assert outcome.error is None or kind in ("lagging replicas", "entries in the middle")


@pytest.mark.parametrize("kind", ["still", "deleted", "grouped, unstable, still"])
def test_schedules_that_have_to_succeed(kind: str) -> None:
    """A list that stands still or only shrinks is always walked to its end."""
    for seed in range(WALKS):
        one = schedule(kind, seed)
        outcome = walk(one.world, **one.options)
        assert outcome.error is None, seed


@pytest.mark.parametrize("arrival", ARRIVALS)
@pytest.mark.parametrize(("count", "page_size"), [(0, 100), (1, 1), (99, 2), (100, 100), (1000, 100), (4000, 1000)])
def test_a_still_list_takes_no_more_requests_than_it_needs(count: int, page_size: int, arrival: str) -> None:
    """Nothing is wasted: ceil(n / (page_size - 1)) + 2 requests, in whatever order the responses arrive."""
    outcome = walk(World(count=count), page_size=page_size, arrival=arrival)
    assert_exact(outcome)
    assert len(outcome.yielded) == count
    assert outcome.requests <= math.ceil(count / max(1, page_size - 1)) + 2


# Point 1: the pipeline collapsed where responses came out of order.


@pytest.mark.parametrize(
    ("share", "requests", "latencies"),
    # What the walk may cost on average. The walk of 0.1.0 took 141/88, 195/133, and failed from 0.1 on.
    [(0, 42, 6), (0.001, 50, 9), (0.01, 60, 12), (0.1, 80, 18), (0.3, 80, 20), (0.6, 80, 20), (0.9, 80, 20)],
)
def test_new_runs_hardly_slow_a_walk_down(share: float, requests: int, latencies: int) -> None:
    """The walk keeps up with new runs, although responses arrive out of order."""
    outcomes = [walk(World(count=4000, inserted=100 * share), seed=seed) for seed in range(8)]
    for outcome in outcomes:
        assert_exact(outcome)
    assert statistics.mean(one.requests for one in outcomes) <= requests
    assert statistics.mean(one.time for one in outcomes) <= 0.1 * latencies


@pytest.mark.parametrize(("share", "requests"), [(0.1, 140), (0.6, 280), (0.9, 600)])
def test_a_walk_whose_pages_cannot_grow_keeps_up(share: float, requests: int) -> None:
    """Where the server refuses larger pages, the walk still ends, as one request at a time would."""
    world = World(count=4000, inserted=100 * share, refuses_limits_above=100)
    outcomes = [walk(world, seed=seed) for seed in range(4)]
    for outcome in outcomes:
        assert_exact(outcome)
    assert statistics.mean(one.requests for one in outcomes) <= requests


@pytest.mark.parametrize("depth", [1, 4, 16, 64])
@pytest.mark.parametrize("deleted", [0.1, 10, 60])
def test_deletions_all_over_the_list(deleted: float, depth: int) -> None:
    """Deleted runs move the list past the reader, and nothing is lost."""
    assert_exact(walk(World(count=3000, deleted=deleted), depth=depth, seed=depth))


# Points 2 and 3: equal keys, and runs that are listed twice or created again.


@pytest.mark.parametrize(("count", "versions", "page_size"), [(2000, 1, 100), (3000, 7, 200), (700, 70, 50)])
def test_equal_keys_in_another_order_in_each_response(count: int, versions: int, page_size: int) -> None:
    """A list sorted by version without a tie-breaker is read whole, although each response has another order."""
    world = World(count=count, hides_key=True, same_key=count // versions, unstable=True)
    outcome = walk(world, page_size=page_size, seed=count)
    assert outcome.error is None
    assert outcome.lost == outcome.repeated == 0


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("same_key", [2, 5, 20])
def test_runs_of_one_millisecond_in_another_order_in_each_response(same_key: int, descending: bool) -> None:
    """Runs that were created in the same millisecond may change places: none is lost."""
    for seed in range(10):
        world = World(count=1000, same_key=same_key, unstable=True, descending=descending)
        outcome = walk(world, page_size=100, seed=seed)
        assert outcome.error is None
        assert outcome.lost == outcome.repeated == 0


def test_a_group_of_equal_keys_that_no_page_can_show_is_an_error() -> None:
    """Where a page can't show all runs of one millisecond, the walk says that it isn't complete."""
    for seed in range(20):
        world = World(count=60, same_key=30, unstable=True, refuses_limits_above=8)
        outcome = walk(world, page_size=4, depth=1, seed=seed)
        assert outcome.error is not None
        assert outcome.repeated == 0


@pytest.mark.parametrize("recreated", [0.1, 1, 5])
def test_ids_that_are_created_again(recreated: float) -> None:
    """A run that moved to the head with its old id hides nothing that stands before its old place."""
    for seed in range(10):
        outcome = walk(World(count=1000, recreated=recreated, inserted=1), page_size=50, seed=seed)
        assert_exact(outcome)


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_runs_that_are_listed_twice(share: float) -> None:
    """A run that stands in the list twice is yielded once, and hides no other."""
    for seed in range(10):
        outcome = walk(World(count=500, duplicates=share), page_size=50, seed=seed)
        assert outcome.error is None
        assert outcome.lost == outcome.repeated == 0


# Point 4: responses that are empty although the list isn't.


@pytest.mark.parametrize("at", range(2, 12))
def test_an_empty_response_in_mid_walk_ends_nothing(at: int) -> None:
    """A list that had runs isn't believed to be empty because nine responses in a row say so."""
    for depth in (1, 4, 16):
        for count in (1, 2, 9):
            world = World(count=500, empty_at=frozenset(range(at, at + count)))
            assert_exact(walk(world, page_size=50, depth=depth, seed=at))


# Points 5 and 6: entries before the reader in an order that isn't by creation, and creation near the key.


def test_many_entries_before_the_reader_in_a_grouped_order() -> None:
    """However many entries appear before the reader, none is repeated where ids are kept."""
    for seed in range(10):
        world = World(count=1000, hides_key=True, same_key=50, burst=(0.3, 300), changes_end_after=12)
        outcome = walk(world, page_size=50, seed=seed)
        assert outcome.repeated == 0
        assert outcome.lost == 0


@pytest.mark.parametrize("jitter", [0.4, 3, 20])
def test_creation_near_the_sort_key(jitter: float) -> None:
    """Where the server sorts by another clock than the one it shows, the order by creation isn't relied on."""
    for seed in range(10):
        world = World(count=1000, jitter=jitter, inserted=1, deleted=1)
        outcome = walk(world, page_size=100, seed=seed)
        assert outcome.error is None
        assert outcome.lost == outcome.repeated == 0


# Point 7: totals and offsets.


@pytest.mark.parametrize("total", ["capped", "stale", "estimated", "rounded", "small"])
def test_totals_that_are_not_exact(total: str) -> None:
    """A total that is too small, old or rounded never makes a walk short without an error."""
    for seed in range(10):
        outcome = walk(World(count=1000, total=total, cap=500), page_size=50, seed=seed)
        assert outcome.repeated == outcome.lost == 0
        if total in ("capped", "stale"):
            assert_exact(outcome)


def test_a_refused_offset_names_the_cause() -> None:
    """A list that is longer than the server gives is an error that names the offset, and what can be done."""
    outcome = walk(World(count=1000, refuses_offsets_from=500), page_size=100)
    assert outcome.error is not None
    assert len(outcome.yielded) > 500
    assert "the server refuses the request at offset 5" in str(outcome.error)
    assert "Narrower filters" in str(outcome.error)


@pytest.mark.parametrize("depth", [1, 4, 16])
@pytest.mark.parametrize("count", [940, 999])
def test_a_list_that_ends_just_below_the_last_index_that_the_server_gives(count: int, depth: int) -> None:
    """Where a page would reach beyond what the server gives, a shorter one is requested."""
    for inserted in (0, 0.02, 10):
        world = World(count=count - 10, refuses_ends_above=1000, inserted=inserted, changes_end_after=0)
        for page_size in (60, 100):
            outcome = walk(world, page_size=page_size, depth=depth, seed=count)
            assert_exact(outcome)
            assert outcome.requests <= math.ceil(count / (page_size - 1)) + 2 + (depth > 1)


@pytest.mark.parametrize("total", ["true", "capped"])
def test_a_list_that_reaches_the_last_index_that_the_server_gives(total: str) -> None:
    """Whether such a list goes on can't be known, for the total may be capped: an error."""
    outcome = walk(World(count=1500, refuses_ends_above=1000, total=total, cap=1000), page_size=100)
    assert outcome.error is not None
    assert "the server refuses the request at offset 9" in str(outcome.error)
    assert len(outcome.yielded) > 900


def test_offsets_that_are_only_refused_beyond_the_end() -> None:
    """A server that refuses offsets beyond its list is read to the end, although requests ahead of it are refused."""
    for seed in range(10):
        world = World(count=300, deleted=20, refuses_offsets_from=150, changes_end_after=12)
        outcome = walk(world, page_size=20, seed=seed)
        assert outcome.error is None or "refuses the request at offset" in str(outcome.error)
        assert outcome.repeated == outcome.lost == 0


def test_larger_pages_that_are_refused() -> None:
    """A server that refuses larger pages than `page_size` gets none from then on."""
    outcome = walk(World(count=2000, inserted=20, refuses_limits_above=100), page_size=100, seed=3)
    assert_exact(outcome)


# It keeps up, and it ends.


@pytest.mark.parametrize("share", [1.2, 1.5, 3])
def test_a_list_that_grows_faster_than_pages_is_read_with_larger_pages(share: float) -> None:
    """Where more than a page is inserted per response, larger pages keep up with it."""
    assert_exact(walk(World(count=2000, inserted=100 * share), page_size=100, seed=5))


@pytest.mark.parametrize("page_size", [2, 3, 5])
def test_tiny_pages_of_a_list_that_changes_everywhere_grow_until_it_is_read(page_size: int) -> None:
    """With one request at a time, too: pages that had to grow stay large while the list goes on as before."""
    for seed in range(30):
        world = World(count=300, inserted=2.0, deleted=2.4)
        assert_exact(walk(world, page_size=page_size, depth=1, arrival="in order", seed=seed))


def test_a_head_that_outgrows_every_page_is_an_end_or_an_error() -> None:
    """A list that grows by more than the largest page with each response doesn't make the walk endless."""
    for seed in range(5):
        outcome = walk(World(count=2000, inserted=1500), page_size=1000, depth=4, seed=seed, most_requests=2000)
        assert outcome.error is not None or outcome.lost == 0
        assert outcome.repeated == 0


def test_a_tail_that_outgrows_every_page_is_an_error() -> None:
    """A walk in ascending order that never reaches the end of the list fails."""
    outcome = walk(World(count=500, descending=False, inserted=60), page_size=50, depth=1, most_requests=2000)
    assert outcome.error is not None
    assert "doesn't come to an end" in str(outcome.error)
    assert outcome.error.seen == len(outcome.yielded)


def test_a_list_that_is_emptied_is_at_its_end() -> None:
    """A list that was emptied under the walk ends it, after ten responses that show it."""
    world = World(count=500, empty_at=frozenset(range(3, 500)))
    for depth in (1, 16):
        outcome = walk(world, page_size=50, depth=depth)
        assert outcome.error is None
        assert 50 <= len(outcome.yielded) < 500
        assert outcome.requests <= 2 + 10 + depth


@pytest.mark.parametrize("total", ["true", "small"])
def test_a_server_that_ignores_the_offset_is_an_error(total: str) -> None:
    """A server that always sends the first page isn't taken for one whose list is short."""
    outcome = walk(World(count=300, ignores_offset=True, total=total), page_size=50)
    assert outcome.error is not None
    assert len(outcome.yielded) == 50


@pytest.mark.parametrize("clamp", [2, 7, 99])
def test_a_clamped_limit(clamp: int) -> None:
    """A server that sends fewer runs than requested is walked in steps of what it sends."""
    outcome = walk(World(count=300, clamp=clamp), page_size=100, depth=8)
    assert_exact(outcome)
    assert outcome.requests <= math.ceil(300 / (clamp - 1)) + 2


def test_the_first_and_second_response_of_replicas_disagree() -> None:
    """Replicas that lag behind show an older list with every other response, and nothing is lost."""
    for seed in range(10):
        assert_exact(walk(World(count=1000, lag=3, inserted=1, deleted=1), page_size=100, seed=seed))
