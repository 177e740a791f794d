"""The table `runs` of a database of SQLite or DuckDB on this machine."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import attrs
import msgspec

from tfruns.export.databases import FileTable
from tfruns.export.destination import work_folder_of
from tfruns.export.errors import ExportError
from tfruns.export.finish import Content, RejectedLine, Written
from tfruns.export.formats import Format
from tfruns.export.local import fresh_folder, new_folder, put_in_place
from tfruns.export.watermark import numbered


@attrs.frozen
class TableFile:
    """A table: new rows replace those of the same runs. A database that isn't there yet appears when it is complete."""

    path: Path
    form: Format
    table: type[FileTable]
    number: int | None = None
    """Which of several exports with a state this is."""

    @property
    def quarantine(self) -> Path:
        name = self.path.name if self.number is None else numbered(self.path.name, self.form, self.number)
        return self.path.with_name(name + ".rejected.jsonl")

    @property
    def is_file(self) -> bool:
        return False

    @property
    def about(self) -> Mapping[str, str]:
        return {"database": self.path.name}  # a state says what is in one database, not in another

    @property
    def _failed(self) -> str:
        return f"the table runs of {self.path} can't be written"

    def work_folder(self, work_dir: Path | None) -> Path:
        return work_folder_of(self.path, work_dir)

    def check(self) -> None:
        self.form.check()
        self._has_table()

    def _has_table(self) -> bool:
        return self.table.check(self.path) and self.table.use(self.path, self._failed, lambda rows: rows.is_there())

    def begin(self, state: Path | None) -> None:
        pass

    def numbered(self, number: int, state: Path) -> "TableFile":
        if number > 0 and not self._has_table():
            what = f"{self.path} can't be written: its table runs" if self.table.check(self.path) else self.path
            raise ExportError(f"{what} isn't there, but by {state} it was written before: delete that to write it anew")
        return attrs.evolve(self, number=number)

    def finish(self, content: Content, work: Path) -> Written:
        removed = 0
        fresh = fresh_folder(work, self.path)
        with new_folder(fresh) as folder:
            staged = folder / f"runs{self.form.suffixes[0]}"
            content.fill(self.form.open(staged, folder))
            if self.table.check(self.path):
                removed = self.table.use(
                    self.path, self._failed, lambda rows: rows.write(content), staged, content.check
                )
            elif self.number:
                raise ExportError(f"{self.path} isn't there any more")
            else:
                put_in_place(staged, self.path, self._check_new)
        self._write_rejected(content, fresh)
        return Written(size=self.path.stat().st_size, removed_rows=removed)

    def _check_new(self) -> None:
        if self.table.check(self.path):
            raise ExportError(f"{self.path} has been made by someone else meanwhile")

    def _write_rejected(self, content: Content, fresh: Path) -> None:
        """Add the runs that were set aside to the quarantine, in place of older lines of the same runs (or of all runs
        of these jobs, if all were read)."""
        jobs = set(content.job_ids) if content.is_whole else set()
        replaced = set(content.rejected_keys())
        with new_folder(fresh) as folder, contextlib.ExitStack() as files:
            path = folder / self.quarantine.name
            new = files.enter_context(open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb"))
            if self.quarantine.exists() and not content.replace:
                for line in files.enter_context(self.quarantine.open("rb")):
                    with contextlib.suppress(msgspec.DecodeError):
                        old = msgspec.json.decode(line, type=RejectedLine)
                        if old.job_id in jobs or (old.job_id, old.run_id) in replaced:
                            continue
                    new.write(line)
            new.writelines(content.rejected())
            files.close()
            if path.stat().st_size:
                put_in_place(path, self.quarantine)
            else:
                self.quarantine.unlink(missing_ok=True)
