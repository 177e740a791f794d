"""Reports every Nth failure of `tests.support.failures` to sentry-sdk as it comes, and prints what it would send."""

import asyncio
import json
import logging
import sys
from typing import Any

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from tests.support.failures import WAYS, fragments

# Sentry's own instrumentation of aiohttp records the reason phrase of each response, before we see it.
REPORTED = {name: fail for name, fail in WAYS.items() if name != "the key in the status line"}

sent: list[str] = []
variables = 0


class Kept(Transport):
    """Keeps what would go over the network."""

    def capture_envelope(self, envelope: Envelope) -> None:
        sent.append(envelope.serialize().decode("utf-8", "replace"))


def _note(event: Any, _hint: Any) -> Any:
    global variables
    for one in event.get("exception", {}).get("values", []):
        variables += sum(len(frame.get("vars") or ()) for frame in (one.get("stacktrace") or {}).get("frames", ()))
    return event


async def main() -> dict[str, Any]:
    """What each way leaks."""
    sentry_sdk.init(dsn="https://key@sentry.invalid/1", transport=Kept, before_send=_note, traces_sample_rate=1.0)
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(logging.NullHandler())
    leaks = {}
    reported = [*REPORTED.items()][:: int(sys.argv[1])]
    for name, fail in reported:
        with sentry_sdk.start_transaction(name="a walk"):
            error = await fail()
            sentry_sdk.capture_exception(error)
            logging.getLogger("app").error("it failed", exc_info=error)
        sentry_sdk.flush()
        if found := fragments("".join(sent)):
            leaks[name] = found
        assert sent, name
        sent.clear()
    return {"leaks": leaks, "errors": len(reported), "with variables": variables}


if __name__ == "__main__":
    json.dump(asyncio.run(main()), sys.stdout)
