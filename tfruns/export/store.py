"""Where files are put: a folder on this machine, or one in what fsspec knows, such as an object store.

A file appears under its name when it is whole. An object store shows an object when its upload is complete; elsewhere a
file is made, or uploaded, under another name, and moved. If something goes wrong, what was uploaded is discarded.
"""

import contextlib
import importlib
import importlib.metadata
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import msgspec

from tfruns._extras import install_package
from tfruns.export.files import check_replaceable, check_writable, fresh_file, put_in_place
from tfruns.export.pipeline import Destination, Export
from tfruns.export.results import ExportError
from tfruns.export.secrets import NAMED_BY_BUCKET, Hidden, guarded, masked_url, scheme_of, secrets_of
from tfruns.export.watermark import State
from tfruns.export.writer import Format, RejectedRun

_T = TypeVar("_T")
_Errors = tuple[type[Exception], ...]

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss"})
"""Schemes where no part of an object can be seen until it is complete."""
PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "smb": "smbprotocol",
    "oci": "ocifs",
    "oss": "ossfs",
}
_LEAST_VERSIONS = {"s3fs": (2024, 6), "gcsfs": (2024, 6)}
"""Older ones fail when they write, or go with no version of fsspec that we take: a resolver may pick them for that."""
_BLOCK = 8 * 2**20  # how many bytes are uploaded at a time: enough for few requests, and few enough for memory
_MOST_BLOCKS = 9_000  # S3 takes 10,000 parts


@attrs.frozen
class LocalStore:
    """A folder on this machine. Names may be paths in it, with slashes."""

    folder: Path

    def path(self, name: str) -> Path:
        """The whole name of a file, as messages may show it."""
        return self.folder / name

    def check(self, name: str) -> None:
        """Raise ExportError if, as far as that can be seen, no file of that name can be put here."""
        path = self.folder / name
        check_replaceable(path)
        if path.is_dir():
            check_writable(path)

    def names(self) -> list[str]:
        return [found.name for found in self.folder.iterdir()]

    def sizes(self, folder: str) -> dict[str, int]:
        """The files in a folder in it and below, by their paths in that folder, each with its size."""
        top = self.folder / folder
        if top.exists() and not top.is_dir():
            raise ExportError(f"{top} is no folder")
        found = (path for path in top.rglob("*") if path.is_file())
        return {path.relative_to(top).as_posix(): path.stat().st_size for path in found}

    def fetch(self, name: str, scratch: Path) -> Path | None:
        """A file, to be read; None if it isn't there."""
        path = self.folder / name
        return path if path.exists() else None

    def put(self, source: Path, name: str, check: Callable[[], None]) -> None:
        """Put a file in the place of the one of that name. `check` raises if the work should end."""
        place = self.folder / name
        for parent in [*place.relative_to(self.folder).parents][-2::-1]:
            folder = self.folder / parent
            folder.mkdir(exist_ok=True)
            if folder.is_symlink() and parent.parent != Path():  # within what an export makes, nobody needs one
                raise ExportError(f"{folder} is a symbolic link: remove it")
        put_in_place(source, place, check)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        for parent in [*Path(name).parents][:-2]:
            with contextlib.suppress(OSError):  # something else is in it
                (self.folder / parent).rmdir()


