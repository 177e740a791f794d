"""An S3 of our own: moto's server, with a hook for what goes wrong."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest

pytest.importorskip("moto")
pytest.importorskip("s3fs")

import boto3
import fsspec
from moto.server import DomainDispatcherApplication, create_backend_app  # type: ignore[attr-defined]
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "bucket"
KEY, SECRET = "AKIATHEKEYOFTHETESTS", "the-secret-of-the-tests/0123456789"


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        pass


class ObjectStore:
    """A bucket. `on_request` is called with the method and the query of each request; True refuses it (403)."""

    def __init__(self) -> None:
        app = DomainDispatcherApplication(create_backend_app)
        self.on_request: Callable[[str, dict[str, list[str]]], bool] = lambda _method, _query: False

        def hooked(environ: Any, start: Any) -> Any:
            query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
            if self.on_request(environ["REQUEST_METHOD"], query):
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start("403 Forbidden", [("Content-Type", "application/xml")])
                return [b"<Error><Code>AccessDenied</Code><Message>not today</Message></Error>"]
            return app(environ, start)

        self._server = make_server("127.0.0.1", 0, hooked, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket=BUCKET)

    @property
    def options(self) -> dict[str, Any]:
        """The `storage_options` that lead here."""
        return {
            "key": KEY,
            "secret": SECRET,
            "client_kwargs": {"endpoint_url": self.url, "region_name": "us-east-1"},
        }

    def names(self) -> list[str]:
        """The keys of all objects."""
        found = self.client.list_objects_v2(Bucket=BUCKET)
        return [each["Key"] for each in found.get("Contents", [])]

    def uploads(self) -> list[str]:
        """The keys of all multipart uploads that are neither completed nor aborted."""
        found = self.client.list_multipart_uploads(Bucket=BUCKET)
        return [each["Key"] for each in found.get("Uploads", [])]

    def read(self, name: str) -> bytes:
        """The content of an object."""
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return content

    def empty(self) -> None:
        """Remove all objects."""
        self.on_request = lambda _method, _query: False
        for name in self.names():
            self.client.delete_object(Bucket=BUCKET, Key=name)

    def close(self) -> None:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        self.client.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """An object store for some tests."""
    store = ObjectStore()
    try:
        yield store
    finally:
        store.close()
