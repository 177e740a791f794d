"""The rules of the planner, one by one, over responses that are written out."""

import attrs
import pytest

from tests.support.walk_simulator import make_run
from tfruns._walk.planner import PlannedPage, Planner
from tfruns.errors import IncompleteWalkError
from tfruns.models import Pagination, RunPage
from tfruns.query import RunFilter

EPOCH = 1_700_000_000_000


class Script:
    """A walk over the runs 1000, 999, …, each created that many ms after `EPOCH`, unless a response says otherwise."""

    def __init__(
        self,
        *,
        start: int = 0,
        page_size: int = 10,
        max_runs: int | None = None,
        keeps_ids: bool = False,
        created_after: int | None = None,
        sort_by: str | None = None,
    ) -> None:
        self.planner = Planner(
            job_id="j",
            start=start,
            page_size=page_size,
            max_runs=max_runs,
            by_creation=not keeps_ids,
            keeps_ids=keeps_ids,
            window=None if created_after is None else RunFilter(created_after=EPOCH + created_after, sort_by=sort_by),
        )
        self.in_flight: list[PlannedPage] = []

    def request(self) -> tuple[int, int] | None:
        """Offset and limit of the next request."""
        page = self.planner.next_request(self.in_flight)
        if page is None:
            return None
        self.in_flight.append(page)
        return page.offset, page.limit

    def request_all(self, most: int = 100) -> list[int]:
        """Offsets of all requests that are made before another response comes."""
        offsets = []
        while len(offsets) < most and (request := self.request()) is not None:
            offsets.append(request[0])
        return offsets

    def respond(
        self, numbers: list[int] | None = None, *, total: int = 1000, shift: int = 0, created_at: int | None = None
    ) -> list[int]:
        """The numbers of the runs that the oldest request in flight brings.

        Args:
            numbers: of the runs in the response; by default those that stand at the requested offset.
            total: the total in the response.
            shift: by how much the list has moved to the right.
            created_at: when all of these runs were created.
        """
        page = self.in_flight.pop(0)
        if numbers is None:
            first = 1000 + shift - page.offset
            numbers = list(range(first, max(first - page.limit, 1000 + shift - total), -1))
        runs = tuple(make_run(number, EPOCH + (number if created_at is None else created_at)) for number in numbers)
        found = self.planner.consume(page, RunPage(runs, Pagination(total, page.offset, page.limit)))
        return [int(run.id[1:]) for run in found]

    def refuse(self) -> None:
        self.planner.refuse(self.in_flight.pop(0), "422")


# What is requested while the list stands still.


def test_no_runs_are_wanted() -> None:
    """Nothing is requested for `max_runs=0`."""
    script = Script(max_runs=0)
    assert script.planner.done
    assert script.request() is None


@pytest.mark.parametrize(
    ("page_size", "max_runs", "limit"), [(10, None, 10), (10, 3, 3), (10, 50, 10), (1, None, 2), (2, None, 2)]
)
def test_the_first_request(page_size: int, max_runs: int | None, limit: int) -> None:
    """It is for a page, or for as many runs as are wanted, and nothing else is requested before its response."""
    script = Script(start=5, page_size=page_size, max_runs=max_runs)
    assert script.request() == (5, limit)
    assert script.request() is None


@pytest.mark.parametrize(("total", "offsets"), [(10, []), (11, [9]), (28, [9, 18]), (29, [9, 18, 27])])
def test_pages_are_requested_up_to_the_total(total: int, offsets: list[int]) -> None:
    """Each page begins with the last run of the page before, and none begins where the list ends."""
    script = Script()
    script.request()
    script.respond(total=total)
    assert script.request_all() == (offsets or [9])


def test_a_total_that_is_too_small_does_not_keep_pages_from_being_requested_ahead() -> None:
    """A server whose totals are too small is read as fast as others."""
    script = Script()
    script.request()
    script.respond(list(range(1000, 990, -1)), total=4)
    assert script.request_all(most=5) == [9, 18, 27, 36, 45]


