"""Walks in simulated time: schedules of every kind, and what each rule of the planner is for."""

import itertools
import math
import statistics
from typing import Any

import pytest

from tests.support.seeds import seeds
from tests.support.walk_schedules import CAN_FAIL, CAN_LOSE, CAN_REORDER, KINDS, schedule
from tests.support.walk_simulator import ARRIVALS, EPOCH, Outcome, World, walk


def assert_exact(outcome: Outcome) -> None:
    assert outcome.error is None
    assert (outcome.lost, outcome.repeated, outcome.disordered) == (0, 0, 0)


@pytest.mark.property
@pytest.mark.parametrize("kind", KINDS)
def test_schedules_of_every_kind(kind: str) -> None:
    """A walk yields every lasting run once, in order; it ends, and never has more pages ahead than it may.

    Where a list can be read, hardly any walk fails.
    """
    failed = []
    for seed in seeds(15):
        one = schedule(kind, seed)
        outcome = walk(one.world, **one.options)
        assert outcome.repeated == 0, seed
        assert outcome.lost == 0 or kind in CAN_LOSE, seed
        assert not outcome.is_endless, seed
        assert outcome.ahead <= one.options["depth"], seed
        assert outcome.disordered == 0 or kind in CAN_REORDER, seed
        has_failed = outcome.error is not None and not outcome.is_emptied and kind not in CAN_FAIL
        if has_failed or outcome.lost:
            failed.append(seed)
    assert len(failed) <= max(1, 0.01 * len(seeds(15))), failed


