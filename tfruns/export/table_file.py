"""The table `runs` of a database of SQLite or DuckDB on this machine."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import attrs
import msgspec

from tfruns.export.databases import FileTable
from tfruns.export.destination import QUARANTINE, Claim, Destination
from tfruns.export.files import fresh_file, put_in_place
from tfruns.export.finish import Content, Written
from tfruns.export.quarantine import RejectedRun
from tfruns.export.results import ExportError
from tfruns.export.writer import Format, Writer


@attrs.frozen
class TableFile(Destination):
    """A table: new rows replace those of the same runs. A database that isn't there yet appears when it is complete."""

    file: Path
    _format: Format = attrs.field(alias="format_")
    table: type[FileTable]
    number: int | None = None
    """Which of several exports with a state this is."""

    @property
    def format_(self) -> Format:
        return self._format

    @property
    def path(self) -> Path:
        return self.file

    @property
    def quarantine(self) -> Path:
        name = self.path.name if self.number is None else self.format_.for_increment(self.path.name, self.number)
        return self.path.with_name(name + QUARANTINE)

    @property
    def about(self) -> Mapping[str, str]:
        return {"database": self.path.name}  # a state says what is in one database, not in another

    @property
    def _failed(self) -> str:
        return f"the table runs of {self.path} can't be written"

    def begin(self, claim: Claim) -> "TableFile":
        self.format_.check()
        state = claim.state
        if not self._has_table() and state is not None and state.exports > 0:
            what = f"{self.path} can't be written: its table runs" if self.table.check(self.path) else self.path
            raise ExportError(
                f"{what} isn't there, but by {state.path} it was written before: delete that to write it anew"
            )
        return attrs.evolve(self, number=None if state is None else state.exports)

    def _has_table(self) -> bool:
        return self.table.check(self.path) and self.table.use(self.path, self._failed, lambda rows: rows.is_there())

    def _staged(self, scratch: Path) -> Path:
        return scratch / f"runs{self.format_.suffixes[0]}"

    def open(self, scratch: Path) -> Writer:
        return self.format_.open(self._staged(scratch), scratch)

    def finish(self, content: Content) -> Written:
        removed = 0
        content.assembly.close()
        staged = self._staged(content.scratch)
        if self.table.check(self.path):
            removed = self.table.use(self.path, self._failed, lambda rows: rows.write(content), staged, content.check)
        elif self.number:
            raise ExportError(f"{self.path} isn't there any more")
        else:
            put_in_place(staged, self.path, self._check_new)
        self._write_rejected(content)
        return Written(size=self.path.stat().st_size, removed_rows=removed)

    def _check_new(self) -> None:
        if self.table.check(self.path):
            raise ExportError(f"{self.path} has been made by someone else meanwhile")

    def _write_rejected(self, content: Content) -> None:
        """Add the runs that were set aside to the quarantine, in place of older lines of the same runs (or of all runs
        of these jobs, if all were read)."""
        jobs = set(content.job_ids) if content.is_whole else set()
        replaced = set(content.rejected_keys())
        path = content.scratch / self.quarantine.name
        with contextlib.ExitStack() as files:
            new = files.enter_context(open(fresh_file(path), "wb"))
            if self.quarantine.exists() and not content.replace:
                for line in files.enter_context(self.quarantine.open("rb")):
                    with contextlib.suppress(msgspec.DecodeError):
                        old = msgspec.json.decode(line, type=RejectedRun)
                        if old.job_id in jobs or (old.job_id, old.run_id) in replaced:
                            continue
                    new.write(line)
            new.writelines(content.rejected())
        if path.stat().st_size:
            put_in_place(path, self.quarantine)
        else:
            self.quarantine.unlink(missing_ok=True)