@pytest.mark.parametrize(("total", "offsets"), [(1000, [14, 23]), (18, [14]), (26, [14, 23])])
def test_no_more_is_requested_than_max_runs(total: int, offsets: list[int]) -> None:
    """Pages are requested up to `offset` and `max_runs`, or up to the total if that is less."""
    script = Script(start=5, max_runs=20)
    script.request()
    script.respond(total=total)
    assert script.request_all() == offsets


def test_a_walk_ends_with_max_runs() -> None:
    """No run more is yielded, and nothing more is requested."""
    script = Script(max_runs=15)
    script.request()
    script.respond()
    assert script.request_all() == [9]
    assert script.respond() == [990, 989, 988, 987, 986]
    assert script.planner.done
    assert script.request() is None


def test_a_job_without_runs_takes_one_request() -> None:
    """There is nothing that a second could show."""
    script = Script()
    script.request()
    assert script.respond([], total=0) == []
    assert script.planner.done


def test_the_first_pages_overlap_by_more() -> None:
    """As long as it isn't known whether the list moves."""
    script = Script(page_size=100)
    script.request()
    script.respond()
    assert script.request_all(most=4) == [96, 192, 288, 384]
    for _ in range(4):
        script.respond()
    assert script.request() == (483, 100)


# How the walk follows a list that moves.


def test_new_runs_before_the_reader_do_not_make_the_rest_longer() -> None:
    """Pages are requested up to the total, less what was added before the reader."""
    script = Script()
    script.request()
    script.respond(total=40)
    assert script.request_all(most=1) == [9]
    assert script.respond(total=45, shift=5) == [990, 989, 988, 987]
    assert script.request_all() == [20, 32]


def test_a_list_that_was_replaced_is_read_from_its_start() -> None:
    """No run that was read is left: what is there now stands before the place of the last one."""
    script = Script()
    script.request()
    script.respond()
    script.request()
    script.respond([], total=3)
    assert script.request() == (0, 20)
    assert script.respond([7, 6, 5], total=3) == [7, 6, 5]


def test_the_search_begins_where_the_totals_say() -> None:
    """500 new runs before the reader are found at once, as the total has grown by so many."""
    script = Script()
    script.request()
    script.respond()
    script.request()
    assert script.respond(total=1500, shift=500) == []
    assert script.request() == (508, 20)
    assert script.request() is None
    assert script.respond(total=1500, shift=500) == list(range(990, 972, -1))


def test_each_miss_halves_the_depth_and_doubles_the_page() -> None:
    """Also those of the search itself, but not those of requests that were in flight when the anchor was lost."""
    script = Script(page_size=20)
    script.request()
    script.respond()
    assert script.request_all(most=8) == [19, 38, 57, 76, 95, 114, 133, 152]
    for _ in range(7):
        assert script.respond(shift=500) == []
        assert script.request() is None
    assert script.respond(shift=500) == []
    limits = []
    for _ in range(4):
        request = script.request()
        assert request is not None
        assert script.request() is None
        limits.append(request[1])
        is_there = request[0] <= 519 < sum(request)
        assert script.respond(shift=0 if is_there else 500) == []
    assert limits == [40, 80, 160, 320]


def test_only_responses_to_the_search_show_where_the_anchor_is_not() -> None:
    """A response that was in flight when the anchor was lost may be older: its offset is no bound of the search."""
    script = Script()
    script.request()
    script.respond()
    script.request_all(most=3)
    assert script.respond(shift=500) == []
    assert script.respond(list(range(900, 890, -1))) == []  # it lies behind the anchor, before the runs were created
    assert script.respond(list(range(900, 890, -1))) == []
    offsets = []
    found: list[int] = []
    while not found:
        request = script.request()
        assert request is not None
        offsets.append(request[0])
        found = script.respond(shift=500)
    assert offsets == [8, 494]
    assert found[0] == 990


def test_an_anchor_that_was_found_ends_the_search() -> None:
    """Pages are requested ahead again, as many as the depth allows."""
    script = Script(page_size=20)
    script.request()
    script.respond()
    assert len(script.request_all(most=16)) == 16
    for _ in range(16):
        script.respond(shift=1000, total=2000)
    assert len(script.request_all()) == 1
    assert script.respond(shift=1000, total=2000) != []
    assert len(script.request_all()) == 9


