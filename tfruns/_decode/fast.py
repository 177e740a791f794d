"""From the body of a response to models, or to the error that says what is wrong with it."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import cattrs
import msgspec

from tfruns._decode.converter import REFUSED
from tfruns._decode.explain import converter, decode_error
from tfruns._text import with_strings, writable
from tfruns.models import JobRun, RunPage

T = TypeVar("T")

_splitter: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.defstruct("_Texts", [("data", list[msgspec.Raw])]))


def decode_page(body: bytes, *, job_id: str, offset: int, hide: Callable[[str], str] = str) -> RunPage:
    """The page of runs in the body of a response.

    Args:
        body: the JSON.
        job_id: for errors.
        offset: of the page, for errors.
        hide: removes secrets from a text that goes into an error.

    Raises:
        DecodeError: the body isn't what the contract says; the error names every run and field that is wrong.
    """
    return _decode(body, RunPage, job_id, offset, hide)


def decode_runs(body: bytes, *, job_id: str, offset: int = 0) -> tuple[JobRun, ...]:
    """The runs in a JSON list of runs.

    Args:
        body: the JSON, which came from a server.
        job_id: for errors.
        offset: of the first run, for errors.

    Raises:
        DecodeError: as of `decode_page`.
    """
    return _decode(body, tuple[JobRun, ...], job_id, offset, str)


def split_page(body: bytes) -> tuple[bytes, ...]:
    """The JSON text of each run in a body that `decode_page` understood."""
    try:
        return tuple(map(bytes, _splitter.decode(body).data))
    except REFUSED:  # a byte-order mark, or lone surrogates: UTF-8 can't hold those
        return tuple(map(msgspec.json.encode, with_strings(json.loads(body)["data"], writable)))


def _decode(body: bytes, model: type[T], job_id: str, offset: int, hide: Callable[[str], str]) -> T:
    try:
        return converter.loads(body, model)
    except (cattrs.BaseValidationError, ValueError, RecursionError):
        pass
    # Outside of the block, so that the error's context has no frame with the body, which may contain the key.
    raise decode_error(body, model, job_id=job_id, offset=offset, hide=hide)
