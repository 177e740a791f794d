"""Where files are put: a folder on this machine, or one in what fsspec knows, such as an object store.

A file appears under its name when it is whole. An object store shows an object when its upload is complete; elsewhere a
file is made, or uploaded, under another name, and moved. If something goes wrong, what was uploaded is discarded.
"""

import contextlib
import importlib
import importlib.metadata
import os
import re
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import attrs

from tfruns._extras import install, install_package
from tfruns.export.files import check_replaceable, put_in_place
from tfruns.export.results import ExportError
from tfruns.export.secrets import NAMED_BY_BUCKET, Hidden, guarded, masked_url, scheme_of, secrets_of

_T = TypeVar("_T")

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss"})
"""Schemes where no part of an object can be seen until it is complete."""
_PACKAGES = {
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
_UNSEEN = (PermissionError,)
"""What a store says where there is a permission to write, and none to look."""
_BLOCK = 8 * 2**20
"""How many bytes are uploaded at a time: enough for few requests, and few enough for memory."""
_MOST_BLOCKS = 9_000
"""S3 takes 10,000 parts."""


class Store(Protocol):
    """A folder of files, whose names may be paths in it, with slashes. All methods but `path` are for the thread."""

    @abstractmethod
    def path(self, name: str) -> Path | str:
        """The whole name of a file, as messages may show it."""

    def check(self, name: str) -> None:
        """Raise ExportError if, as far as that can be seen, no file of that name can be put here."""

    @abstractmethod
    def names(self) -> list[str]:
        """The names of the files right in it."""

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """The files in a folder in it and below, by their paths in that folder, each with its size."""

    def fetch(self, name: str, scratch: Path) -> Path | None:
        """A file, to be read; None if it isn't there."""

    def put(self, source: Path, name: str, check: Callable[[], None]) -> None:
        """Put a file in the place of the one of that name. `check` raises if the work should end."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


@attrs.frozen
class LocalStore:
    """A folder on this machine."""

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / name

    def check(self, name: str) -> None:
        check_replaceable(self.folder / name)

    def names(self) -> list[str]:
        return [found.name for found in self.folder.iterdir()]

    def sizes(self, folder: str) -> dict[str, int]:
        top = self.folder / folder
        if top.exists() and not top.is_dir():
            raise ExportError(f"{top} is no folder")
        found = (path for path in top.rglob("*") if path.is_file())
        return {path.relative_to(top).as_posix(): path.stat().st_size for path in found}

    def fetch(self, name: str, scratch: Path) -> Path | None:
        path = self.folder / name
        return path if path.exists() else None

    def put(self, source: Path, name: str, check: Callable[[], None]) -> None:
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


_STREAM = re.compile(r"/dev/(?:stdin|stdout|stderr|fd/[0-9]+)|/proc/(?:self|[0-9]+)/fd/[0-9]+")
_SHORTENED_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]")


def checked_destination(destination: str | os.PathLike[str]) -> Path:
    """The path to write to: for a symbolic link, the file that it points to."""
    given = os.fspath(destination)
    if isinstance(given, str) and _STREAM.fullmatch(given):
        raise ExportError(
            f"{given} is an open stream, and can't be replaced by a file that is whole: `tfruns export -o -` writes"
            " JSON lines or CSV to standard output"
        )
    if not isinstance(destination, str) and isinstance(given, str) and _SHORTENED_URL.match(given):
        raise ValueError("a URL must be given as a string: in a path, it isn't one any more")
    path = Path(os.path.realpath(given))
    if path.is_symlink():
        raise ExportError(f"{path} is a symbolic link that leads in a circle")
    if path.is_dir():
        raise ExportError(f"{path} is a folder: name a file in it, or end it with a slash for files by day")
    if path.exists() and not path.is_file():  # a new file would replace /dev/null
        raise ExportError(f"{path} is no ordinary file, and can't be replaced by one")
    if not path.parent.is_dir():
        raise _no_folder(path, str(given))
    return path


def checked_folder(destination: str) -> Path:
    """The path of a folder of files, which may not exist yet."""
    path = Path(os.path.realpath(destination))
    if path.is_symlink():
        raise ExportError(f"{path} is a symbolic link that leads in a circle")
    if not path.name or not path.parent.is_dir():
        raise _no_folder(path, destination)
    return path


def _no_folder(path: Path, given: str) -> ExportError:
    hint = f", or write {given.partition(':')[0]}:// for a URL" if _SHORTENED_URL.match(given) else ""
    return ExportError(f"there is no folder {path.parent} for {path.name or path}: make it first{hint}")


def check_url(url: Hidden) -> None:
    """Check that a URL can be understood in one way only, and by an installed package."""
    scheme, named = scheme_of(url), masked_url(url)
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError as error:
        raise ExportError(f"destinations with {scheme}:// need fsspec: {install('fsspec')} ({error})") from None
    if scheme in ("http", "https") or (scheme not in _PACKAGES and scheme not in fsspec.available_protocols()):
        raise ValueError(
            f"runs can't be written to a URL with {scheme}://: give a path, postgresql://, or what fsspec can write,"
            " such as s3://, gs:// or abfs://"
        )
    where, _, key = named.partition("://")[2].partition("/")
    if not (where and key) if scheme in _PACKAGES else not (where or key):
        raise ValueError(f"{named} names no object: give one such as {scheme}://bucket/runs.parquet")
    if "::" in named or named.endswith("//") or (scheme in _OBJECT_STORES and "//" in f"/{key}"):
        problem = "two slashes in a row, or two colons, which fsspec takes for something else"
        raise ValueError(f"{named} has {problem}: give another name")


@attrs.frozen
class RemoteStore:
    """A folder in what fsspec knows.

    Args:
        url: its URL, with a slash at its end.
        query: what follows a name in a URL, if anything does.
        options: options for fsspec besides the URL.
    """

    url: Hidden
    query: Hidden
    options: Hidden

    def _url(self, name: str) -> Hidden:
        return Hidden(f"{self.url.value}{name}{self.query.value}")

    def path(self, name: str) -> str:
        return masked_url(self._url(name))

    def check(self, name: str) -> None:
        scheme = scheme_of(self.url) or ""
        package = _PACKAGES.get(scheme, "what fsspec's documentation names")
        _check_version(package)
        try:
            self._call(name, lambda system, path: system.info(path), but=(FileNotFoundError, *_UNSEEN, ImportError))
        except ImportError:
            raise ExportError(f"destinations with {scheme}:// need {package}: {install_package(package)}") from None
        except _UNSEEN:
            pass
        except FileNotFoundError:
            if scheme in _OBJECT_STORES and not self._call(
                name, lambda system, path: system.exists(path.partition("/")[0])
            ):
                raise ExportError(f"{self.path(name)} can't be written: there is no such bucket or container") from None

    def names(self) -> list[str]:
        def list_names(system: Any, path: str) -> list[str]:
            parent = path.rpartition("/")[0]
            system.invalidate_cache(parent)
            return [str(found).rstrip("/").rpartition("/")[2] for found in system.ls(parent, detail=False)]

        try:
            return self._call("x", list_names, but=(FileNotFoundError, *_UNSEEN))
        except (FileNotFoundError, *_UNSEEN):
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
        if scheme_of(self.url) in _OBJECT_STORES:
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
        with contextlib.suppress(FileNotFoundError, *_UNSEEN):
            self._call(name, lambda system, path: system.rm_file(path), but=(FileNotFoundError, *_UNSEEN))

    def _call(self, name: str, do: Callable[[Any, str], _T], *, but: tuple[type[Exception], ...] = ()) -> _T:
        def call() -> _T:
            core = importlib.import_module("fsspec.core")
            return do(*core.url_to_fs(self._url(name).value, **(self.options.value or {})))

        return self._guarded(name, call, but=but)

    def _guarded(self, name: str, call: Callable[[], _T], *, but: tuple[type[Exception], ...] = ()) -> _T:
        secrets = secrets_of(self._url(name), self.options)
        return guarded(secrets, f"{self.path(name)} can't be written", call, but=but)


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
