"""An object in an object store, or a file elsewhere, by fsspec.

The file is made in the working folder, and uploaded last. An object store shows an object when its upload is complete;
elsewhere it is uploaded under another name, and moved. If something goes wrong, what was uploaded is discarded.
"""

import contextlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from tfruns._extras import install
from tfruns.export.destination import cache_folder, named_work_folder
from tfruns.export.errors import ExportError
from tfruns.export.finish import Content, Written
from tfruns.export.formats import Format
from tfruns.export.local import new_folder
from tfruns.export.secrets import Hidden, guarded, scheme_of, secrets_of, shown
from tfruns.export.watermark import check_names, check_number, numbered

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
_BLOCK = 8 * 2**20
"""How many bytes are uploaded at a time: enough for few requests, and few enough for memory."""
_MOST_BLOCKS = 9_000
"""S3 takes 10,000 parts."""


def check_scheme(scheme: str) -> None:
    """Check that there is such a scheme.

    Raises:
        ValueError: fsspec doesn't know it, or can't write there.
        ExportError: fsspec isn't installed.
    """
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError as error:
        raise ExportError(f"destinations with {scheme}:// need fsspec: {install('fsspec')} ({error})") from None
    if scheme in ("http", "https") or (scheme not in _PACKAGES and scheme not in fsspec.available_protocols()):
        raise ValueError(
            f"runs can't be written to a URL with {scheme}://: give a path, postgresql://, or what fsspec can write,"
            " such as s3://, gs:// or abfs://"
        )


