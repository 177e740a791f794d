"""Any arguments at all: a status and, at most, words on stderr; never a traceback."""

import contextlib
import http.server
import io
import os
import threading
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.seeds import examples
from tfruns.cli.program import run

_OPTIONS = {
    "list": "--search-prefix --status --triggered-by --version-number --sort-by --order --page-size --offset --max-runs"
    " --json --since --allow-http",
    "count": "--status --version-number --since --json --triggered-by",
    "export": "-o --format --jobs-from --state --status --quiet --summary-json --order"
    " --page-size --patience --max-rate",
    "watch": "--interval --start --resume-from --json --status",
    "wait": "--timeout --listed-within --interval --json",
    "nonsense": "--help",
}
VALUES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.sampled_from(
        ["failed", "FAILED", "asc", "startTime", "2h", "1e999", "nan", "-1", "0", "1000", "1001", "-", "--"]
    ),
    st.sampled_from(["runs.csv", "/dev/null", "/nowhere/x.jsonl", "2026-11-23", "99999999w", "\u2028", "a" * 3000]),
    st.integers().map(str),
    st.floats().map(str),
)


class NotFound(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b'{"statusCode":404,"message":"no such job"}'
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that went away is none."""


@pytest.fixture(scope="module")
def control_plane() -> Iterator[str]:
    server = Server(("127.0.0.1", 0), NotFound)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.property
@settings(max_examples=examples(60, share=0.25))
@given(data=st.data(), command=st.sampled_from(sorted(_OPTIONS)))
def test_any_arguments_end_in_a_status_and_words(
    data: st.DataObject, command: str, control_plane: str, tmp_path: pytest.TempPathFactory
) -> None:
    options = st.sampled_from(_OPTIONS[command].split())
    words = data.draw(st.lists(st.one_of(VALUES, options, options), max_size=8))
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    err, into = io.StringIO(), io.StringIO("a\n# b\n")
    environment = {"TFY_HOST": control_plane, "TFY_API_KEY": "tfy-secret-key-1234567890"}
    os.chdir(str(tmp_path))
    with (
        mock.patch("sys.argv", ["tfruns", command, *words]),
        mock.patch.dict(os.environ, environment),
        mock.patch("sys.stdin", into),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = run()
    assert status in (0, 1, 2, 3, 4, 5, 6, 7)
    assert "Traceback" not in err.getvalue()
    assert "tfy-secret" not in err.getvalue()
    if status == 2:
        assert err.getvalue().startswith("tfruns: ") or command == "nonsense"
