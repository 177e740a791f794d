"""A cattrs converter that reads JSON: as fast as msgspec for what msgspec accepts, and as lenient as its hooks are."""

import functools
import json
import re
from contextlib import suppress
from typing import Any, TypeVar, cast

import cattrs
import msgspec

T = TypeVar("T")

REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that it refuses."""
# In JSON, a name between quotation marks and before a colon is always the name of a field: within a text, the mark
# before the colon would be escaped.
_VERSION_AS_NUMBER = re.compile(rb'("deploymentVersion"\s*:\s*)(0|-?[1-9][0-9]{0,17})(?=\s*[,}])')
_DURATION_AS_TEXT = re.compile(rb'("duration"\s*:\s*)"(0|[1-9][0-9]{0,17})(?:\.0+)?"')


class JsonConverter(cattrs.Converter):
    """A converter with `loads`. For all that msgspec accepts, `loads` and `structure` give the same result."""

    def loads(self, body: bytes, type_: type[T]) -> T:
        """The value in a JSON text: by msgspec, else by msgspec from the form of a newer server, else by the hooks.

        Raises:
            cattrs.BaseValidationError, ValueError, RecursionError: the text is something else.
        """
        decoder: msgspec.json.Decoder[T] = _decoder(cast("Any", type_))
        with suppress(*REFUSED):
            return decoder.decode(body)
        with suppress(*REFUSED):
            return decoder.decode(_as_newer_servers_say(body))
        return self.structure(json.loads(body), type_)


@functools.cache
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


def _as_newer_servers_say(body: bytes) -> bytes:
    """The body of an older server with the version as a text and the duration as a number."""
    return _DURATION_AS_TEXT.sub(rb"\1\2", _VERSION_AS_NUMBER.sub(rb'\1"\2"', body))
