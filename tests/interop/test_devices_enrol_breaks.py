"""Enrolments whose agent loses its connection, or its life, before the relay has admitted the device: it becomes one all
the same, and its link is not told to be used."""

import asyncio
import contextlib
import dataclasses

import pytest
from household import Household, Party, asks, request, tells
from middle import Middle

from agents import Agent
from coralmux import Link
from test_agent_devices import answered, first_link, said

pytestmark = pytest.mark.asyncio


class Losing:
    """A middle's `rewrite`: so many messages of this type of the agent's are lost, and its connection with them."""

    def __init__(self, kind, count=1):
        self.kind, self.left, self.middle = kind, count, None

    def __call__(self, role, message):
        if role == "agent" and message["type"] == self.kind and self.left:
            self.left -= 1
            self.middle.cut("agent")
            return []
        return [message]


@contextlib.asynccontextmanager
async def losing(relay, kind, count=1):
    rewrite = Losing(kind, count)
    async with Middle(relay, rewrite) as middle:
        rewrite.middle = middle
        yield middle, rewrite


def program(folder, middle, token):
    return Agent(folder, middle.url.removesuffix("/ws"), "--echo", "--token", token)


@pytest.mark.parametrize("count", [1, 3])
async def test_the_agent_program_admits_a_device_though_the_word_is_lost(relay, tmp_path, count):
    async with losing(relay, "relay.admit", count) as (middle, lost):
        agent = program(tmp_path, middle, await relay.token())
        try:
            link = dataclasses.replace(await first_link(agent), relay=relay.url)
            async with Party("phone", link, state=tmp_path / "phone.json") as phone:
                await phone.expect("client.agreed")
                await answered(phone, "hello")
                assert lost.left == 0
            async with Party("phone", link, state=tmp_path / "phone.json") as phone:
                await answered(phone, "hello again")
        finally:
            agent.kill()


async def test_the_agent_program_is_killed_before_it_has_admitted_its_device(relay, tmp_path):
    """What it has on its disk is enough for the next one."""
    async with losing(relay, "relay.admit") as (middle, lost):
        agent = program(tmp_path, middle, await relay.token())
        try:
            link = dataclasses.replace(await first_link(agent), relay=relay.url)
            async with Party("phone", link, state=tmp_path / "phone.json") as phone:
                async with asyncio.timeout(30):
                    while lost.left:
                        await asyncio.sleep(0.001)
                agent.kill()
                agent.process = agent.popen(agent.command, agent.environment)
                await phone.expect("client.agreed")
                await answered(phone, "hello")
        finally:
            agent.kill()


@pytest.mark.parametrize("kind", ["relay.admit", "device.pending"])
async def test_the_python_agent_admits_a_device_though_the_word_is_lost(relay, tmp_path, kind):
    async with losing(relay, kind) as (middle, lost), Household(middle.url, await relay.token(), tmp_path) as home:
        if kind == "relay.admit":
            link = dataclasses.replace(await home.first(), relay=relay.url)
            owner = await home.device("owner", link)
            await asks(owner, home.agent)
            await tells(home.agent, [owner])
            assert lost.left == 0
            return
        link = dataclasses.replace(await home.first(), relay=relay.url)
        await invited(home, await home.device("owner", link), relay, lost)


async def invited(home, owner, relay, lost):
    """The agent's connection goes before the inviter was asked: it is asked once there is one again."""
    result = await request(owner, "device.invite", result="device.invite.result")
    link = dataclasses.replace(Link.parse(result["link"]), relay=relay.url)
    async with home.party("guest", link) as guest:
        await owner.expect("device.pending", device=guest.device)
        await owner.client.send("device.admit", {"device": guest.device})
        await guest.expect("client.agreed")
        await asks(guest, home.agent)
        assert lost.left == 0


async def test_an_inviter_of_the_agent_program_is_asked_though_the_word_is_lost(relay, tmp_path):
    async with losing(relay, "device.pending") as (middle, lost), contextlib.AsyncExitStack() as stack:
        agent = program(tmp_path, middle, await relay.token())
        stack.callback(agent.kill)
        link = dataclasses.replace(await first_link(agent), relay=relay.url)
        owner = await stack.enter_async_context(Party("phone", link, state=tmp_path / "owner.json"))
        await owner.expect("client.agreed")
        result = await request(owner, "device.invite", result="device.invite.result")
        link = dataclasses.replace(Link.parse(result["link"]), relay=relay.url)
        guest = await stack.enter_async_context(Party("phone", link, state=tmp_path / "guest.json", name="Guest"))
        await owner.expect("device.pending", device=guest.device)
        await said(agent, "Guest")
        await owner.client.send("device.admit", {"device": guest.device})
        await guest.expect("client.agreed")
        await answered(guest, "hello")
        assert lost.left == 0
