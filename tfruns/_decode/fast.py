"""From bytes to models: msgspec decodes and validates them in C, straight into the classes that users get.

If it refuses the bytes, it reads them again, changed to the form of a newer server. If it refuses those too, `explain`
reads them: it accepts all that older servers are known to send, and otherwise names every run and every field that is
wrong. Both are in one cattrs converter. For all that msgspec accepts, both give the same result.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import cattrs
import msgspec

from tfruns._decode.explain import converter, decode_error
from tfruns._text import with_strings, writable
from tfruns.models import JobRun, RunPage

T = TypeVar("T")

_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# In JSON, a name between quotation marks and before a colon is always the name of a field: within a text, the mark
# before the colon would be escaped.
_VERSION_AS_NUMBER = re.compile(rb'("deploymentVersion"\s*:\s*)(0|-?[1-9][0-9]{0,17})(?=\s*[,}])')
_DURATION_AS_TEXT = re.compile(rb'("duration"\s*:\s*)"(0|[1-9][0-9]{0,17})(?:\.0+)?"')


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
    except _REFUSED:  # a byte-order mark, or lone surrogates: UTF-8 can't hold those
        return tuple(map(msgspec.json.encode, with_strings(json.loads(body)["data"], writable)))


def _decode(body: bytes, model: type[T], job_id: str, offset: int, hide: Callable[[str], str]) -> T:
    try:
        return converter.structure(body, model)
    except (cattrs.BaseValidationError, ValueError, RecursionError):
        pass
    # Outside of the block, so that the error's context has no frame with the body, which may contain the key.
    raise decode_error(body, model, job_id=job_id, offset=offset, hide=hide)


def _as_newer_servers_say(body: bytes) -> bytes:
    """The body of an older server with the version as a text and the duration as a number."""
    return _DURATION_AS_TEXT.sub(rb"\1\2", _VERSION_AS_NUMBER.sub(rb'\1"\2"', body))


def _register(model: Any) -> None:
    """Let the converter structure bytes too as the model."""
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(model)
    explain = converter.get_structure_hook(model)

    def hook(value: Any, type_: Any) -> Any:
        if not isinstance(value, bytes):
            return explain(value, type_)
        with suppress(*_REFUSED):
            return decoder.decode(value)
        with suppress(*_REFUSED):
            return decoder.decode(_as_newer_servers_say(value))
        return explain(json.loads(value), type_)

    converter.register_structure_hook_func(lambda type_: type_ == model, hook)


_register(RunPage)
_register(tuple[JobRun, ...])
_splitter: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.defstruct("_Texts", [("data", list[msgspec.Raw])]))
