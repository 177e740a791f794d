"""A page that a walk requests."""

import enum
from typing import Any

import attrs

from tfruns.models import RunPage, SortDirection
from tfruns.query import PageRequest, RunFilter


class PageOrder(enum.Enum):
    AS_ASKED = None
    NEWEST_FIRST = SortDirection.DESC
    OLDEST_FIRST = SortDirection.ASC

    def of(self, run_filter: RunFilter) -> RunFilter:
        """The filter of the requests for such pages."""
        if self.value is None:
            return run_filter
        filters: Any = attrs.asdict(run_filter) | {"sort_by": None, "order": self.value}
        return RunFilter(**filters)


class Purpose(enum.Enum):
    AHEAD = "to read on"
    GAP = "to fill the gap before a response that was kept"
    TAIL = "to see the last runs of the list"
    BEHIND = "to see whether anything stands behind the frontier"


@attrs.frozen(eq=False)
class PlannedPage:
    planned_by: object
    """The walk over the list to which it belongs."""
    offset: int
    limit: int
    order: PageOrder
    purpose: Purpose
    is_alone: bool
    """Whether nothing else was in flight when it was requested."""
    overlap: int = 0
    """How many of its runs are expected to be known."""
    pause: float = 0.0
    """Seconds to wait before it is sent."""


def full_length(limit: int, length: int, stated_limit: int | None) -> int:
    """How many runs a full page has that holds so many, and says so: some servers say its own length, or 0."""
    return min(limit, stated_limit) if stated_limit and stated_limit >= length else limit


def is_whole_list(request: PageRequest, page: RunPage) -> bool:
    """Whether the first response of a walk holds all runs that are wanted, beyond any doubt: then no plan is needed."""
    length = len(page.data)
    return (
        (request.filter.is_by_creation or not request.offset)  # in other orders, runs before the offset may move
        and request.offset + length == page.pagination.total
        and length < full_length(request.limit, length, page.pagination.limit)
        and length > 0  # one response is no proof that a list is empty
        and len({run.id for run in page.data}) == length
    )