def test_an_anchor_with_nothing_new_behind_it_does_not_end_the_search() -> None:
    """It shows where to go on, with a single request, until there are new runs."""
    script = Script(page_size=20)
    script.request()
    script.respond()
    script.request_all(most=16)
    for _ in range(16):
        script.respond(shift=1000, total=2000)
    script.request()
    assert script.respond([985, 984, 983, 982, 981], total=2000) == []
    assert len(script.request_all()) == 1
    assert script.respond([982, 981, 980, 979], total=2000) == [980, 979]
    assert len(script.request_all()) > 1


def test_a_response_with_nothing_new_is_no_reason_to_search() -> None:
    """An older response, or one of a list that has moved, may hold only what was read: pages are fetched ahead."""
    script = Script()
    script.request()
    script.respond()
    script.request_all(most=3)
    assert script.respond(list(range(1000, 990, -1))) == []
    assert len(script.request_all(most=4)) == 4


def test_a_larger_page_that_is_refused() -> None:
    """The walk goes on with pages of `page_size`."""
    script = Script()
    script.request()
    script.respond()
    script.request_all(most=2)
    script.respond(shift=20)
    script.respond(shift=20)
    assert script.request() == (35, 18)
    script.refuse()
    request = script.request()
    assert request is not None
    assert request[1] == 10


def test_a_page_that_reaches_too_far_is_requested_again_up_to_the_total() -> None:
    """By one run more than there are, so that the response shows the end; and then an offset is refused for good."""
    script = Script()
    script.request()
    script.respond(total=25)
    assert script.request_all() == [9, 18]
    script.respond(total=25)
    script.refuse()
    assert script.request() == (18, 8)
    assert script.request() is None
    with pytest.raises(IncompleteWalkError, match="the server refuses the request at offset 18: 422"):
        script.refuse()


@pytest.mark.parametrize(("total", "is_refused"), [(26, False), (27, True), (28, True)])
def test_a_page_that_reaches_no_further_than_it_has_to_is_refused_for_good(total: int, is_refused: bool) -> None:
    """It has to reach beyond the end by one run."""
    script = Script()
    script.request()
    script.respond(total=total)
    script.request()
    script.respond(total=total)
    script.request()
    if is_refused:
        with pytest.raises(IncompleteWalkError, match="the server refuses the request at offset 18: 422"):
            script.refuse()
    else:
        script.refuse()
        assert script.request() == (18, 9)


def test_a_page_is_no_shorter_than_two_runs() -> None:
    """Also if the place of the next run is expected behind the end."""
    script = Script()
    script.request()
    script.respond(total=15)
    script.request()
    script.refuse()
    assert script.request() == (9, 7)
    assert script.respond(total=16, shift=4) == [990, 989]
    assert script.request() == (16, 2)
    with pytest.raises(IncompleteWalkError, match="the server refuses the request at offset 16: 422"):
        script.refuse()


def test_an_offset_that_was_a_prediction_is_not_refused_for_good() -> None:
    """Where others were in flight, the offset may be wrong; alone, it is what the walk needs."""
    script = Script()
    script.request()
    script.respond()
    script.request_all(most=2)
    script.respond()
    script.refuse()
    assert script.request() == (18, 10)
    with pytest.raises(IncompleteWalkError, match="the server refuses the request at offset 18: 422"):
        script.refuse()


def test_a_total_that_is_too_small_says_nothing_of_what_is_refused() -> None:
    """The offset is refused, then, and not the end of the page."""
    script = Script()
    script.request()
    script.respond(list(range(1000, 990, -1)), total=4)
    script.request()
    with pytest.raises(IncompleteWalkError, match="the server refuses the request at offset 9: 422"):
        script.refuse()


# Where the list ends.


def test_a_shorter_list_has_to_be_shown_twice() -> None:
    """Where an earlier total was larger, a second response has to show the same end."""
    script = Script()
    script.request()
    script.respond(total=100)
    script.request()
    assert script.respond(total=15) == [990, 989, 988, 987, 986]
    assert not script.planner.done
    script.request()
    assert script.respond(total=15) == []
    assert script.planner.done


