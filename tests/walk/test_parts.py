"""The parts of the planner, each by itself: anchor, order, pace, search, traits, passes."""

import pytest

from tests.support.walk_simulator import make_run
from tfruns._walk.anchor import Anchor
from tfruns._walk.order import Order
from tfruns._walk.pace import Pace
from tfruns._walk.passes import Passes
from tfruns._walk.planner import ProgressGuard
from tfruns._walk.search import Search
from tfruns._walk.traits import ServerTraits
from tfruns.models import JobRun


def runs_of(*numbers: int) -> list[JobRun]:
    """Newest first: each was created at its number."""
    return [make_run(number, number) for number in numbers]


class Joined:
    """An anchor with the order of what it is given."""

    def __init__(self, *, by_creation: bool = True, page_size: int = 10, met: set[str] | None = None) -> None:
        self.order = Order(by_creation)
        self.anchor = Anchor(0, page_size, self.order, met)

    def match(self, runs: list[JobRun], offset: int, expected: int = 0) -> tuple[list[int], int] | None:
        """The numbers of the new runs, and the shift."""
        self.order.learn(runs)
        match = self.anchor.match(runs, offset, expected)
        return None if match is None else ([int(run.id[1:]) for run in match.new], match.shift)


class TestAnchor:
    def test_the_first_response_is_consumed_whole(self) -> None:
        """The first response has no anchor and needs none."""
        joined = Joined()
        assert joined.match(runs_of(9, 8, 7), 0) == ([9, 8, 7], 0)
        assert joined.anchor.front == 3

    def test_an_anchor_where_it_was_expected(self) -> None:
        """What stands behind the last consumed run is new."""
        joined = Joined()
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(7, 6, 5), 2) == ([6, 5], 0)
        assert joined.match(runs_of(5, 4), 4) == ([4], 0)

    @pytest.mark.parametrize("by_creation", [True, False])
    def test_the_shift_is_learned_from_where_the_anchor_stands(self, by_creation: bool) -> None:
        """Two new runs at the head move the anchor two rows to the right."""
        joined = Joined(by_creation=by_creation)
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(9, 8, 7, 6), 2) == ([6], 2)
        assert joined.match(runs_of(8, 7, 6), 3) == ([], 2)

    def test_a_response_without_an_anchor_is_not_consumed(self) -> None:
        """A gap between what was consumed and a response may hide runs."""
        joined = Joined()
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(5, 4), 2) is None
        assert joined.anchor.front == 3

    def test_a_response_that_ends_before_the_last_run_shows_nothing(self) -> None:
        """A response before the place of the last consumed run, all of whose runs are forgotten, is no match."""
        joined = Joined()
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(12, 11, 10), 1) is None

    def test_all_that_was_remembered_was_deleted(self) -> None:
        """A response that begins before the last consumed run has no gap, even if it holds no known run."""
        joined = Joined()
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(10, 6, 5), 0) == ([6, 5], -2)
        assert Joined(by_creation=False).match(runs_of(10, 6), 0) == ([10, 6], 0)

    def test_without_a_known_order_it_takes_a_known_run(self) -> None:
        """Where creation says nothing of the order, a response without a known run is dropped."""
        joined = Joined(by_creation=False)
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(10, 6, 5), 1) is None

    def test_new_runs_at_the_head_are_not_consumed(self) -> None:
        """Runs that were created before the reader's place aren't part of the walk."""
        joined = Joined()
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(11, 10, 9, 8, 7, 6), 0) == ([6], 2)

    def test_the_first_known_run_is_the_anchor(self) -> None:
        """A run that is listed twice, or moved, doesn't hide what stands before its second place."""
        joined = Joined(by_creation=False)
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(7, 6, 8, 5), 2) == ([6, 5], 1)

    def test_a_run_that_was_created_again_is_no_anchor(self) -> None:
        """A known id that now stands beyond the last consumed run says nothing of what was consumed."""
        joined = Joined()
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match([make_run(5, 5), make_run(9, 4), make_run(3, 3)], 3) is None

    def test_runs_of_one_millisecond_before_the_anchor(self) -> None:
        """Unknown runs that are level with the first known one are new."""
        joined = Joined()
        joined.match([make_run(9, 5), make_run(8, 4), make_run(7, 3)], 0)
        assert joined.match([make_run(8, 4), make_run(6, 3), make_run(7, 3), make_run(5, 2)], 1) == ([6, 5], 0)

    def test_a_response_among_equal_keys_that_may_hide_some(self) -> None:
        """A response that begins among runs that are level with the last one isn't believed."""
        joined = Joined()
        joined.match([make_run(9, 5), make_run(8, 3), make_run(7, 3)], 0)
        assert joined.match([make_run(8, 3), make_run(7, 3), make_run(5, 2)], 2) is None
        assert joined.match([make_run(9, 5), make_run(6, 3), make_run(8, 3), make_run(7, 3)], 0) == ([6], 0)

    def test_an_unstable_list_of_one_key_is_read_from_its_start(self) -> None:
        """Where all runs are level and their order changes, only a response at offset 0 has no gap."""
        joined = Joined()
        joined.match([make_run(9, 3), make_run(8, 3)], 0)
        assert joined.match([make_run(9, 3), make_run(7, 3)], 1) is None
        assert joined.match([make_run(8, 3), make_run(9, 3), make_run(6, 3)], 0) == ([6], 0)

    def test_what_was_forgotten_is_not_new(self) -> None:
        """Only the latest ids are remembered; a run whose id was forgotten isn't taken for a new one."""
        joined = Joined(page_size=2)
        numbers = list(range(1000, 0, -1))
        at = 0
        while at < 900:
            new = joined.match(runs_of(*numbers[max(0, at - 1) : at + 100]), max(0, at - 1))
            assert new is not None
            at += len(new[0])
        match = joined.match(runs_of(*numbers[:50], *numbers[at - 1 : at + 5]), 0, 7)
        assert match is not None
        assert match[0] == numbers[at : at + 5]

    def test_a_run_listed_twice_takes_two_known_runs(self) -> None:
        """Where the order is of no use, one known run may be the second entry of a run that is listed twice."""
        joined = Joined(by_creation=False)
        joined.match(runs_of(9, 8, 8, 7), 0)
        assert joined.match(runs_of(6, 9, 5), 3) is None
        assert joined.match(runs_of(8, 7, 6), 2) == ([6], 1)

    def test_all_ids_are_kept_where_runs_can_change_their_place(self) -> None:
        """With all ids, whatever wasn't met is new, wherever it stands."""
        met: set[str] = set()
        joined = Joined(by_creation=False, met=met)
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(2, 8, 7, 6), 1) == ([2, 6], 0)
        assert met == {"r9", "r8", "r7", "r2", "r6"}
        assert not joined.anchor.is_unstable
        joined.match(runs_of(6, 2, 1), 3)
        assert joined.anchor.is_unstable
        assert joined.match(runs_of(50, 51), 30) is None

    def test_the_ids_of_four_pages_are_remembered(self) -> None:
        """A run of the four latest pages is an anchor; the ids of much older ones are forgotten."""
        for back, is_known in [(450, True), (550, False)]:
            joined = Joined(by_creation=False, page_size=100)
            for at in range(0, 999, 99):
                joined.match(runs_of(*range(2000 - at, 1900 - at, -1)), at)
            last = joined.anchor.last
            assert last is not None
            match = joined.match(runs_of(int(last.id[1:]) + back, 1), 900)
            assert (match is not None) is is_known

    def test_a_run_that_appeared_before_the_last_one(self) -> None:
        """It was consumed after runs that stand behind it: what is forgotten reaches as far as the last of them."""
        joined = Joined(page_size=2)
        joined.match(runs_of(*range(1000, 700, -1)), 0)
        assert joined.match([make_run(801, 801), make_run(2000, 800.5), make_run(800, 800)], 199) == ([2000], -99)
        assert (
            joined.match([make_run(801, 801), make_run(2000, 800.5), *runs_of(*range(800, 500, -1))], 199) is not None
        )
        assert joined.match(runs_of(*range(501, 300, -1)), 500) is not None
        match = joined.match(runs_of(*range(760, 740, -1), 301, 300), 600)
        assert match is not None
        assert match[0] == [300]

    def test_256_ids_are_remembered_where_pages_are_small(self) -> None:
        """Small pages are no reason to lose the anchor early."""
        for back, is_known in [(250, True), (270, False)]:
            joined = Joined(by_creation=False, page_size=2)
            for at in range(500):
                joined.match(runs_of(2000 - at, 1999 - at), at)
            match = joined.match(runs_of(1500 + back, 1), 900)
            assert (match is not None) is is_known

    def test_an_anchor_alone_is_enough(self) -> None:
        """Where no run is listed twice, one known run shows where a response stands."""
        joined = Joined(by_creation=False)
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(20, 7, 6), 3) == ([6], 2)

    def test_a_response_that_lists_a_run_twice(self) -> None:
        """From then on, it takes two known runs where the order is of no use."""
        joined = Joined(by_creation=False)
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(8, 7, 7, 6), 1) == ([6], 1)
        assert joined.match(runs_of(20, 6, 5), 3) is None

    def test_unknown_runs_before_the_expected_anchor(self) -> None:
        """Where all ids are kept, they are new; so they are if they are level with the anchor."""
        joined = Joined(by_creation=False, met=set())
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(2, 7, 6), 1, 1) == ([2, 6], -1)
        joined = Joined()
        joined.match([make_run(9, 5), make_run(8, 4), make_run(7, 3)], 0)
        assert joined.match([make_run(8, 4), make_run(6, 3), make_run(7, 3), make_run(5, 2)], 0, 2) == ([6, 5], -1)

    def test_a_list_whose_equals_change_places(self) -> None:
        """Once this was seen, each response has to begin before the last consumed run."""
        joined = Joined()
        joined.match([make_run(9, 5), make_run(8, 4), make_run(7, 4)], 0)
        assert joined.match([make_run(9, 5), make_run(7, 4), make_run(8, 4), make_run(6, 3)], 0) == ([6], 0)
        assert joined.match(runs_of(3, 2), 3) is None
        assert joined.match([make_run(6, 3), make_run(1, 2)], 3, 0) is None
        assert joined.match([make_run(8, 4), make_run(6, 3), make_run(1, 2)], 2, 1) == ([1], 0)

    def test_an_unknown_run_between_equals(self) -> None:
        """It may have stood elsewhere before, and so may others."""
        joined = Joined()
        joined.match([make_run(9, 5), make_run(8, 4), make_run(7, 4)], 0)
        assert joined.match([make_run(8, 4), make_run(6, 4)], 1, 1) is None
        assert joined.match([make_run(7, 4), make_run(5, 3)], 2, 0) is None

    def test_equals_in_a_response_that_was_dropped(self) -> None:
        """They are a reason for the next one to begin before the last consumed run, if that isn't where expected."""
        joined = Joined()
        joined.match([make_run(9, 5), make_run(8, 4)], 0)
        assert joined.match([make_run(7, 4), make_run(6, 4)], 1) is None
        assert joined.match([make_run(8, 4), make_run(5, 3)], 3, -2) is None
        assert joined.match([make_run(8, 4), make_run(5, 3)], 1, 0) is None
        assert joined.match([make_run(9, 5), make_run(8, 4), make_run(5, 3)], 0, 1) == ([5], 0)

    def test_equals_at_the_beginning(self) -> None:
        """A response at offset 0 shows all runs that are level with the first."""
        joined = Joined()
        joined.match([make_run(7, 3)], 0)
        assert joined.match([make_run(6, 3), make_run(7, 3), make_run(5, 2)], 0) == ([6, 5], 0)
        assert joined.match([make_run(4, 3), make_run(6, 3), make_run(7, 3), make_run(5, 2)], 0) == ([4], 0)

    def test_equals_of_an_earlier_page(self) -> None:
        """They are new although later runs were consumed, as long as no id was forgotten."""
        joined = Joined()
        joined.match([make_run(9, 5), make_run(8, 4)], 0)
        joined.match([make_run(8, 4), make_run(7, 3)], 1)
        assert joined.match([make_run(9, 5), make_run(6, 4), make_run(8, 4), make_run(7, 3)], 0) == ([6], 0)

    def test_a_deleted_run_between_two_anchors(self) -> None:
        """The shift is that of the last consumed run."""
        joined = Joined()
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(9, 7), 0) == ([], -1)

    def test_an_anchor_alone_is_enough_where_the_order_is_known(self) -> None:
        """Also if a run is listed twice."""
        joined = Joined()
        joined.match(runs_of(9, 8, 8, 7), 0)
        assert joined.match(runs_of(20, 7, 6), 3) == ([6], 2)

    def test_the_last_run_created_again_where_it_was_expected(self) -> None:
        """The same id with another time isn't the same run."""
        joined = Joined()
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match([make_run(7, 2), make_run(1, 1)], 2, 0) is None

    def test_a_run_that_is_listed_again_some_small_pages_later(self) -> None:
        """It isn't new, although the anchor stands where it was expected."""
        joined = Joined(page_size=2)
        for at in range(20):
            joined.match(runs_of(100 - at, 99 - at), at)
        match = joined.match(runs_of(80, 95, 79), 20)
        assert match == ([79], 1)

    def test_a_response_at_the_beginning_is_no_anchor_in_other_orders(self) -> None:
        """Without a known run, nothing shows what was consumed."""
        for met in (None, set[str]()):
            joined = Joined(by_creation=False, met=met)
            joined.match(runs_of(9, 8, 7), 0)
            assert joined.match(runs_of(10, 6), 0) is None

    def test_an_order_that_was_contradicted_is_not_used(self) -> None:
        """Creation then neither excludes an anchor, nor stands in for one."""
        joined = Joined()
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(7, 3, 5, 4), 2, 3) == ([3, 5, 4], 0)
        assert joined.match(runs_of(3, 1), 4) == ([1], -1)
        assert joined.match([make_run(1, 1), make_run(10, 0), make_run(11, 0)], 6, 3) == ([10, 11], 0)
        assert joined.match([make_run(11, 0), make_run(12, -1)], 9, 3) == ([12], 1)
        joined = Joined()
        joined.match(runs_of(9, 8, 7), 0)
        assert joined.match(runs_of(7, 3, 5, 4), 2) == ([3, 5, 4], 0)
        assert joined.match(runs_of(1, 4, 8, 2), 5, 3) == ([2], 2)
        assert joined.match(runs_of(20, 19), 3) is None

    def test_a_first_response_that_contradicts_the_order(self) -> None:
        """The order by creation isn't used, then."""
        joined = Joined()
        joined.match(runs_of(9, 7, 8), 0)
        assert joined.match(runs_of(9, 5), 3) == ([5], 1)
        assert joined.match(runs_of(20, 4), 1) is None

    def test_all_ids_in_an_order_that_changes(self) -> None:
        """An order that was seen to change is never taken for stable again."""
        joined = Joined(by_creation=False, met=set())
        joined.match(runs_of(9, 8, 7), 0)
        joined.match(runs_of(9, 8, 6), 0)
        joined.match(runs_of(9, 9, 8), 0)
        assert not joined.anchor.is_unstable
        joined.match(runs_of(9, 6, 8, 7), 0)
        assert joined.anchor.is_unstable
        joined.match(runs_of(9, 8), 0)
        assert joined.anchor.is_unstable


