"""Orders in which runs can change their place: all ids are kept, and the list is walked until no run is missing."""

import math
from collections.abc import Sequence

from tfruns.models import JobRun

_SWEEPS_TO_GIVE_UP = 4
"""After so many sweeps in a row that find nothing, the runs that the total shows missing can't be found."""
_SWEEPS_TO_BE_SURE = 3
"""After so many, nothing is missing, even if runs with equal keys come in another order in each response."""


class Sweeps:
    """The ids of all runs that were yielded, and of those that the current sweep has met.

    A sweep is one walk over the list. It has missed nothing if it met as many runs as the total says; or, if the list
    doesn't change, if as many were yielded. If the list changes, a run that is missing may also be one that was created
    in a part that was read already. So further sweeps search for runs that were created before the first sweep ended.
    Nothing is missing once a sweep finds none of them.

    Args:
        start: how many runs are skipped first.
    """

    def __init__(self, start: int) -> None:
        self.number = 0
        self._start = start
        self._seen: set[str] = set()
        self._newest = -math.inf  # creation of the newest run of the first sweep
        self._fruitless = 0  # so many sweeps in a row found nothing

    def begin(self) -> set[str]:
        """Begin a sweep. Returns the set for the ids that it meets."""
        self.number += 1
        self._fruitless += 1  # until it finds a run
        self._met: set[str] = set()
        return self._met

    def unseen(self, runs: Sequence[JobRun]) -> Sequence[JobRun]:
        """The runs that weren't yielded yet, each once."""
        fresh = list({run.id: run for run in runs if run.id not in self._seen}.values())
        for run in fresh:
            self._seen.add(run.id)
            if self.number == 1:
                self._newest = max(self._newest, run.created_at)
            if run.created_at <= self._newest:
                self._fruitless = 0
        return fresh

    def is_complete(self, total: int, shortest: float, longest: int, *, is_unstable: bool) -> bool:
        """Whether nothing is missing, at the end of a sweep.

        Args:
            total: how many runs there are.
            shortest: how many there were at least.
            longest: how many there were at most.
            is_unstable: whether runs come in another order in each response, so that a sweep may miss some by chance.
        """
        seen = self._start + len(self._seen)
        if self._start + len(self._met) >= total:
            return True
        if shortest == longest:
            return seen >= total
        return seen >= shortest and self._fruitless >= (_SWEEPS_TO_BE_SURE if is_unstable else 1)

    @property
    def is_hopeless(self) -> bool:
        """Whether a further sweep would be useless."""
        return self._fruitless >= _SWEEPS_TO_GIVE_UP
