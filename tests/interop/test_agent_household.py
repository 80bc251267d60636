"""coralmux-agent and several devices at once: questions to the person, devices that fall silent, networks that break."""

import asyncio
import contextlib
import dataclasses
import json
import random
import shlex
import sys

import pytest
from household import Party, request
from middle import Middle
from network import Network
from test_exec_json import PROGRAM
from test_resume import FAULTS, Breaking, delay, half_open, reset

from agents import Agent
from coralmux import Link
from test_agent_devices import answered, device as rust_device, first_link, until

pytestmark = pytest.mark.asyncio

ASKING = f"exec {sys.executable} -c {shlex.quote(PROGRAM)}"
STALLED = 15  # seconds without an acknowledgement


async def owner_of(agent, folder, stack, relay=None, link=None, **options):
    """The first device."""
    link = link or await first_link(agent)
    link = dataclasses.replace(link, relay=relay) if relay else link
    owner = await stack.enter_async_context(Party("phone", link, state=folder / "owner.json", name="Owner", **options))
    await owner.expect("client.agreed")
    return owner


async def invites(owner, relay=None):
    link = Link.parse((await request(owner, "device.invite", result="device.invite.result"))["link"])
    return dataclasses.replace(link, relay=relay) if relay else link


async def admits(owner):
    await owner.client.send("device.admit", {"device": (await owner.expect("device.pending")).payload["device"]})


async def guest_of(owner, folder, stack, name, relay=None):
    """A further device, which the first one has let in."""
    link = await invites(owner, relay)
    guest = await stack.enter_async_context(Party("phone", link, state=folder / f"{name}.json", name=name))
    await admits(owner)
    await guest.expect("client.agreed")
    return guest


# ---- Questions to the person ----


async def test_what_the_agent_asks_is_answered_on_one_device_and_shown_as_answered_on_all(start_agent, tmp_path):
    """The first answer counts, whoever gives it; a later one changes nothing, and says what came of it."""
    agent = start_agent("--exec", ASKING, "--exec-json", "--timeout", "60")
    async with contextlib.AsyncExitStack() as stack:
        owner = await owner_of(agent, tmp_path, stack)
        guest = await guest_of(owner, tmp_path, stack, "Guest")
        other = await stack.enter_async_context(rust_device(await invites(owner), tmp_path / "other"))
        await admits(owner)
        question = await owner.client.send("chat.send", {"text": "ask", "asks": 1})
        asks = [(await one.expect("chat.ask", ref=question)).payload for one in (owner, guest)]
        asks.append(await until(other, "chat.ask"))
        name = asks[0]["ask"]
        assert all((ask["ask"], ask["text"], ask["default"]) == (name, "Shall I?", "n") for ask in asks)
        await guest.client.send("chat.answer", {"ask": name, "option": "y"})
        for one in (owner, guest):
            answer = (await one.expect("chat.answered", ask=name)).payload
            assert (answer["outcome"], answer["option"], answer["ref"]) == ("answered", "y", question)
        assert (await until(other, "chat.answered"))["option"] == "y"
        for late in (owner, other):
            await (late.client.send if late is owner else late.send)("chat.answer", {"ask": name, "option": "n"})
        said = (await owner.expect("chat.done", ref=question)).payload["full_text"]
        assert json.loads(said) == {"type": "answer", "id": "q", "option": "y"}
        for payload in owner.of("chat.answered") + guest.of("chat.answered"):
            assert (payload["outcome"], payload["option"]) == ("answered", "y")


async def test_of_answers_at_the_same_moment_one_counts(start_agent, tmp_path):
    agent = start_agent("--exec", ASKING, "--exec-json", "--timeout", "60")
    async with contextlib.AsyncExitStack() as stack:
        owner = await owner_of(agent, tmp_path, stack)
        guest = await guest_of(owner, tmp_path, stack, "Guest")
        for number in range(4):
            question = await owner.client.send("chat.send", {"text": f"ask {number}", "asks": 1})
            name = (await owner.expect("chat.ask", ref=question)).payload["ask"]
            await guest.expect("chat.ask", ask=name)
            parties = [(owner, "y"), (guest, "n")]
            random.shuffle(parties)
            await asyncio.gather(*(one.client.send("chat.answer", {"ask": name, "option": it}) for one, it in parties))
            said = json.loads((await owner.expect("chat.done", ref=question)).payload["full_text"])
            for one in (owner, guest):
                await one._until(lambda one=one: any(it["ask"] == name for it in one.of("chat.answered")), name, 30)
                told = [payload["option"] for payload in one.of("chat.answered") if payload["ask"] == name]
                assert set(told) == {said["option"]}, "the same on each device"