class TestOrder:
    def test_the_direction_is_learned(self) -> None:
        """The first response with two times shows which way the list is sorted."""
        order = Order(True)
        order.learn(runs_of(5))
        assert not order.is_known
        order.learn(runs_of(5, 3))
        assert order.is_known
        assert order.is_before(5, 3)
        assert not order.is_before(3, 3)
        assert not order.is_before(3, 5)

    def test_which_way(self) -> None:
        """It is known only as long as the order is."""
        order = Order(True)
        assert not order.is_oldest_first
        order.learn(runs_of(3, 5))
        assert order.is_oldest_first
        assert order.holds_for(runs_of(3, 3, 5))
        assert not order.holds_for(runs_of(3, 5, 4))
        assert not order.is_oldest_first
        order = Order(True)
        order.learn(runs_of(5, 3))
        assert not order.is_oldest_first

    def test_a_contradiction_ends_all_use(self) -> None:
        """A list that isn't sorted by creation as it says is never taken for sorted again."""
        order = Order(True)
        order.learn(runs_of(5, 3))
        order.learn(runs_of(1, 2))
        assert not order.is_known
        order = Order(True)
        order.learn(runs_of(5, 3))
        assert order.holds_for(runs_of(9, 8, 8, 1))
        assert not order.holds_for(runs_of(9, 7, 8, 1))
        assert not order.holds_for(runs_of(9, 8))
        assert not Order(True).holds_for(runs_of(5, 7, 5))

    def test_an_order_that_is_not_by_creation(self) -> None:
        """Other orders are never known."""
        order = Order(False)
        order.learn(runs_of(5, 3))
        assert not order.is_known
        assert not order.holds_for(runs_of(5, 3))