@attrs.frozen
class RemoteStore:
    """A folder in what fsspec knows, with the same methods."""

    url: Hidden  # its URL, with a slash at its end
    query: Hidden  # what follows a name in a URL, if anything does
    options: Hidden

    def _url(self, name: str) -> Hidden:
        return Hidden(f"{self.url.value}{name}{self.query.value}")

    def path(self, name: str) -> str:
        return masked_url(self._url(name))

    def check(self, name: str) -> None:
        scheme = scheme_of(self.url) or ""
        package = PACKAGES.get(scheme, "what fsspec's documentation names")
        _check_version(package)
        try:
            self._call(
                name, lambda system, path: system.info(path), but=(FileNotFoundError, PermissionError, ImportError)
            )
        except ImportError:
            raise ExportError(f"destinations with {scheme}:// need {package}: {install_package(package)}") from None
        except PermissionError:  # one to write, and none to look
            pass
        except FileNotFoundError:
            if scheme in OBJECT_STORES and not self._call(
                name, lambda system, path: system.exists(path.partition("/")[0])
            ):
                raise ExportError(f"{self.path(name)} can't be written: there is no such bucket or container") from None

    def names(self) -> list[str]:
        def list_names(system: Any, path: str) -> list[str]:
            parent = path.rpartition("/")[0]
            system.invalidate_cache(parent)
            return [str(found).rstrip("/").rpartition("/")[2] for found in system.ls(parent, detail=False)]

        try:
            return self._call("x", list_names, but=(FileNotFoundError, PermissionError))
        except (FileNotFoundError, PermissionError):
            return []

    def sizes(self, folder: str) -> dict[str, int]:
        def find(system: Any, path: str) -> dict[str, int]:
            path = path.rstrip("/") + "/"
            system.invalidate_cache()
            found = system.find(path, detail=True)
            return {name.removeprefix(path): int(info["size"]) for name, info in found.items()}

        try:
            return self._call(folder + "/", find, but=(FileNotFoundError,))
        except FileNotFoundError:
            return {}

    def fetch(self, name: str, scratch: Path) -> Path | None:
        target = scratch / f"before{Path(name).suffix}"
        try:
            self._call(name, lambda system, path: system.get_file(path, str(target)), but=(FileNotFoundError,))
        except FileNotFoundError:
            return None
        return target

    def put(self, source: Path, name: str, check: Callable[[], None]) -> None:
        if scheme_of(self.url) in OBJECT_STORES:
            self._upload(source, name, check)
            return
        fresh = name + ".tfruns-new"
        try:
            self._upload(source, fresh, check)
            self._call(name, lambda system, path: system.mv(path + ".tfruns-new", path))
        except BaseException:
            with contextlib.suppress(Exception):
                self.remove(fresh)
            raise

    def _upload(self, source: Path, name: str, check: Callable[[], None]) -> None:
        size = max(_BLOCK, -(-source.stat().st_size // _MOST_BLOCKS))
        size = -(-size // _BLOCK) * _BLOCK
        upload = self._call(name, lambda system, path: system.open(path, "wb", block_size=size, autocommit=True))
        try:
            with source.open("rb") as file:
                while block := file.read(size):
                    check()
                    self._guarded(name, lambda block=block: upload.write(block))  # type: ignore[misc]
            check()
            self._guarded(name, upload.close)
        except BaseException:
            with contextlib.suppress(Exception):
                upload.discard()
            with contextlib.suppress(Exception):
                upload.closed = True  # or it would be completed when Python frees it
            raise

    def remove(self, name: str) -> None:
        def remove(system: Any, path: str) -> None:
            system.invalidate_cache(path.rpartition("/")[0])
            try:
                system.info(path)
            except PermissionError:  # one to write, and none to look: there may be nothing to remove
                with contextlib.suppress(PermissionError):
                    system.rm_file(path)
            else:
                system.rm_file(path)

        failed = "is left, and can't be removed (you need the right to delete)"
        with contextlib.suppress(FileNotFoundError):
            self._call(name, remove, but=(FileNotFoundError,), failed=failed)

    def _call(
        self, name: str, do: Callable[[Any, str], _T], *, but: _Errors = (), failed: str = "can't be written"
    ) -> _T:
        def call() -> _T:
            core = importlib.import_module("fsspec.core")
            return do(*core.url_to_fs(self._url(name).value, **(self.options.value or {})))

        return self._guarded(name, call, but=but, failed=failed)

    def _guarded(self, name: str, call: Callable[[], _T], *, but: _Errors = (), failed: str = "can't be written") -> _T:
        secrets = secrets_of(self._url(name), self.options)
        return guarded(secrets, f"{self.path(name)} {failed}", call, but=but)


Store = LocalStore | RemoteStore


def remote_store(url: Hidden, options: Hidden) -> tuple[RemoteStore, str]:
    """The folder in which a URL names something, and its name, with a slash at its end for a folder."""
    head, mark, query = str(url.value).partition("\0" if scheme_of(url) in NAMED_BY_BUCKET else "?")
    folder, _, name = head.removesuffix("/").rpartition("/")
    return RemoteStore(Hidden(folder + "/"), Hidden(mark + query), options), name + "/" * head.endswith("/")


def _check_version(package: str) -> None:
    if (least := _LEAST_VERSIONS.get(package)) is None:
        return
    with contextlib.suppress(ImportError):
        module = importlib.import_module(package)
        found = str(getattr(module, "__version__", None) or importlib.metadata.version(package))
        numbers = tuple(map(int, re.findall(r"[0-9]+", found)[:2]))
        if numbers < least and "unknown" not in found:
            wanted = ".".join(map(str, least))
            newer = install_package(f"'{package}>={wanted}' 'fsspec>={wanted}'")
            raise ExportError(f"{package} {found} is too old: {newer}")


# --- the simplest destination ---

QUARANTINE = ".rejected.jsonl"
_MOST_EXPORTS = 10_000
"""After so many exports with one state, the names of their files would no longer sort in their order."""


def put_quarantine(
    store: Store, name: str, export: Export, is_stale: Callable[[RejectedRun], bool] | None = None
) -> Path | str | None:
    """Put the runs that were set aside in a file, or remove it. Returns its name if any were. If `is_stale` is given,
    older lines stay but for runs that were set aside now, and those of jobs read now that are stale."""
    path = export.scratch / "rejected"
    with open(fresh_file(path), "wb") as file:
        if is_stale is not None and not export.replace and (old := store.fetch(name, export.scratch)):
            file.writelines(_older_lines(old, export, is_stale))
        file.writelines(each.line for runs in export.rejected_runs() for each in runs)
    if path.stat().st_size:
        store.put(path, name, export.check)
    else:
        store.remove(name)
    return store.path(name) if export.checkpoint.rejected_runs else None


def _older_lines(path: Path, export: Export, is_stale: Callable[[RejectedRun], bool]) -> Iterator[bytes]:
    jobs, keys = set(export.done_jobs), set(export.rejected_keys())
    with path.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):
                old = msgspec.json.decode(line, type=RejectedRun)
                if (old.job_id, old.run_id) in keys or (old.job_id in jobs and is_stale(old)):
                    continue
            yield line


@attrs.define
class File(Destination):
    """A file: a new one takes its place. With a state, each export writes a file of its own."""

    store: Store
    name: str
    format_: Format
    _before: Sequence[str] = ()  # files of exports with the state that begins anew
    replaces: bool = False

    @property
    def path(self) -> Path | str:
        return self.store.path(self.name)

    def begin(self, export: Export) -> str:
        state, first = export.state, self.format_.for_increment(self.name, 0)
        if state is None:
            self.store.check(self.name)
            names = self.store.names()
            if first in names:
                raise ExportError(
                    f"{first} is of exports with a state: a file of all runs beside it would be taken for newer than"
                    " those to come. Give the state, or another destination"
                )
            self.replaces = self.name in names
            return ""
        if state.exports >= _MOST_EXPORTS:
            raise ExportError(
                f"there were {_MOST_EXPORTS:,} exports with {export.state_path}, and no more files can be named in"
                " their order: begin anew with replace=True (--replace)"
            )
        before, after = first.rsplit(".0000", 1)
        pattern = re.compile(rf"{re.escape(before)}\.([0-9]{{4}}){re.escape(after)}")
        self.name = self.format_.for_increment(self.name, state.exports)
        if self.path == export.state_path:
            raise ExportError(f"{self.path} can't be both the state and what is written: give the state another name")
        self.store.check(self.name)
        found = {name: int(match[1]) for name in sorted(self.store.names()) if (match := pattern.fullmatch(name))}
        wrong = [
            other for other in found if other >= self.name and (other, str(self.path)) != (self.name, state.writing)
        ]
        if wrong and not export.replace:
            raise ExportError(
                f"{wrong[-1]} is of other exports than those with the state {export.state_path}, and would be replaced"
                " or taken for newer: give their state or another destination, move their files away, or begin anew"
                " with replace=True (--replace)"
            )
        if export.replace and export.state_path:  # what follows a gap may be a file of others, such as runs.2024.csv
            known = State.count(export.state_path)
            end = next(number for number in itertools.count(known) if number not in found.values())
            self._before = [other for other, number in found.items() if 0 < number < end]
        return ""

    def finish(self, export: Export) -> Mapping[str, Any]:
        fresh = export.scratch / "fresh"
        size = fresh.stat().st_size
        with export.announced():
            self.store.put(fresh, self.name, export.check)
        quarantine = put_quarantine(self.store, self.name + QUARANTINE, export)
        for name in reversed(self._before):  # the last first, so that those that are left are what was once exported
            export.check()
            self.store.remove(name)
            self.store.remove(name + QUARANTINE)
        return {"size": size, "removed_files": len(self._before), "quarantine": quarantine}