@pytest.mark.property
@pytest.mark.parametrize("arrival", ARRIVALS)
@pytest.mark.parametrize("page_size", [3, 10, 100, 1000])
def test_a_still_list_takes_no_more_requests_than_it_needs(page_size: int, arrival: str) -> None:
    """Nothing is wasted: ceil(n / (page_size - 2)) + 2 requests, in whatever order the responses arrive."""
    for seed in seeds(1, share=0.01):
        many = min(20, 4000 // page_size) * (page_size - 2) + seed % page_size
        for count in (0, 1, 2, page_size - 1, page_size, page_size + 1, many):
            for order in (None, "asc"):
                outcome = walk(World(count=count), page_size=page_size, arrival=arrival, seed=seed, order=order)
                assert_exact(outcome)
                assert len(outcome.yielded) == count
                assert outcome.requests <= math.ceil(count / (page_size - 2)) + 2, (count, order)


@pytest.mark.parametrize("ignores_order", [False, True])
@pytest.mark.parametrize("clamp", [3, 6, 9])
def test_more_runs_of_one_time_than_a_page_holds(clamp: int, ignores_order: bool) -> None:
    """On a list that stands still, in a stable order, they are all found, however many requests are in flight."""
    for same_time in (clamp - 1, clamp + 1, 3 * clamp - 1):
        world = World(count=8 * clamp + 60, clamp=clamp, same_time=same_time, ignores_order=ignores_order)
        for page_size, depth, order in itertools.product((3, 100), (1, 4, 16), (None, "asc")):
            assert_exact(walk(world, page_size=page_size, depth=depth, order=order))


def test_a_page_that_is_cut_where_the_total_is_capped() -> None:
    """Once a page was cut, the length of none shows the end: the last run of the list is requested."""
    world = World(count=300, cut=(10, 10, 7, 6), total="capped", cap=51)
    for seed in (118216296, *range(20)):
        assert_exact(walk(world, page_size=10, depth=1, arrival="random", seed=seed, order="asc"))


def test_a_capped_total_costs_one_request_at_the_end() -> None:
    """From old to new: a total that is known to be too small says nothing of deletions, so the end isn't doubted."""
    for count, page_size, requests in ((250, 100, 3), (900, 1000, 2)):
        outcome = walk(World(count=count, total="capped", cap=100), page_size=page_size, depth=1, order="asc")
        assert_exact(outcome)
        assert outcome.requests == requests


def test_a_total_that_is_too_small_shows_no_end_where_the_order_is_ignored() -> None:
    """Where pages are cut as well, the end is a response behind the last run, without any."""
    world = World(count=100, ignores_order=True, total="zero", short=0.3, same_time=2)
    for seed, order in itertools.product(range(60), (None, "asc")):
        assert_exact(walk(world, page_size=10, depth=1, seed=seed, order=order))


@pytest.mark.parametrize(
    ("world", "options"),
    [
        (
            World(
                count=20,
                same_time=8,
                short=0.3,
                cut=(10, 10, 7, 6),
                stale=(0.1, 5),
                ignores_order=True,
                echo="requested",
            ),
            {"page_size": 10, "depth": 1, "arrival": "in order", "seed": 807622208, "order": "asc"},
        ),
        (
            World(
                count=60,
                inserted=1,
                deleted=5,
                same_time=5,
                unstable=True,
                cut=(10, 10, 7, 6),
                stale=(0.1, 5),
                ignores_order=True,
                echo="none",
            ),
            {"page_size": 3, "depth": 1, "arrival": "jitter", "seed": 1053085601},
        ),
    ],
)
def test_a_page_that_does_not_show_the_last_group_shows_no_end(world: World, options: dict[str, Any]) -> None:
    """Where `order` is ignored: it ends before the last runs that were read, in an older state or behind deletions."""
    assert walk(world, **options).lost == 0


@pytest.mark.parametrize("seed", [592700307, 592700811, 900006569, 1000000853, 1000002771])
def test_the_last_runs_by_several_states_of_the_list(seed: int) -> None:
    """From old to new: an older state doesn't end the walk, and what the list's last runs hold is taken at once."""
    one = schedule("stale replicas", seed)
    outcome = walk(one.world, **one.options)
    assert (outcome.error, outcome.lost) == (None, 0)


@pytest.mark.parametrize("status", [None, "FAILED"])
def test_no_run_where_the_total_is_that_of_the_unfiltered_list(status: str | None) -> None:
    """Nothing at all, seven times over some seconds: with a filter there is no such run, without one it is an error."""
    outcome = walk(World(count=0, total="unfiltered"), status=status)
    assert (outcome.error is None) == (status is not None)
    assert outcome.requests == 7
    assert outcome.time > 6


@pytest.mark.parametrize("sorted_by", ["groups", "missing", "random"])
def test_another_key_takes_twice_the_requests(sorted_by: str) -> None:
    """Sorted by another key, a still list is read whole, in at most 2.1 times the requests, and one more pass never."""
    for count in (40, 99, 100, 4000):
        world = World(count=count, sorted_by=sorted_by, same_key=50)
        outcome = walk(world, page_size=100)
        assert_exact(outcome)
        assert outcome.requests <= (1 if count < 100 else 2.1 * (math.ceil(count / 98) + 2))


# It keeps up.


@pytest.mark.parametrize(
    ("share", "requests", "latencies"),
    [(0, 42, 6), (0.001, 46, 8), (0.01, 65, 13), (0.1, 45, 16), (0.3, 40, 15), (0.6, 40, 14), (0.9, 40, 14)],
)
def test_new_runs_hardly_slow_a_walk_down(share: float, requests: int, latencies: int) -> None:
    """The walk keeps up with new runs, although responses arrive out of order."""
    outcomes = [walk(World(count=4000, inserted=100 * share), seed=seed) for seed in range(4)]
    for outcome in outcomes:
        assert_exact(outcome)
    assert statistics.mean(one.requests for one in outcomes) <= requests
    assert statistics.mean(one.time for one in outcomes) <= 0.1 * latencies


@pytest.mark.parametrize("depth", [1, 16])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_churn(share: float, depth: int) -> None:
    """A list is read whole in at most three times the requests, however much of a page comes and goes per response."""
    world = World(count=20_000, inserted=1000 * share, deleted=1000 * share)
    outcome = walk(world, page_size=1000, depth=depth, seed=depth)
    assert_exact(outcome)
    assert outcome.requests <= 3 * (math.ceil(20_000 / 998) + 1)


@pytest.mark.parametrize("depth", [1, 16])
@pytest.mark.parametrize("burst", [1200, 8000, 30_000])
def test_bursts(burst: int, depth: int) -> None:
    """However many runs are created at once, the walk finds its place again."""
    for at in (2, 10):
        assert_exact(walk(World(count=4000, bursts={at: burst}), depth=depth, seed=burst))


@pytest.mark.parametrize("share", [0.1, 0.6, 0.9])
def test_a_walk_whose_pages_cannot_grow_keeps_up(share: float) -> None:
    """Where the server refuses larger pages, the walk still ends, as one request at a time would."""
    world = World(count=4000, inserted=100 * share, refuses_limits_above=100)
    for seed in range(2):
        assert_exact(walk(world, seed=seed))


@pytest.mark.parametrize("share", [1.2, 1.5, 3])
def test_a_list_that_grows_faster_than_pages_is_read_with_larger_pages(share: float) -> None:
    """Where more than a page is inserted per response, larger pages keep up with it."""
    assert_exact(walk(World(count=2000, inserted=100 * share), page_size=100, seed=5))


@pytest.mark.parametrize("inserted", [1, 30, 60, 400])
def test_a_list_whose_end_grows_is_read_to_the_end_that_was_seen(inserted: int) -> None:
    """From old to new, the walk ends, although the list grows at that end faster than it is read."""
    for page_size in (3, 50):
        assert_exact(walk(World(count=150, inserted=inserted), page_size=page_size, depth=4, order="asc"))


# How lists end.


@pytest.mark.parametrize("total", ["capped", "stale", "estimated", "rounded", "small", "big", "zero", "unfiltered"])
@pytest.mark.parametrize("echo", ["limit", "requested", "none", "count"])
def test_totals_that_are_not_true(total: str, echo: str) -> None:
    """A total that is wrong in whatever way makes no walk short, and fails none."""
    for seed in range(3):
        assert_exact(walk(World(count=600, total=total, cap=300, echo=echo), page_size=50, seed=seed))


def test_a_server_that_does_not_reverse_is_asked_for_what_stands_behind_the_end() -> None:
    """Where the totals are wrong, and the order is ignored, an empty page behind the last run shows the end."""
    for total in ("capped", "small", "big"):
        assert_exact(walk(World(count=1000, total=total, cap=500, ignores_order=True), page_size=50))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_empty_responses_in_mid_walk_end_nothing(count: int) -> None:
    """A list that had runs isn't believed to be empty because some responses in a row say so."""
    for at in range(2, 12):
        for depth in (1, 16):
            world = World(count=500, empty_at=frozenset(range(at, at + count)))
            assert_exact(walk(world, page_size=50, depth=depth, seed=at))


@pytest.mark.parametrize("status", [None, "RUNNING"])
def test_a_list_that_is_emptied(status: str | None) -> None:
    """It is requested again over some seconds. Then it is believed if runs leave it when their status changes."""
    world = World(count=500, empty_at=frozenset(range(3, 500)))
    for depth in (1, 16):
        outcome = walk(world, page_size=50, depth=depth, status=status)
        assert (outcome.error is None) == (status is not None)
        assert 50 <= len(outcome.yielded) < 500
        assert outcome.requests <= 9 + depth
        assert outcome.time > 5


def test_a_server_that_gives_one_run_whatever_is_requested() -> None:
    """One run, of a list that should have more, is no whole list, though the reversed list shows the same."""
    outcome = walk(World(count=50, ignores_offset=True, ignores_order=True, clamp=1), page_size=10)
    assert outcome.error is not None
    assert len(outcome.yielded) == 1


@pytest.mark.parametrize("sorted_by", [None, "random"])
@pytest.mark.parametrize("total", ["true", "small"])
def test_a_server_that_ignores_the_offset_is_an_error(total: str, sorted_by: str | None) -> None:
    """A server that always sends the first page isn't taken for one whose list is short, nor requested for long."""
    outcome = walk(World(count=3000, ignores_offset=True, total=total, sorted_by=sorted_by), page_size=50)
    assert outcome.error is not None
    assert len(outcome.yielded) < 3000
    assert outcome.requests <= 2 * 3000 / 50


# Equal keys, and keys that are only near the creation.


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("same_time", [2, 5, 20, 90, 300])
def test_runs_of_one_millisecond_in_any_order(same_time: int, order: str) -> None:
    """Runs that were created in the same millisecond may change places: none is lost."""
    for seed in range(3):
        world = World(count=600, same_time=same_time, unstable=True, deleted=0.5)
        assert_exact(walk(world, page_size=100, seed=seed, order=order))


def test_a_group_that_no_page_can_show() -> None:
    """It is read where its runs keep their order; where they don't, the walk says that it isn't complete."""
    assert_exact(walk(World(count=60, same_time=30, refuses_limits_above=8), page_size=4, depth=1))
    for seed in range(20):
        world = World(count=60, same_time=30, unstable=True, refuses_limits_above=8)
        outcome = walk(world, page_size=4, depth=1, seed=seed)
        assert outcome.error is not None
        assert outcome.repeated == 0


@pytest.mark.parametrize(("clamp", "total"), [(1000, "zero"), (1000, "capped"), (1000, "small"), (3, "true")])
def test_a_group_at_the_end_that_is_larger_than_the_page_that_shows_the_end(clamp: int, total: str) -> None:
    """The last runs in reverse show no end where all have one time: others of that time may stand beside them."""
    for same_time in (10, 200):
        for order in ("asc", "desc"):
            world = World(count=600, same_time=same_time, same_order=True, total=total, cap=50, clamp=clamp)
            outcome = walk(world, page_size=20, depth=1, order=order)
            assert outcome.repeated == outcome.lost == 0
            assert outcome.error is None or same_time > clamp


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_group_of_many_pages(order: str) -> None:
    """Runs of one millisecond that keep their order are read whole, however many there are."""
    assert_exact(walk(World(count=3000, same_time=2500), page_size=50, depth=1, order=order))


@pytest.mark.parametrize("clamp", [2, 3, 7, 99])
def test_a_clamped_limit(clamp: int) -> None:
    """A server that sends fewer runs than requested is walked in steps of what it sends."""
    outcome = walk(World(count=300, clamp=clamp), page_size=100, depth=8)
    assert_exact(outcome)
    assert outcome.requests <= math.ceil(300 / max(1, clamp - 2)) + 2


@pytest.mark.parametrize("page_size", [6, 100])
@pytest.mark.parametrize("jitter", [0.4, 3, 20])
def test_creation_near_the_sort_key(jitter: float, page_size: int) -> None:
    """Where the server sorts by another clock than the one it shows, nothing is lost."""
    for seed in range(10):
        outcome = walk(World(count=600, jitter=jitter, deleted=1), page_size=page_size, seed=seed, order="asc")
        assert outcome.error is None
        assert outcome.lost == outcome.repeated == 0


def test_rows_in_any_order_within_their_page() -> None:
    """A list that isn't sorted is read again until nothing new is found."""
    for seed in range(10):
        outcome = walk(World(count=600, shuffled=True), page_size=50, seed=seed)
        assert outcome.error is None
        assert outcome.lost == outcome.repeated == 0


# Refusals.


def test_a_refused_offset_names_the_cause() -> None:
    """A list that is longer than the server gives is an error that names the offset, and what can be done."""
    outcome = walk(World(count=1000, refuses_offsets_from=500), page_size=100)
    assert outcome.error is not None
    assert len(outcome.yielded) > 500
    assert "the server refuses the request at offset 5" in str(outcome.error)
    assert "Narrower filters" in str(outcome.error)


@pytest.mark.parametrize("depth", [1, 4, 16])
@pytest.mark.parametrize("count", [940, 998])
def test_a_list_that_ends_just_below_the_last_index_that_the_server_gives(count: int, depth: int) -> None:
    """Where a page would reach beyond what the server gives, a shorter one is requested."""
    for page_size in (60, 100):
        world = World(count=count, refuses_ends_above=1000)
        assert_exact(walk(world, page_size=page_size, depth=depth, seed=count))


def test_offsets_behind_the_end_of_a_list_that_shrinks() -> None:
    """A server that refuses them is read to the end, although requests ahead of it are refused."""
    for seed in range(10):
        world = World(count=300, deleted=20, refuses_beyond_end=True, changes_end_after=10)
        assert_exact(walk(world, page_size=20, seed=seed))


@pytest.mark.parametrize("total", ["capped", "zero", "small"])
def test_larger_pages_that_are_refused_where_totals_are_too_small(total: str) -> None:
    """That it refuses a page isn't taken for the end of the list, whatever its totals say."""
    for seed in range(4):
        world = World(count=500, inserted=20, total=total, cap=40, refuses_limits_above=50)
        assert_exact(walk(world, page_size=50, seed=seed))


def test_larger_pages_that_are_refused() -> None:
    """A server that refuses large pages gets smaller ones from then on."""
    for limit in (100, 300):
        outcome = walk(World(count=2000, inserted=20, refuses_limits_above=limit), page_size=100, seed=3)
        assert_exact(outcome)


# A window, a start, and a number of runs.


@pytest.mark.parametrize("share", [0, 0.1, 0.9])
def test_a_window_ends_the_walk(share: float) -> None:
    """The newest runs of a long list take hardly more requests than their pages."""
    world = World(count=20_000, inserted=share * 100, deleted=share * 100)
    outcome = walk(world, page_size=100, created_after=EPOCH + 18_990)
    assert_exact(outcome)
    assert outcome.requests <= 60


@pytest.mark.parametrize("start", [1, 4, 50, 299, 300, 500])
@pytest.mark.parametrize("same_time", [1, 7])
@pytest.mark.parametrize("sorted_by", [None, "random"])
def test_a_start(start: int, same_time: int, sorted_by: str | None) -> None:
    """What stands before the start of a still list is never yielded, and all that follows is."""
    for jitter in (0, 3):
        world = World(count=300, same_time=same_time, jitter=jitter, sorted_by=sorted_by)
        outcome = walk(world, page_size=10, start=start)
        assert outcome.error is None
        assert len(outcome.yielded) == len({*outcome.yielded}) == max(0, 300 - start)


@pytest.mark.parametrize("max_runs", [0, 1, 9, 10, 11, 25])
@pytest.mark.parametrize("sorted_by", [None, "random"])
def test_a_number_of_runs(max_runs: int, sorted_by: str | None) -> None:
    """No run more is yielded, and no more pages are requested than that many runs need."""
    outcome = walk(World(count=300, sorted_by=sorted_by), page_size=10, max_runs=max_runs)
    assert outcome.error is None
    assert len({*outcome.yielded}) == max_runs
    assert outcome.requests <= math.ceil(max_runs / 8) + 1


def test_a_list_by_another_key_that_grows_at_its_end_is_read_once() -> None:
    """Where no total shows the end, each response holds a few new runs for ever: the other pass has the rest."""
    world = World(
        count=300, sorted_by="groups", same_key=300, unstable=True, total="capped", cap=150, inserted=10, middle=1
    )
    for seed in range(5):
        outcome = walk(world, page_size=100, depth=2, seed=seed)
        assert (outcome.error, outcome.lost, outcome.repeated) == (None, 0, 0)
        assert outcome.requests < 60


def test_a_list_by_another_key_whose_end_grows_faster_than_pages_are_long() -> None:
    """Plain pages don't follow such an end: the pass by creation yields the runs that are left."""
    world = World(count=1, sorted_by="groups", same_key=50, inserted=30, refuses_limits_above=300, total="unfiltered")
    for seed in range(5):
        outcome = walk(world, page_size=10, depth=8, seed=seed)
        assert (outcome.error, outcome.lost, outcome.repeated) == (None, 0, 0)
        assert outcome.requests < 200


def test_an_unsorted_list_that_grows_everywhere_ends_the_walk() -> None:
    """No number of passes would find all that appears meanwhile."""
    outcome = walk(World(count=30, middle=3, deleted=1, shuffled=True), page_size=10, depth=1)
    assert outcome.error is not None
    assert outcome.requests < 400


def test_a_full_page_that_ends_where_a_capped_total_does_is_not_the_end() -> None:
    """An unsorted list is read on behind its total until a page is short."""
    world = World(count=700, shuffled=True, cut=(90, 5, 60), total="capped", cap=151, echo="count")
    for seed in range(20):
        outcome = walk(world, page_size=30, depth=64, arrival="in order", seed=seed)
        assert (outcome.error, outcome.lost, outcome.repeated) == (None, 0, 0)


def test_known_runs_behind_the_frontier_are_no_end() -> None:
    """A page requested there may hold only known runs, since the list grows: what the total counts is still to come."""
    for seed in (7, 14, 15):
        world = World(count=300, clamp=2, same_time=5, same_order=True, short=0.05, inserted=1)
        assert walk(world, page_size=300, depth=1, seed=seed).lost == 0
    for seed in (18, 19, 26):
        world = World(count=300, cut=(90, 5, 60), same_time=200, inserted=5)
        assert walk(world, page_size=30, depth=8, arrival="one slow", seed=seed).lost == 0


def test_a_cut_page_that_ends_at_a_capped_total_is_no_end_if_the_last_run_was_seen() -> None:
    for seed in (706_324_243, *range(5)):
        world = World(
            count=100, cut=(90, 5, 60), total="capped", cap=151, echo="none", inserted=30, refuses_limits_above=300
        )
        assert walk(world, page_size=10, depth=1, seed=seed).lost == 0


def test_a_list_whose_end_runs_away_is_read_to_the_end_that_was_seen_first() -> None:
    """A later look at the end doesn't move it."""
    for seed in range(2):
        world = World(count=100, cut=(30, 20, 25), total="capped", cap=501, burst=(0.3, 300), deleted_block=(0.1, 300))
        outcome = walk(world, page_size=3, depth=8, arrival="one slow", seed=seed, order="asc")
        assert_exact(outcome)
        assert outcome.requests < 3_000


def test_a_response_that_was_kept_at_the_frontier_does_not_hold_up_the_end() -> None:
    """Its runs were deleted: a response that holds the whole list shows that."""
    world = World(count=100, inserted=5, deleted=5, same_time=200)
    assert_exact(walk(world, page_size=10, depth=2, seed=1_066_406_966))


def test_a_shrinking_list_whose_server_refuses_what_is_behind_it() -> None:
    world = World(count=180, deleted=5, refuses_beyond_end=True, changes_end_after=29)
    assert_exact(walk(world, page_size=3, depth=8, arrival="pairs", seed=463_006_979, order="asc"))


def test_most_lists_are_read_although_order_is_ignored_and_totals_are_wrong() -> None:
    """What stands behind the frontier is requested further and further on, until a response shows more, or nothing."""
    failed = 0
    for seed in range(60):
        one = schedule("false totals, order ignored", seed)
        outcome = walk(one.world, **one.options)
        assert outcome.lost == 0
        failed += outcome.error is not None and not outcome.is_emptied
    assert failed <= 6


def test_what_a_response_shows_is_not_taken_back_by_two_of_an_older_state() -> None:
    """From old to new: two responses show the end of a list that lost a run, and then two of an older state another."""
    world = World(count=300, deleted=0.1, stale=(0.1, 120))
    assert_exact(walk(world, page_size=30, depth=16, arrival="random", seed=433_974_773, order="asc"))


def test_a_last_run_that_stands_alone_shows_the_end() -> None:
    """One run of a list that has one shows it in either order, though it can't show the order."""
    assert_exact(
        walk(
            World(count=1, inserted=0.5, total="rounded"),
            page_size=1,
            depth=1,
            arrival="pairs",
            seed=758_278_665,
            order="asc",
        )
    )