class TestPace:
    def test_a_still_list(self) -> None:
        """Nothing is wasted: after the first responses, pages overlap by a single run, at any depth."""
        pace = Pace(100, 1000)
        pace.widen(16)
        assert pace.overlap(100, 1) == 1 + 3
        assert pace.overlap(100, 16) == 1 + 3
        assert pace.overlap(100, 17) == 1
        for clock in range(1, 40):
            pace.observe(0, 0, clock)
        assert (pace.limit, pace.shift, pace.predict(39, 15), pace.overlap(100, 39)) == (100, 0, 0, 1)

    def test_the_shift_is_predicted_from_its_rate(self) -> None:
        """Two new runs a response, and three requests in flight: the next response shows eight more."""
        pace = Pace(100, 1000)
        for clock in range(1, 21):
            pace.observe(2 * clock, 2 * clock, clock)
        assert pace.rate == 2
        assert pace.predict(20, 0) == 42
        assert pace.predict(20, 3) == 48
        assert pace.predict(21, 3) == 50

    def test_the_overlap_covers_the_errors_of_the_predictions(self) -> None:
        """The list stands further to the left than predicted: the next pages overlap by as much, and slowly by less."""
        pace = Pace(100, 1000)
        pace.observe(-1, 9, 1)
        assert pace.overlap(100, 1) == 1 + 10
        pace.observe(-1, -1, 2)
        assert pace.overlap(100, 2) == 1 + 10
        for clock in range(3, 150):
            pace.observe(-1, -1, clock)
        assert pace.overlap(100, 150) == 1 + 1
        pace.observe(-1, 200, 151)
        assert pace.overlap(100, 151) == 1 + 33

    def test_fewer_requests_for_larger_pages_after_a_lost_anchor(self) -> None:
        """Each lost anchor halves the requests in flight and doubles the pages, down to one, and up to the most."""
        pace = Pace(100, 1000)
        pace.widen(16)
        shown = []
        for _ in range(6):
            pace.lose()
            shown.append((pace.depth, pace.limit, pace.overlap(100, 99)))
        assert shown == [
            (8, 200, 1 + 6),
            (4, 400, 1 + 12),
            (2, 800, 1 + 24),
            (1, 1000, 1 + 12),
            (0.5, 1000, 1 + 12),
            (0.25, 1000, 1 + 12),
        ]
        for _ in range(4):
            pace.lose()
        assert pace.depth == 0.1
        pace.observe(0, 0, 1)
        assert pace.depth == 0.1 * (1 + 1 / 16)  # pages that had to be larger don't halve at once

    def test_larger_pages_that_the_server_refuses(self) -> None:
        """A server that refuses larger pages gets pages of `page_size`."""
        pace = Pace(100, 1000)
        pace.widen(4)
        pace.lose()
        pace.keep_page_size()
        assert pace.limit == 100

    def test_the_rate_is_that_of_the_latest_responses(self) -> None:
        """Of the latest 32 steps; and with several requests in flight, no rate is learned from the first few."""
        pace = Pace(100, 1000)
        for clock in range(1, 41):
            pace.observe(0, 0, clock)
        for clock in range(41, 72):
            pace.observe(2 * (clock - 40), 0, clock)
        assert pace.rate == 62 / 32
        pace.observe(64, 0, 72)
        assert pace.rate == 2
        pace = Pace(100, 1000)
        pace.widen(16)
        pace.observe(4, 0, 1)
        assert pace.rate == 4 / 16
        pace.lose()
        pace.lose()
        pace.observe(8, 0, 2)
        assert pace.rate == 8 / 4

    def test_a_margin_that_grew_decays(self) -> None:
        """However often the anchor was lost, pages overlap by little again in the end."""
        pace = Pace(100, 1000)
        for _ in range(60):
            pace.lose()
        for clock in range(1, 1000):
            pace.observe(0, 0, clock)
        assert pace.overlap(100, 2000) == 1 + 1

    def test_a_small_page_overlaps_after_a_loss(self) -> None:
        """The margin of pages that had none begins with one run."""
        pace = Pace(20, 1000)
        pace.widen(16)
        pace.lose()
        assert pace.overlap(20, 99) == 1 + 1
        pace.lose()
        assert pace.overlap(20, 99) == 1 + 2

    def test_a_restart(self) -> None:
        """A new pass begins where nothing has moved, and keeps what was learned of the pace."""
        pace = Pace(100, 1000)
        for clock in range(1, 11):
            pace.observe(3 * clock, 3 * clock, clock)
        pace.restart()
        assert pace.shift == 0
        pace.observe(3, 3, 11)
        assert pace.rate == 3

    @pytest.mark.parametrize(("depth", "grown"), [(8, 8.0625), (1, 1.0625), (0.5, 0.53125)])
    def test_the_depth_grows_with_each_anchor(self, depth: float, grown: float) -> None:
        """By a sixteenth of a request; below one, where pages are larger, by a sixteenth of itself."""
        pace = Pace(10, 1000)
        pace.depth = depth
        pace.observe(0, 0, 1)
        assert pace.depth == grown


