"""Resume tokens as texts: the name of a version, a dot, and JSON, compressed and with a checksum, in base64url.

The JSON holds the filters of a walk or a watch, and what it needs to go on with the same ones. The checksum guards
against accidents (a token that was cut off), not against attackers.
"""

import base64
import json
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from tfruns._checks import checked_kind
from tfruns._text import shortened

_Content = TypeVar("_Content")
_LONGEST = 2**30  # in bytes, of the JSON: a short text can expand to any length


def pack(version: str, filters: Mapping[str, Any], content: object) -> str:
    """The token with these filters, and this content, which is plain JSON but for infinite numbers."""
    packed = zlib.compress(json.dumps([filters, content], separators=(",", ":")).encode(), 9)
    return f"{version}.{base64.urlsafe_b64encode(_checksum(packed) + packed).decode().rstrip('=')}"


def unpack(
    version: str,
    token: object,
    filters: Mapping[str, Any],
    read: Callable[[Any], _Content],
    moving: Collection[str] = (),
) -> tuple[dict[str, Any], _Content]:
    """The token's filters, and what `read` makes of its content. An error says why it can't be used with these filters,
    of which the moving ones, counted from now, may have another value in the token."""
    checked: str = checked_kind(token, "resume_token", "a string", str)
    given, _, text = checked.strip().partition(".")
    if given != version:
        raise ValueError(f"resume_token must begin with '{version}.' in this version, got {shortened(checked, 40)!r}")
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if packed[:4] != _checksum(packed[4:]):
            raise ValueError
        meant, content = json.loads(zlib.decompressobj().decompress(packed[4:], _LONGEST))
        found = read(content)
    except Exception:  # a text that was changed may fail in any way
        raise ValueError(f"resume_token is damaged: its {len(checked)} characters were cut off or changed") from None
    if meant != json.loads(json.dumps({**filters, **{name: meant.get(name) for name in moving}})):
        raise ValueError(f"resume_token was made with other filters: {meant!r}, got {filters!r}")
    return meant, found


def _checksum(packed: bytes) -> bytes:
    return zlib.crc32(packed).to_bytes(4)
