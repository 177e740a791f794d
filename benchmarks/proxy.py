"""A compressing proxy like the one that the vendor's chart puts before the service: Caddy, which prefers zstd."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONFIGURATION = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    encode zstd gzip
    reverse_proxy {url}
}}
"""


def is_there() -> bool:
    """Whether Caddy is installed (Debian: `apt-get install caddy`)."""
    return shutil.which("caddy") is not None


@contextmanager
def compressing(url: str) -> Iterator[str]:
    """Put the proxy before a server: gives the proxy's URL."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        file = Path(folder) / "Caddyfile"
        file.write_text(_CONFIGURATION.format(port=port, url=url))
        command = ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
        env = {**os.environ, "XDG_CONFIG_HOME": folder, "XDG_DATA_HOME": folder}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env) as process:
            try:
                _await_port(port)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _await_port(port: int) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError("the proxy doesn't begin to listen")