class TestSearch:
    def test_the_first_requests_go_where_the_run_is_expected(self) -> None:
        """First with the overlap, then with the run in the middle of the page."""
        search = Search()
        assert search.next_offset(500, 100, 10, 2000, has_order=True) == 491
        assert search.next_offset(500, 100, 10, 2000, has_order=True) == 450
        assert search.next_offset(500, 100, 10, 2000, has_order=True) == 950

    def test_a_binary_search_where_the_order_is_known(self) -> None:
        """Any place of a list of a million runs is found within some twenty requests."""
        for place in (0, 1, 777, 500_000, 999_999):
            search = Search()
            for _ in range(18):
                offset = max(0, search.next_offset(30, 100, 5, 1_000_000, has_order=True))
                if offset <= place < offset + 100:
                    break
                if place < offset:
                    search.lies_before(offset, 100)
                else:
                    search.lies_behind(offset + 100, 100, 1_000_000)
            assert offset <= place < offset + 100

    def test_the_second_guess_is_skipped_where_it_is_excluded(self) -> None:
        """A response shows that the run doesn't stand where it was expected."""
        search = Search()
        search.next_offset(500, 100, 10, 2000, has_order=True)
        search.lies_before(400, 100)
        assert search.next_offset(500, 100, 10, 2000, has_order=True) == 150
        search.lies_behind(250, 100, 2000)
        assert search.next_offset(500, 100, 10, 2000, has_order=True) == 275
        search.lies_before(300, 100)
        assert search.next_offset(500, 100, 10, 2000, has_order=True) == 249

    def test_a_list_that_moves_under_the_search(self) -> None:
        """Where the list has moved out of the interval, the interval grows."""
        search = Search()
        search.next_offset(500, 100, 10, 2000, has_order=True)
        search.lies_behind(600, 100, 2000)
        search.lies_before(550, 100)
        assert search.next_offset(500, 100, 10, 2000, has_order=True) == 450
        assert search.next_offset(500, 100, 10, 2000, has_order=True) == 400
        search.lies_behind(600, 100, 2000)
        assert search.next_offset(500, 100, 10, 2000, has_order=True) == 950

    @pytest.mark.parametrize(
        ("behind", "before", "guess", "offset"),
        [
            (None, 501, 501, 200),
            (None, 500, 500, 200),
            (500, None, 500, 450),
            (500, 600, 700, 500),
            (600, 600, 700, 450),
            (150, 101, 700, 0),
            (150, 100, 700, 0),
        ],
    )
    def test_the_bounds_of_the_interval(self, behind: int | None, before: int | None, guess: int, offset: int) -> None:
        """The run doesn't stand before the lower bound, and stands before the upper one."""
        search = Search()
        search.next_offset(500, 100, 10, 2000, has_order=True)
        if behind is not None:
            search.lies_behind(behind, 100, 2000)
        if before is not None:
            search.lies_before(before, 100)
        assert search.next_offset(guess, 100, 10, 2000, has_order=True) == offset

    @pytest.mark.parametrize(("total", "offset"), [(2000, 650), (650, 599), (580, 599)])
    def test_the_interval_grows_no_further_than_the_list(self, total: int, offset: int) -> None:
        """A server may refuse requests beyond the end."""
        search = Search()
        search.next_offset(500, 100, 10, total, has_order=True)
        search.lies_before(600, 100)
        search.lies_behind(600, 100, total)
        assert search.next_offset(500, 100, 10, total, has_order=True) == offset

    def test_the_interval_grows_twice_as_fast_with_each_try(self) -> None:
        """By eight pages after the third request."""
        search = Search()
        for _ in range(3):
            search.next_offset(500, 100, 10, 2000, has_order=True)
        search.lies_behind(1200, 100, 2000)
        search.lies_before(1000, 100)
        assert search.next_offset(500, 100, 10, 2000, has_order=True) == (200 + 1000 - 100) // 2

    def test_without_an_order_it_widens(self) -> None:
        """Requests go farther and farther away from the guess, on alternating sides."""
        search = Search()
        offsets = [search.next_offset(500, 100, 10, 2000, has_order=False) for _ in range(6)]
        assert offsets == [491, 450, 500, 350, 550, 300]
        search = Search()
        assert [search.next_offset(2500, 100, 10, 2000, has_order=False) for _ in range(2)] == [2491, 2450]


