"""Some runs of a job, before they are turned into a piece."""

from collections.abc import Callable, Sequence
from typing import Self

import attrs

from tfruns.models import JobRun


@attrs.frozen
class Page:
    """Some runs of a job; their texts are split out of the response only if they are needed."""

    job_id: str
    runs: Sequence[JobRun]
    _split: Callable[[], Sequence[bytes]]

    def texts(self) -> Sequence[bytes]:
        """The JSON text of each run, as the server sent it."""
        return self._split()

    def only(self, kept: Sequence[int]) -> Self:
        """Some of the runs, by their indices."""

        def split() -> Sequence[bytes]:
            texts = self._split()
            return [texts[at] for at in kept]

        return attrs.evolve(self, runs=[self.runs[at] for at in kept], split=split)