async def test_a_device_that_was_away_hears_that_a_question_is_over(start_agent, tmp_path):
    agent = start_agent("--exec", ASKING, "--exec-json", "--timeout", "60")
    async with contextlib.AsyncExitStack() as stack:
        owner = await owner_of(agent, tmp_path, stack)
        guest = await guest_of(owner, tmp_path, stack, "Guest")
        await guest.__aexit__()
        question = await owner.client.send("chat.send", {"text": "ask", "asks": 1})
        name = (await owner.expect("chat.ask", ref=question)).payload["ask"]
        await owner.client.send("chat.answer", {"ask": name, "option": "y"})
        await owner.expect("chat.done", ref=question)
        guest = await stack.enter_async_context(Party("phone", None, state=tmp_path / "Guest.json"))
        await guest.expect("chat.ask", ask=name)
        assert (await guest.expect("chat.answered", ask=name)).payload["option"] == "y"
        await guest.expect("chat.done", ref=question)


# ---- Silence, and breaks ----


async def test_a_device_that_does_not_acknowledge_is_parked_and_holds_up_nobody(relay, tmp_path):
    """11: after 15 s it counts as absent, and is heard of again when it says something."""
    deaf, seen = [], []

    def no_acks(role, message):
        if role == "agent" and message["type"] == "relay.park":
            seen.append(message["payload"]["device"])
        return [] if role == "phone" and message["type"] == "ack" and deaf else [message]

    async with Middle(relay, no_acks) as middle, contextlib.AsyncExitStack() as stack:
        agent = Agent(tmp_path, middle.url.removesuffix("/ws"), "--echo", "--token", await relay.token())
        stack.callback(agent.kill)
        owner = await owner_of(agent, tmp_path, stack, relay=relay.url)
        silent = await guest_of(owner, tmp_path, stack, "Silent", relay=middle.url)
        await answered(silent, "before")
        deaf.append(silent.device)
        began = asyncio.get_running_loop().time()
        await answered(owner, "is it there?")
        await silent.expect("chat.done", full_text="You said: is it there?")
        while not seen:
            await answered(owner, "goes on")
            await asyncio.sleep(0.2)
            assert asyncio.get_running_loop().time() - began < STALLED + 20
        assert asyncio.get_running_loop().time() - began >= STALLED - 1 and seen == [silent.device]
        deaf.clear()
        await answered(owner, "meanwhile")
        await answered(silent, "I am back")
        await silent._until(lambda: "You said: meanwhile" in [it["full_text"] for it in silent.of("chat.done")], "it", 30)


async def test_devices_of_the_agent_program_lose_nothing_on_a_network_that_breaks(relay, tmp_path):
    """4, 5: each question is asked once and answered once, and both come to each device once and in order."""
    async with contextlib.AsyncExitStack() as stack:
        phones, agents = [await stack.enter_async_context(Network(relay.port)) for _ in range(2)]
        agent = await asyncio.to_thread(Agent, tmp_path, agents.url.removesuffix("/ws"), "--echo")
        stack.callback(agent.kill)
        owner = await owner_of(agent, tmp_path, stack, relay=phones.url)
        guest = await guest_of(owner, tmp_path, stack, "Guest", relay=phones.url)
        other = await stack.enter_async_context(rust_device(await invites(owner, phones.url), tmp_path / "other"))
        await admits(owner)
        async with asyncio.timeout(30):
            while agent.output().count(" is a device now (") < 3:
                await asyncio.sleep(0.05)
        of_phones = Breaking(phones, [reset, half_open, delay], FAULTS)
        of_agent = Breaking(agents, [reset, half_open, delay], 4)
        asked = 0
        while of_phones.goes_on() or of_agent.goes_on() or asked < 12:
            asker = (owner, guest)[asked % 2]
            await answered(asker, f"question {asked}")
            asked += 1
        said = [f"You said: question {number}" for number in range(asked)]
        for one in (owner, guest):
            await one._until(lambda one=one: len(one.of("chat.done")) >= asked, "all answers", 60)
            assert [payload["full_text"] for payload in one.of("chat.done")] == said
        turns = [payload["text"] for payload in guest.of("chat.turn")]
        assert turns == [f"question {number}" for number in range(0, asked, 2)]
        for text in said:
            assert (await until(other, "chat.done"))["full_text"] == text