class TestServerTraits:
    def test_totals(self) -> None:
        """The newest, the longest and the shortest total, and whether one was too small."""
        traits = ServerTraits()
        traits.learn(0, 10, 10, 100, 10)
        traits.learn(10, 10, 10, 90, 10)
        traits.learn(20, 10, 10, 95, 10)
        assert (traits.total, traits.longest, traits.shortest, traits.fullest) == (95, 100, 90, 10)
        assert not traits.understates
        traits.learn(500, 10, 0, 95, 10)
        assert not traits.understates
        traits.learn(90, 10, 6, 95, 10)
        assert traits.understates

    def test_a_clamped_limit(self) -> None:
        """A server that sends fewer than requested, with more left, clamps the limit."""
        traits = ServerTraits()
        traits.learn(0, 100, 50, 200, None)
        assert traits.reach(100) == 50
        assert traits.reach(20) == 20
        honest = ServerTraits()
        honest.learn(0, 100, 50, 50, None)
        assert honest.reach(100) == 100

    def test_the_last_page(self) -> None:
        """A page that isn't full is the last one only where the server fills its pages."""
        traits = ServerTraits()
        traits.learn(0, 100, 100, 150, 100)
        assert traits.is_last(100, 50, 100)
        assert not traits.is_last(100, 100, 100)
        silent = ServerTraits()
        silent.learn(0, 100, 50, 50, None)
        assert not silent.is_last(100, 50, None)
        assert silent.is_last(100, 1, None)
        assert silent.is_last(100, 49, None)
        clamping = ServerTraits()
        clamping.learn(0, 100, 50, 80, 50)
        assert clamping.is_last(100, 30, 50)
        assert not clamping.is_last(100, 50, 50)

    def test_limits_that_are_not_true(self) -> None:
        """A server that sends more, or less, than the limit it says isn't relied on."""
        short = ServerTraits()
        short.learn(0, 100, 40, 200, 100)
        assert not short.is_last(100, 50, 100)
        more = ServerTraits()
        more.learn(0, 100, 60, 200, 50)
        assert not more.is_last(100, 60, 50)
        assert more.is_last(100, 55, 50)
        more.learn(60, 100, 40, 200, 50)
        assert more.is_last(100, 55, 50)
        assert not more.is_last(100, 100, 50)

    def test_a_limit_that_was_exceeded(self) -> None:
        """Its server isn't relied on, even if it fills its pages."""
        traits = ServerTraits()
        traits.learn(0, 60, 60, 200, 50)
        assert not traits.is_last(100, 60, 50)
        assert traits.is_last(100, 59, 50)

    def test_a_total_that_is_the_servers_limit(self) -> None:
        """A first page that is as long as the limit that the server says may not be the last, whatever its total."""
        traits = ServerTraits()
        traits.learn(0, 100, 50, 50, 50)
        assert not traits.is_last(100, 50, 50)
        traits = ServerTraits()
        traits.learn(0, 100, 100, 100, 1000)
        assert not traits.is_last(100, 100, 1000)

    def test_a_short_page_after_full_ones(self) -> None:
        """A server that once left a page short isn't relied on; a page shorter than others is the last all the same."""
        traits = ServerTraits()
        traits.learn(0, 100, 100, 400, 100)
        traits.learn(100, 100, 40, 400, 100)
        traits.learn(140, 100, 100, 400, 100)
        assert traits.is_last(100, 60, 100)
        assert traits.reach(200) == 100
        traits = ServerTraits()
        traits.learn(0, 100, 40, 400, 100)
        traits.learn(40, 100, 40, 400, 100)
        assert not traits.is_last(100, 40, 100)
        traits.learn(80, 30, 30, 400, 30)
        assert not traits.is_last(100, 40, 100)

    def test_a_total_that_was_too_small(self) -> None:
        """Its server isn't relied on, either."""
        traits = ServerTraits()
        traits.learn(0, 100, 1, 0, 100)
        assert traits.understates
        assert traits.is_last(100, 1, 100)
        assert not traits.is_last(100, 2, 100)
        silent = ServerTraits()
        silent.learn(0, 100, 2, 2, None)
        assert not silent.is_last(100, 2, None)
        assert silent.reach(100) == 100
        full = ServerTraits()
        full.learn(0, 10, 10, 100, 10)
        full.learn(10, 5, 5, 100, 10)
        assert full.reach(20) == 20
        assert full.is_last(20, 15, 20)


