"""31: an agent that knows devices, and its devices, at a relay that does not, and at one that has forgotten it
(PROTOCOL.md, "Old and new")."""

import asyncio
import contextlib
import json

import pytest
from household import Household, Party
from old_relay import OldRelay

from agents import Agent
from coralmux import Link
from test_agent_devices import answered, device as rust_device, first_link, said

pytestmark = pytest.mark.asyncio

TOKEN = "oc_pair_" + "0123456789abcdef" * 2
FORGOTTEN = "The relay does not know devices any more: 1 cannot connect."


@contextlib.asynccontextmanager
async def program(folder, url, *flags):
    """coralmux-agent, which echoes."""
    (folder / "agent").mkdir()
    agent = await asyncio.to_thread(Agent, folder / "agent", url.removesuffix("/ws"), "--echo", *flags)
    try:
        yield agent
    finally:
        agent.kill()


@contextlib.asynccontextmanager
async def package(folder, url, *_):
    """An agent on the Python client, which echoes."""
    async with Household(url, TOKEN, folder) as home:

        async def echo():
            while True:
                asked = await home.agent.expect("chat.send", timeout=None)
                text = f"You said: {asked.payload['text']}"
                await home.agent.client.send("chat.done", {"full_text": text, "ref": asked.id})

        echoing = asyncio.create_task(echo())
        try:
            yield home
        finally:
            echoing.cancel()


async def link_of(agent):
    """Of the program, or of the package."""
    if isinstance(agent, Agent):
        return await asyncio.to_thread(agent.link, device=True)
    await agent.agent.expect("client.refused", reason="no_devices")
    return Link(TOKEN, agent.url, agent.agent.client.devices.state.plain)


def nothing_of_devices(relay):
    """What has left the ends is of the wire contract and version 2, but for what `auth` asks for."""
    kinds = {message["type"] for _, message in relay.seen}
    assert kinds <= {"key_exchange", "chat.send", "chat.stream", "chat.done", "chat.error", "ack", "ping", "pong"}, kinds
    for _, message in relay.seen:
        assert "device" not in message and "keep" not in message
        if message["type"].startswith("chat."):
            assert message["payload"].get("enc") is True and "v" not in message["payload"], message


@pytest.mark.parametrize("start", [program, package])
async def test_at_an_old_relay_it_is_version_2_as_ever(tmp_path, start):
    """Its link names no agent, and a phone that knows devices speaks as one that does not."""
    async with OldRelay() as relay, start(tmp_path, relay.url, "--token", TOKEN) as agent:
        link = await link_of(agent)
        assert link.agent is None
        async with Party("phone", link, state=tmp_path / "phone.json") as phone:
            await phone.expect("client.agreed")
            for number in range(3):
                await answered(phone, f"question {number}")
        assert [auth["ext"] for auth in relay.auths] == [1, 1] and "key" in relay.auths[0]
        nothing_of_devices(relay)


@pytest.mark.parametrize("make", ["python", "rust"])
async def test_a_link_that_names_its_agent_leads_nowhere_at_an_old_relay(relay, tmp_path, make):
    """The phone says so, and nothing but `auth` has left it: a relay cannot press it down to version 2 by hiding devices."""
    async with OldRelay() as old, program(tmp_path, relay.url) as agent:
        link = await first_link(agent)
        link = Link(link.token, old.url, link.secret, link.agent)
        if make == "python":
            async with Party("phone", link, state=tmp_path / "phone.json") as phone:
                assert "does not take this phone for a device" in await phone.end()
        else:
            async with rust_device(link, tmp_path / "phone") as phone:
                assert "show a new link" in (await phone.event("not enrolled"))["message"]
        assert old.seen == [] and len(old.auths) == 1


@pytest.mark.parametrize("start", [program, package])
async def test_devices_outlast_a_relay_that_has_forgotten_them(start_relay, tmp_path, start):
    """Said in words at both ends, and deleted by neither; nothing is said to it; with the relay of before all goes on."""
    real = start_relay("--register-rate", "0")
    token = await real.token()
    async with contextlib.AsyncExitStack() as stack:
        if start is program:
            agent = await stack.enter_async_context(program(tmp_path, real.url, "--token", token))
            link = await first_link(agent)
        else:
            home = Household(real.url, token, tmp_path)
            await stack.enter_async_context(home)
            link = await home.first()
        async with Party("phone", link, state=tmp_path / "phone.json") as phone:
            await phone.expect("client.agreed")
            device = phone.device
            await talks(phone, start, locals())
            await phone.client.delivered()
        kept = (tmp_path / "phone.json").read_text()
        await asyncio.to_thread(real.kill)
        async with OldRelay(real.port) as old:
            if start is program:
                await said(agent, FORGOTTEN)
            else:
                await home.agent.expect("client.refused", reason="no_devices")
            async with Party("phone", None, state=tmp_path / "phone.json") as phone:
                assert "does not take this phone for a device" in await phone.end()
            async with rust_device(link, tmp_path / "other") as other:
                assert "show a new link" in (await other.event("not enrolled"))["message"]
            assert [role for role, _ in old.seen if role == "phone"] == []
            assert not [message for _, message in old.seen if message["type"] != "key_exchange"], old.seen
        assert json.loads((tmp_path / "phone.json").read_text())["end"]["psk"] == json.loads(kept)["end"]["psk"]
        await asyncio.to_thread(real.start)
        async with Party("phone", None, state=tmp_path / "phone.json") as phone:
            assert phone.device == device
            await talks(phone, start, locals())


async def talks(phone, start, names):
    if start is program:
        await answered(phone, "hello")
        return
    asked = await phone.client.send("chat.send", {"text": "hello"})
    assert (await names["home"].agent.expect("chat.send")).id == asked