@attrs.frozen
class Store:
    """A place that fsspec knows: mostly an object in an object store, or a folder there.

    Args:
        url: the URL of what is written there.
        options: options for fsspec besides the URL.
    """

    url: Hidden
    options: Hidden

    @property
    def shown(self) -> str:
        """The URL without passwords."""
        return shown(self.url)

    def sibling(self, name: str) -> "Store":
        """The object of that name beside it."""
        return attrs.evolve(self, url=Hidden(f"{self.url.value.rpartition('/')[0]}/{name}"))

    def beside(self, name: str) -> "Store":
        """The object of that name beside a folder, whose URL ends with a slash."""
        return attrs.evolve(self, url=Hidden(self.url.value.rstrip("/"))).sibling(name)

    def check(self) -> None:
        """Check that the store is there, as far as that is possible without writing.

        Raises:
            ExportError: it isn't.
        """
        scheme = scheme_of(self.url)
        try:
            self._call(lambda system, path: system.info(path), but=(FileNotFoundError, PermissionError, ImportError))
        except ImportError:
            package = _PACKAGES.get(scheme or "", "what fsspec's documentation names")
            raise ExportError(f"destinations with {scheme}:// need {package}: pip install {package}") from None
        except PermissionError:  # with a permission to write alone, nothing can be seen
            pass
        except FileNotFoundError:
            if scheme in _OBJECT_STORES and not self._call(lambda system, path: system.exists(path.partition("/")[0])):
                raise ExportError(f"{self.shown} can't be written: there is no such bucket or container") from None

    def names(self) -> list[str]:
        """The names of the objects beside it."""

        def list_names(system: Any, path: str) -> list[str]:
            parent = path.rpartition("/")[0]
            system.invalidate_cache(parent)
            return [str(found).rstrip("/").rpartition("/")[2] for found in system.ls(parent, detail=False)]

        try:
            return self._call(list_names, but=(FileNotFoundError, PermissionError))
        except (FileNotFoundError, PermissionError):  # with a permission to write alone, nothing can be seen
            return []

    def sizes(self) -> dict[str, int]:
        """The files in a folder and below, by their paths in it, each with its size."""

        def find(system: Any, path: str) -> dict[str, int]:
            path = path.rstrip("/") + "/"
            system.invalidate_cache()
            found = system.find(path, detail=True)
            return {name.removeprefix(path): int(info["size"]) for name, info in found.items()}

        try:
            return self._call(find, but=(FileNotFoundError,))
        except FileNotFoundError:
            return {}

    def get(self, target: Path) -> None:
        """Download it."""
        self._call(lambda system, path: system.get_file(path, str(target)))

    def put_rejected(self, content: Content, scratch: Path) -> None:
        """Write the quarantine, or remove it if no run was rejected."""
        if not content.has_rejected:
            self.remove()
            return
        rejected = scratch / "rejected"
        content.write_rejected(rejected)
        self.put(rejected, content.check)

    def put(self, source: Path, check: Callable[[], None]) -> None:
        """Upload a file. It appears when it is complete.

        Args:
            source: the file.
            check: called between blocks; raises if the work should end.

        Raises:
            ExportError: it failed, and nothing has changed.
        """
        if scheme_of(self.url) in _OBJECT_STORES:
            self._upload(source, check)
            return
        fresh = attrs.evolve(self, url=Hidden(self.url.value + ".tfruns-new"))
        try:
            fresh._upload(source, check)
            self._call(lambda system, path: system.mv(path + ".tfruns-new", path))
        except BaseException:
            with contextlib.suppress(Exception):
                fresh.remove()
            raise

    def _upload(self, source: Path, check: Callable[[], None]) -> None:
        size = max(_BLOCK, -(-source.stat().st_size // _MOST_BLOCKS))
        size = -(-size // _BLOCK) * _BLOCK
        upload = self._call(lambda system, path: system.open(path, "wb", block_size=size, autocommit=True))
        try:
            with source.open("rb") as file:
                while block := file.read(size):
                    check()
                    self._guarded(lambda block=block: upload.write(block))  # type: ignore[misc]
            check()
            self._guarded(upload.close)
        except BaseException:
            with contextlib.suppress(Exception):
                upload.discard()
            with contextlib.suppress(Exception):
                upload.closed = True  # or it would be completed when Python frees it
            raise

    def remove(self) -> None:
        """Remove the object, if it is there.

        Raises:
            ExportError: it can't be removed.
        """
        with contextlib.suppress(FileNotFoundError, PermissionError):
            self._call(lambda system, path: system.rm_file(path), but=(FileNotFoundError, PermissionError))

    def _call(self, do: Callable[[Any, str], _T], *, but: tuple[type[Exception], ...] = ()) -> _T:
        def call() -> _T:
            core = importlib.import_module("fsspec.core")
            return do(*core.url_to_fs(self.url.value, **(self.options.value or {})))

        return self._guarded(call, but=but)

    def _guarded(self, call: Callable[[], _T], *, but: tuple[type[Exception], ...] = ()) -> _T:
        secrets = secrets_of(self.url, self.options)
        return guarded(secrets, f"{self.shown} can't be written", call, but=but)


@attrs.frozen
class StoredObject:
    """An object: a new one replaces the one before."""

    store: Store
    form: Format

    @property
    def path(self) -> str:
        return self.store.shown

    @property
    def _name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def quarantine(self) -> str:
        return self._quarantine.shown

    @property
    def _quarantine(self) -> Store:
        return self.store.sibling(self._name + ".rejected.jsonl")

    @property
    def is_file(self) -> bool:
        return True

    @property
    def about(self) -> Mapping[str, str]:
        return {}

    def work_folder(self, work_dir: Path | None) -> Path:
        return named_work_folder(work_dir or cache_folder(), self._name, self.path.encode())

    def check(self) -> None:
        self.form.check()
        self.store.check()

    def begin(self, state: Path | None) -> None:
        check_names(self.store.names(), self._name, self.form, state)

    def numbered(self, number: int, state: Path) -> "StoredObject":
        check_number(number, state)
        return attrs.evolve(self, store=self.store.sibling(numbered(self._name, self.form, number)))

    def finish(self, content: Content, work: Path) -> Written:
        with new_folder(work / "new") as folder:
            self._quarantine.put_rejected(content, folder)
            made = folder / self._name
            content.fill(self.form.open(made, folder))
            self.store.put(made, content.check)
            return Written(size=made.stat().st_size)
