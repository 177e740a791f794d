"""A PostgreSQL of our own: a cluster in a temporary folder, on a free port, gone at the end."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

PASSWORD = "pass/w@rd:of?the#tests"
ENCODED = "pass%2Fw%40rd%3Aof%3Fthe%23tests"


@attrs.frozen
class Cluster:
    """A server that is running."""

    binaries: Path
    port: int

    @property
    def address(self) -> str:
        """The URL without user and password, as it may be shown."""
        return f"postgresql://127.0.0.1:{self.port}/postgres"

    @property
    def url(self) -> str:
        """The URL with which a superuser connects."""
        return self.address.replace("://", f"://tests:{ENCODED}@")

    def psql(self, query: str, database: str = "postgres") -> str:
        """What psql prints for a query: unaligned, fields separated by |, null as ␀."""
        command = [self.binaries / "psql", "-XqAt", "-P", "null=␀", "-v", "ON_ERROR_STOP=1", "-c", query]
        environment = {**os.environ, "PGPASSWORD": PASSWORD, "PGTZ": "UTC", "PGCLIENTENCODING": "UTF8"}
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "tests", database]
        done = subprocess.run([*command, *where], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.removesuffix("\n")


def _binaries() -> Path | None:
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: int(path.parent.name))
    elsewhere = shutil.which("initdb")
    return None if elsewhere is None else Path(elsewhere).parent


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster; skips the test where PostgreSQL isn't installed."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("POSTGRESQL IS NOT INSTALLED (apt-get install postgresql): THIS TEST SAYS NOTHING")
    owner = {}
    folder = Path(tempfile.mkdtemp(prefix="tfruns-postgres-"))
    password = folder / "password"
    password.write_text(PASSWORD)
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        import pwd  # not on Windows

        names = {entry.pw_name for entry in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        owner = {"user": user.pw_uid, "group": user.pw_gid}
        for path in (folder, password):
            os.chown(path, user.pw_uid, user.pw_gid)
    found = Cluster(binaries, _free_port())
    try:
        make = [binaries / "initdb", "-D", folder / "data", "-U", "tests", "--pwfile", password, "-E", "UTF8"]
        make += ["--auth=scram-sha-256", "--no-sync", "--locale=C"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, timeout=120, **owner)  # type: ignore[call-overload]
        options = {
            "listen_addresses": "127.0.0.1",
            "port": found.port,
            "unix_socket_directories": folder,
            "fsync": "off",
        }
        command = [binaries / "postgres", "-D", folder / "data"]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **owner)  # type: ignore[call-overload]
        try:
            ready = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(found.port)]
            while subprocess.run(ready).returncode != 0:
                assert server.poll() is None, (folder / "log").read_text()
            yield found
        finally:
            server.send_signal(2)  # SIGINT: without waiting for clients
            server.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
