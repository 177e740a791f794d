"""From the body of a failed request to `HttpError`."""

import json
import pickle
from collections.abc import Callable

from tfruns._text import excerpt, with_strings, writable
from tfruns.models import HttpError


def decode_http_error(body: bytes, *, status_code: int, hide: Callable[[str], str] = str) -> HttpError:
    """The content of the body of a failed request. Never raises: a proxy may send anything, and the status matters
    more.

    Args:
        body: the body.
        status_code: of the response.
        hide: removes secrets from a text that goes into an error.
    """
    try:
        payload = with_strings(json.loads(body), lambda text: hide(writable(text)))
        pickle.dumps(payload)  # an error may go to another process: a body too deeply nested for that isn't used
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        return HttpError(status_code, excerpt(body, hide))
    message, code, details = payload.get("message"), payload.get("code"), payload.get("details")
    if isinstance(message, list):
        message = "; ".join(map(str, message))
    return HttpError(
        status_code,
        message if isinstance(message, str) and message else excerpt(body, hide),
        code if isinstance(code, (int, str)) else None,
        [item for item in details if isinstance(item, dict)] if isinstance(details, list) else None,
    )
