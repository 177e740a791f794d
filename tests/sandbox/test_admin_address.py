"""Who reaches the admin address of a sandbox, which takes no key."""

import asyncio

import aiohttp
import pytest
from yarl import URL

from tfruns.sandbox import Sandbox


async def test_the_admin_address_is_on_loopback_whatever_the_host_is() -> None:
    """A sandbox that other machines may use lets none of them change it."""
    async with Sandbox(1, 5, host="0.0.0.0", admin_port=0) as sandbox:  # noqa: S104
        served, admin = URL(sandbox.url), URL(sandbox.admin_url)
        assert admin.host == "127.0.0.1"
        for url, is_open in ((served, True), (admin, False)):
            try:
                _, writer = await asyncio.open_connection("127.0.0.2", url.port)  # 127.0.0.1 doesn't listen there
            except OSError:
                assert not is_open
            else:
                writer.close()
                assert is_open


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::1]"])
async def test_the_admin_address_refuses_a_name_that_was_made_to_mean_this_machine(host: str) -> None:
    """A web page whose own name points to 127.0.0.1 needs no header `Origin`."""
    async with Sandbox(1, 5, admin_port=0) as sandbox, aiohttp.ClientSession() as http:
        for name, status in ((host, 403), ("localhost:1", 200), (URL(sandbox.admin_url).authority, 200)):
            async with http.get(f"{sandbox.admin_url}/clock", headers={"Host": name}) as response:
                assert response.status == status