def test_the_second_response_has_to_be_newer() -> None:
    """A request that was in flight when the first response came may have been sent by the same replica."""
    script = Script()
    script.request()
    script.respond(total=100)
    script.request_all(most=2)
    script.respond(total=15)
    script.respond([986], total=15)
    assert not script.planner.done


def test_the_second_response_must_not_hold_more() -> None:
    """A list that grows at its end isn't at its end."""
    script = Script()
    script.request()
    script.respond(total=100)
    script.request()
    script.respond(total=15)
    script.request()
    assert script.respond(total=17) == [985, 984]
    assert not script.planner.done


def test_a_response_that_shows_more_begins_the_count_again() -> None:
    """Two responses in a row have to show the same end."""
    script = Script()
    script.request()
    script.respond(total=100)
    script.request()
    script.respond(total=15)
    script.request()
    script.respond([986], total=100)
    assert script.request() is not None
    assert script.respond(total=15) == []
    assert not script.planner.done


def test_empty_responses_count_only_one_by_one() -> None:
    """What all requests in flight show at one moment says no more than one response."""
    script = Script()
    script.request()
    script.respond()
    script.request_all(most=16)
    for _ in range(16):
        assert script.respond([], total=0) == []
    for _ in range(9):
        script.request_all()
        script.respond([], total=0)
        assert not script.planner.done
    script.request()
    script.respond([], total=0)
    assert script.planner.done


@pytest.mark.parametrize("between", [([], 1000), ([5, 4, 3], 1000)])
def test_a_response_that_is_not_empty_begins_the_count_again(between: tuple[list[int], int]) -> None:
    """Ten in a row have to say that the list is empty."""
    script = Script()
    script.request()
    script.respond()
    for numbers, total in [([], 0)] * 9 + [between] + [([], 0)] * 9:
        script.request()
        script.respond(numbers, total=total)
        assert not script.planner.done
    script.request()
    script.respond([], total=0)
    assert script.planner.done


def test_a_server_whose_totals_are_too_small_is_not_believed_to_be_empty() -> None:
    """It says of every list that it is empty."""
    script = Script()
    script.request()
    script.respond(list(range(1000, 990, -1)), total=0)
    with pytest.raises(IncompleteWalkError, match="there is nothing from offset 0 on, and the walk can't tell"):
        for _ in range(100):
            script.request()
            script.respond([], total=0)


@pytest.mark.parametrize(("numbers", "offset"), [(range(900, 890, -1), 702), (range(300, 290, -1), 197)])
def test_an_order_that_is_learned_during_a_search(numbers: range, offset: int) -> None:
    """Responses of one millisecond don't show on which side of them the run stands. They set no bounds."""
    script = Script(start=400)
    script.request()
    script.respond(list(range(600, 590, -1)), created_at=500)
    for unknown in ([50, 49], [40, 39]):
        script.request()
        script.respond(unknown, created_at=500)
    assert script.request() == (404, 40)
    script.respond(list(numbers))
    found = script.request()
    assert found is not None
    assert found[0] == offset


def test_no_more_are_in_flight_than_the_pace_allows() -> None:
    script = Script()
    script.request()
    script.respond()
    script.planner._pace.depth = 3
    assert len(script.request_all()) == 3


# Passes.


def test_what_was_in_flight_for_the_pass_before() -> None:
    """Its runs are yielded, if they are new, and don't count as the beginning of the next pass."""
    script = Script(keeps_ids=True)
    script.request()
    script.respond(total=12)
    script.request()
    assert script.respond([991, 990, 990], total=12) == [990]
    assert script.request() == (0, 10)
    script.in_flight.insert(0, attrs.evolve(script.in_flight[0], offset=9, pass_number=1))
    assert script.respond([991, 990, 989], total=12) == [989]
    assert script.respond(total=12) == []
    assert script.request() == (9, 10)
    assert not script.planner.done


def test_passes_that_find_nothing_are_an_error() -> None:
    """What the total shows missing is looked for four times."""
    script = Script(keeps_ids=True)
    with pytest.raises(IncompleteWalkError, match="5 passes over the list didn't find the rest") as caught:
        for _ in range(100):
            request = script.request()
            assert request is not None
            script.respond([1000, 999, 998, 998, 998, 997][request[0] :], total=6)
    assert caught.value.seen == 4


