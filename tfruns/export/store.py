"""Where files are put: a folder on this machine, or one in what fsspec knows, such as an object store.

A file appears under its name when it is whole. An object store shows an object when its upload is complete; elsewhere a
file is made, or uploaded, under another name, and moved. If something goes wrong, what was uploaded is discarded.
"""

import contextlib
import importlib
import importlib.metadata
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from tfruns._extras import install_package
from tfruns.export.files import check_replaceable, check_writable, put_in_place
from tfruns.export.results import ExportError
from tfruns.export.secrets import NAMED_BY_BUCKET, Hidden, guarded, masked_url, scheme_of, secrets_of

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

    def names(self) -> Mapping[str, int]:
        """What is in the folder, each with its size."""
        sizes = {}
        for found in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # others make and remove files there, too
                sizes[found.name] = found.lstat().st_size
        return sizes

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
            if folder.is_symlink():  # within what an export makes, nobody needs one
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
            self._call(name, lambda system, path: system.info(path), but=(FileNotFoundError, ImportError))
        except ImportError:
            raise ExportError(f"destinations with {scheme}:// need {package}: {install_package(package)}") from None
        except FileNotFoundError:
            if scheme in OBJECT_STORES and not self._call(
                name, lambda system, path: system.exists(path.partition("/")[0])
            ):
                raise ExportError(f"{self.path(name)} can't be written: there is no such bucket or container") from None

    def names(self) -> Mapping[str, int]:
        return self._find("", 1)

    def sizes(self, folder: str) -> dict[str, int]:
        return self._find(folder + "/", None)

    def _find(self, folder: str, depth: int | None) -> dict[str, int]:
        def find(system: Any, path: str) -> dict[str, int]:
            path = path.rstrip("/") + "/"
            system.invalidate_cache()
            found = system.find(path, depth, detail=True)
            return {name.removeprefix(path): int(info["size"]) for name, info in found.items()}

        try:
            return self._call(folder, find, but=(FileNotFoundError,))
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
                    self._call(name, lambda *_, block=block: upload.write(block))
            check()
            self._call(name, lambda *_: upload.close())
        except BaseException:
            with contextlib.suppress(Exception):
                upload.discard()
            with contextlib.suppress(Exception):
                upload.closed = True  # or it would be completed when Python frees it
            raise

    def remove(self, name: str) -> None:
        def remove(system: Any, path: str) -> None:
            system.invalidate_cache(path.rpartition("/")[0])
            system.info(path)  # if it isn't there, no right to remove it is needed
            system.rm_file(path)

        failed = "is left, and can't be removed (you need the right to delete)"
        with contextlib.suppress(FileNotFoundError):
            self._call(name, remove, but=(FileNotFoundError,), failed=failed)

    def _call(
        self, name: str, do: Callable[[Any, str], _T], *, but: _Errors = (), failed: str = "can't be written"
    ) -> _T:
        def call() -> _T:
            core = importlib.import_module("fsspec.core")
            return do(*core.url_to_fs(self._url(name).value, **self.options.value))

        return guarded(secrets_of(self._url(name), self.options), f"{self.path(name)} {failed}", call, but=but)


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