class TestPasses:
    def read(self, passes: Passes, *numbers: int) -> list[int]:
        met = passes.begin()
        runs = runs_of(*numbers)
        met.update(run.id for run in runs)
        return [int(run.id[1:]) for run in passes.unseen(runs)]

    def test_a_pass_that_met_all(self) -> None:
        """One pass that met as many runs as there are is enough, even if totals have changed."""
        passes = Passes(2)
        assert self.read(passes, 5, 4, 4, 3) == [5, 4, 3]
        assert passes.is_complete(5, 4, 6, is_unstable=False)
        assert not passes.is_complete(6, 4, 6, is_unstable=False)

    def test_a_still_list(self) -> None:
        """On a list that stands still, as many as the total have to be yielded, over all passes."""
        passes = Passes(0)
        self.read(passes, 5, 4)
        assert not passes.is_complete(3, 3, 3, is_unstable=True)
        assert self.read(passes, 5, 3) == [3]
        assert passes.is_complete(3, 3, 3, is_unstable=True)

    def test_a_list_that_moves(self) -> None:
        """A pass that finds nothing shows that nothing is missing; where the order is unstable, it takes three."""
        passes = Passes(0)
        self.read(passes, 5, 4)
        assert not passes.is_complete(4, 2, 4, is_unstable=False)
        assert self.read(passes, 5, 3) == [3]
        assert not passes.is_complete(4, 2, 4, is_unstable=False)
        assert self.read(passes, 5, 9) == [9]  # it is newer than all of the first pass, and doesn't count
        assert passes.is_complete(4, 2, 4, is_unstable=False)
        for complete in (False, True):
            self.read(passes, 5, 4)
            assert passes.is_complete(4, 2, 4, is_unstable=True) is complete

    def test_the_newest_run_need_not_come_last(self) -> None:
        """A run that is older than any of the first pass is missing, in whatever order they came."""
        passes = Passes(0)
        self.read(passes, 9, 4)
        self.read(passes, 7)
        assert not passes.is_complete(4, 2, 4, is_unstable=False)

    def test_fewer_runs_than_there_ever_were(self) -> None:
        """A pass that finds nothing isn't believed as long as fewer runs were yielded than the smallest total."""
        passes = Passes(0)
        self.read(passes, 5, 4)
        self.read(passes, 5)
        assert not passes.is_complete(4, 3, 4, is_unstable=False)
        assert passes.is_complete(4, 2, 4, is_unstable=False)

    def test_further_passes_are_useless(self) -> None:
        """After four passes in a row that found nothing, what is missing can't be found."""
        passes = Passes(0)
        for hopeless in (False, False, False, False, True):
            self.read(passes, 5, 4)
            assert not passes.is_complete(3, 3, 3, is_unstable=True)
            assert passes.is_hopeless is hopeless


class TestProgressGuard:
    def test_a_list_without_end(self) -> None:
        """200 responses and 20 for each page of the list at first are enough; where totals are too small, 50 times."""
        guard = ProgressGuard()
        for _ in range(400):
            guard.count(10.1)
        assert (guard.responses, guard.fruitless) == (400, 400)
        for _ in range(2):
            guard.count(1_000)
        assert not guard.is_too_long(understates=False)
        guard.count()
        assert guard.is_too_long(understates=False)
        guard.responses *= 50
        assert guard.is_too_long(understates=True)
        guard.responses -= 50
        assert not guard.is_too_long(understates=True)