# A time of creation.


@pytest.mark.parametrize("start", [0, 100])
def test_a_walk_of_the_newest_is_fetched_ahead_as_far_as_it_will_go(start: int) -> None:
    """The first run that is too old is expected where it stands if runs are created at a steady rate."""
    script = Script(start=start, created_after=951 - start)
    script.request()
    script.respond()
    assert script.request_all() == [start + at for at in (9, 18, 27, 36, 45)]
    found = [run for _ in range(5) for run in script.respond()]
    assert found == list(range(990 - start, 950 - start, -1))
    assert script.planner.done


def test_runs_of_one_moment_say_nothing_of_the_rate() -> None:
    """As long as all runs were created in one millisecond, pages are fetched ahead as always."""
    script = Script(created_after=3)
    script.request()
    script.respond(created_at=5)
    assert len(script.request_all(most=16)) == 16


def test_a_run_of_the_first_moment_of_the_window_is_not_too_old() -> None:
    """The window is closed at its beginning."""
    script = Script(created_after=991)
    script.request()
    assert script.respond()[-1] == 991
    assert not script.planner.done
    script.request()
    assert script.respond() == []
    assert script.planner.done


def test_a_window_in_another_order() -> None:
    """Where the list isn't sorted by creation, a run that is too old says nothing of those that follow."""
    script = Script(created_after=995, sort_by="startTime")
    script.request()
    assert script.respond() == list(range(1000, 994, -1))
    assert len(script.request_all(most=5)) == 5
    assert script.respond() == []
    assert not script.planner.done


# No walk is endless.


@pytest.mark.parametrize("in_flight", [1, 16])
def test_responses_without_anything_new_are_an_error(in_flight: int) -> None:
    """The walk fails after 40 of them in a row, and as many as there were in flight."""
    script = Script()
    script.request()
    script.respond()
    responses = 0
    expected = f"; {40 + in_flight + 1} responses in a row brought nothing new"
    with pytest.raises(IncompleteWalkError, match=expected):
        for _ in range(200):
            script.request_all(most=in_flight - len(script.in_flight))
            responses += 1
            script.respond(list(range(1000, 990, -1)))
    assert responses == 40 + in_flight + 1


def test_responses_without_an_anchor() -> None:
    """The error says that they can't be joined, where it can't name a cause."""
    script = Script(keeps_ids=True)
    script.request()
    script.respond()
    with pytest.raises(
        IncompleteWalkError, match=r"the response at offset \d+ can't be joined to the runs read before"
    ):
        for _ in range(100):
            script.request()
            script.respond([1500, 1499])


@pytest.mark.parametrize(("beyond", "says"), [(1, "there are runs up to offset {end};"), (0, "can't be joined")])
def test_runs_beyond_the_total(beyond: int, says: str) -> None:
    """The error names the index that they reach, where the server sends the same page for every offset."""
    script = Script()
    script.request()
    script.respond()
    end = 0
    with pytest.raises(IncompleteWalkError) as caught:
        for _ in range(100):
            script.request()
            end = script.in_flight[0].offset + 10
            script.respond(list(range(1000, 990, -1)), total=end - beyond)
    assert says.format(end=end) in str(caught.value)


def test_new_runs_begin_the_count_again() -> None:
    """A walk that makes progress goes on."""
    script = Script()
    script.request()
    script.respond()
    for _ in range(3):
        for _ in range(30):
            script.request()
            script.respond([5, 4, 3])
        last = script.planner._anchor.last
        assert last is not None
        at = int(last.id[1:])
        script.request()
        assert script.respond([at, at - 1]) == [at - 1]


def test_a_list_that_seems_to_have_no_end() -> None:
    """A walk takes at most 200 responses, and 20 for each page of the list as it was at first."""
    script = Script(page_size=3)
    script.request()
    script.respond(total=10)
    responses, at = 1, 998
    with pytest.raises(IncompleteWalkError, match="doesn't come to an end within 301 responses"):
        for _ in range(1000):
            script.request()
            script.respond([at, at - 1], total=1_000_000)
            responses, at = responses + 1, at - 1
    assert responses == 300
